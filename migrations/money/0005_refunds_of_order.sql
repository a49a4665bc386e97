create index refunds_of_order on refunds (order_id)
