create table trail_head (
    id integer primary key,
    sequence bigint not null,
    hash blob not null
)
