create table cart_lines (
    user_id blob not null,
    product_id blob not null,
    quantity bigint not null,
    added_at_ms bigint not null,
    constraint cart_lines_key primary key (user_id, product_id),
    constraint cart_lines_quantity check (quantity between 1 and 1000)
) without rowid
