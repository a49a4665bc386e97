create index products_by_name_and_id on products (name_key, id)
