create table webhook_endpoints (
    id blob not null,
    url varchar(2048) not null,
    description varchar(200) not null,
    events varchar(255) not null,
    state varchar(16) not null,
    reason varchar(16),
    failing_since_ms bigint,
    created_at_ms bigint not null,
    updated_at_ms bigint not null,
    constraint webhook_endpoints_key primary key (id)
) without rowid
