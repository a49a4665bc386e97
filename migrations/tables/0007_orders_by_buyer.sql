create index orders_by_buyer on orders (buyer_id, id)
