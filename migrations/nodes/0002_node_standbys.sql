create table node_standbys (
    node_id blob not null,
    looks bigint not null,
    constraint node_standbys_key primary key (node_id)
)
