alter table node_standbys add column may_own bigint not null default 1
