create table buyer_orders (
    run bigint not null,
    buyer_id blob not null,
    order_id blob not null,
    constraint buyer_orders_key primary key (run, buyer_id, order_id)
) without rowid
