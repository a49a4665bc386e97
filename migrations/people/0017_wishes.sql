create table wishes (
    user_id blob not null,
    product_id blob not null,
    added_at_ms bigint not null,
    constraint wishes_key primary key (user_id, product_id)
) without rowid
