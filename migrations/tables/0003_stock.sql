create table stock (
    product_id blob not null,
    sequence bigint not null,
    hash blob not null,
    on_hand bigint not null,
    held bigint not null,
    sold bigint not null,
    price_minor bigint not null,
    currency varchar(3) not null,
    opens_at_ms bigint,
    closes_at_ms bigint,
    per_customer_limit bigint,
    hold_ms bigint not null,
    paused bigint not null,
    archived bigint not null,
    updated_at_ms bigint not null,
    constraint stock_key primary key (product_id),
    constraint stock_conserved check (held >= 0 and sold >= 0 and on_hand >= held + sold)
) without rowid
