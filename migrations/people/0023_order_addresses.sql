create table order_addresses (
    user_id blob not null,
    order_id blob not null,
    sealed blob not null,
    constraint order_addresses_key primary key (user_id, order_id)
) without rowid
