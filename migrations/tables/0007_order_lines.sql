create table order_lines (
    order_id blob not null,
    line bigint not null,
    product_id blob not null,
    quantity bigint not null,
    unit_price_minor bigint not null,
    currency varchar(3) not null,
    sequence bigint not null,
    status varchar(16) not null,
    constraint order_lines_key primary key (order_id, line)
) without rowid
