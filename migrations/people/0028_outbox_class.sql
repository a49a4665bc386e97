alter table outbox add column class varchar(16) not null default 'account'
