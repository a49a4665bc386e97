alter table one_time_tokens add column used_at_ms bigint
