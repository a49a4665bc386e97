create index webhook_deliveries_due on webhook_deliveries (endpoint_id, state, next_at_ms)
