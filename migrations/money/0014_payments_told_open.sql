alter table payments add column told_open bigint not null default 0
