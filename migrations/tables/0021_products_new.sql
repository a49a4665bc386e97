create index products_new on products (is_new, id)
