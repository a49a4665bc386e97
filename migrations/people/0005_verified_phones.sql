create table verified_phones (
    phone_blind blob not null,
    user_id blob not null,
    constraint verified_phones_key primary key (phone_blind)
) without rowid
