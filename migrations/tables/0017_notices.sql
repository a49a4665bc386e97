create table notices (
    pos integer primary key,
    number bigint not null,
    at_ms bigint not null,
    packed blob not null
)
