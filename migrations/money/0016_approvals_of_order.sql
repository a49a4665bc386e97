create index approvals_of_order on approvals (order_id)
