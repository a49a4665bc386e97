create table journal_meta (
    id integer primary key,
    epoch bigint not null,
    probe blob not null
)
