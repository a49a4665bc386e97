alter table node_sessions add column leaving bigint not null default 0
