alter table node_sessions add column address varchar(255)
