create table journal_end (
    id integer primary key,
    pos bigint not null,
    events bigint not null,
    bytes bigint not null
)
