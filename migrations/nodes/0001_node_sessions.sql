create table node_sessions (
    number bigint not null,
    node_id blob not null,
    active bigint,
    beat bigint not null,
    started_at_ms bigint not null,
    constraint node_sessions_key primary key (number),
    constraint node_sessions_active unique (active)
)
