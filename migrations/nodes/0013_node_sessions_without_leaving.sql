alter table node_sessions drop column leaving
