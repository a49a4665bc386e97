create table outbox (
    id blob not null,
    kind varchar(32) not null,
    locale varchar(2) not null,
    subject_id blob,
    wrapped_key blob not null,
    recipient blob not null,
    letter blob not null,
    state varchar(16) not null,
    tries bigint not null,
    next_at_ms bigint not null,
    created_at_ms bigint not null,
    version bigint not null,
    constraint outbox_key primary key (id)
) without rowid
