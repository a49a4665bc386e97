create index refunds_due on refunds (due_at_ms)
