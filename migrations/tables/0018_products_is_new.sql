alter table products add column is_new bigint not null default 0
