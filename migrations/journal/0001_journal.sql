create table journal (
    pos integer primary key,
    product_id blob not null,
    first_seq bigint not null,
    last_seq bigint not null,
    epoch bigint not null,
    at_ms bigint not null,
    hash blob not null,
    events blob not null,
    constraint journal_no_fork unique (product_id, first_seq)
)
