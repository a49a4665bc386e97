create table webhook_secrets (
    endpoint_id blob not null,
    number bigint not null,
    wrapped_key blob not null,
    secret blob not null,
    expires_at_ms bigint,
    made_by blob,
    made_of bigint not null,
    created_at_ms bigint not null,
    constraint webhook_secrets_key primary key (endpoint_id, number),
    constraint webhook_secrets_made_by unique (made_by)
) without rowid
