create table carts (
    user_id blob not null,
    version bigint not null,
    updated_at_ms bigint not null,
    constraint carts_key primary key (user_id)
) without rowid
