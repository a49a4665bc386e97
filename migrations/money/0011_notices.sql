create table notices (
    id integer primary key,
    order_id blob not null,
    kind bigint not null,
    line bigint,
    at_ms bigint not null
)
