create table sessions (
    id blob not null,
    user_id blob not null,
    refresh_hash blob not null,
    former_hash blob,
    successor blob,
    device varchar(200) not null,
    created_at_ms bigint not null,
    used_at_ms bigint not null,
    constraint sessions_key primary key (id)
) without rowid
