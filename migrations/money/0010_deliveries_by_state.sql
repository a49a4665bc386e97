create index deliveries_by_state on deliveries (state, order_id, line)
