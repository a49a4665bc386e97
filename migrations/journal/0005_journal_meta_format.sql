alter table journal_meta add column format_number bigint not null default 0
