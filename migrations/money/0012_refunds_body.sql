alter table refunds add column body_hash bigint
