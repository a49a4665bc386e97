create table cart_additions (
    user_id blob not null,
    key_hash blob not null,
    body_hash bigint not null,
    added_at_ms bigint not null,
    constraint cart_additions_key primary key (user_id, key_hash)
) without rowid
