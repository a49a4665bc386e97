alter table products add column is_best bigint not null default 0
