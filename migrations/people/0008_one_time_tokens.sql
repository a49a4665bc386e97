create table one_time_tokens (
    hash blob not null,
    purpose varchar(16) not null,
    user_id blob not null,
    email_blind blob not null,
    sealed blob,
    expires_at_ms bigint not null,
    constraint one_time_tokens_key primary key (hash)
) without rowid
