alter table orders add column cancelled_by bigint
