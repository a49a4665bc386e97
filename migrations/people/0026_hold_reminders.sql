create table hold_reminders (
    order_id blob not null,
    due_at_ms bigint not null,
    constraint hold_reminders_key primary key (order_id)
) without rowid
