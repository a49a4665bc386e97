alter table node_standbys add column address varchar(255)
