create table webhooks_heard (
    event_id varchar(255) not null,
    heard_at_ms bigint not null,
    constraint webhooks_heard_key primary key (event_id)
) without rowid
