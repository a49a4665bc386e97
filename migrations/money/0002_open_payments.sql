create table open_payments (
    payment_id blob not null,
    due_at_ms bigint,
    constraint open_payments_key primary key (payment_id)
) without rowid
