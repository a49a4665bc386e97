create table shards (
    shard bigint not null,
    session bigint not null,
    epoch bigint not null,
    constraint shards_key primary key (shard)
)
