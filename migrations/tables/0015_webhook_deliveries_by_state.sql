create index webhook_deliveries_by_state on webhook_deliveries (endpoint_id, state, id)
