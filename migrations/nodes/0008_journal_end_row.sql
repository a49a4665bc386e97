insert into journal_end (id, pos, events, bytes) values (1, 0, 0, 0)
