insert into flush_checkpoint (id, pos) values (1, 0)
