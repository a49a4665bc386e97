create table verified_emails (
    email_blind blob not null,
    user_id blob not null,
    constraint verified_emails_key primary key (email_blind)
) without rowid
