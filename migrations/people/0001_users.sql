create table users (
    id blob not null,
    state varchar(16) not null,
    role varchar(16) not null,
    email_blind blob,
    phone_blind blob,
    wrapped_key blob,
    personal blob,
    password varchar(255),
    signed_out_at_ms bigint not null,
    version bigint not null,
    verified_at_ms bigint,
    created_at_ms bigint not null,
    updated_at_ms bigint not null,
    constraint users_key primary key (id),
    constraint users_state check (state in ('unverified', 'verified', 'suspended', 'deleted'))
) without rowid
