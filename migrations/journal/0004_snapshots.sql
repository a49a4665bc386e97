create table snapshots (
    product_id blob not null,
    sequence bigint not null,
    part bigint not null,
    parts bigint not null,
    body blob not null,
    constraint snapshots_key primary key (product_id, sequence, part)
)
