create index products_best on products (is_best, id)
