create table unproved_addresses (
    order_id blob not null,
    user_id blob not null,
    constraint unproved_addresses_key primary key (order_id)
) without rowid
