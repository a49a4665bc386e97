insert into journal_meta (id, epoch, probe) values (1, 0, '')
