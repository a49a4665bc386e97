create index cart_additions_at on cart_additions (added_at_ms)
