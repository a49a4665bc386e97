create table flush_checkpoint (
    id integer primary key,
    pos bigint not null
)
