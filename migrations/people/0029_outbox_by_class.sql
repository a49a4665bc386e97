create index outbox_by_class on outbox (state, class, next_at_ms)
