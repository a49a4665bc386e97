create table orders (
    id blob not null,
    buyer_id blob not null,
    home_id blob not null,
    status varchar(16) not null,
    total_minor bigint not null,
    currency varchar(3) not null,
    key_hash blob,
    body_hash bigint not null,
    hold_expires_at_ms bigint not null,
    created_at_ms bigint not null,
    updated_at_ms bigint not null,
    version bigint not null,
    constraint orders_key primary key (id)
) without rowid
