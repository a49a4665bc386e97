create index products_by_name on products (name_key)
