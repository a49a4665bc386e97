create table webhook_deliveries (
    id blob not null,
    endpoint_id blob not null,
    event_id blob not null,
    kind varchar(32) not null,
    body text not null,
    state varchar(16) not null,
    tries bigint not null,
    next_at_ms bigint not null,
    last_status bigint,
    last_error varchar(32),
    created_at_ms bigint not null,
    updated_at_ms bigint not null,
    version bigint not null,
    constraint webhook_deliveries_key primary key (id)
) without rowid
