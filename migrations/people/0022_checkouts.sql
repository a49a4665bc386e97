create table checkouts (
    user_id blob not null,
    key_hash blob not null,
    product_id blob not null,
    quantity bigint not null,
    body_hash bigint not null,
    pays bigint not null,
    keyed bigint not null,
    begun_at_ms bigint not null,
    constraint checkouts_key primary key (user_id, key_hash, product_id),
    constraint checkouts_quantity check (quantity between 1 and 1000)
) without rowid
