create index open_payments_due on open_payments (due_at_ms)
