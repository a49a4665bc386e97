create index outbox_due on outbox (state, next_at_ms)
