alter table refunds add column made_anew bigint not null default 0
