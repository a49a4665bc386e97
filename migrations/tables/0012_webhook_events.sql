create table webhook_events (
    pos bigint not null,
    number bigint not null,
    id blob not null,
    kind varchar(32) not null,
    at_ms bigint not null,
    data text not null,
    constraint webhook_events_key primary key (pos, number)
) without rowid
