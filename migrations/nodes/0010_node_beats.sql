create table node_beats (
    number bigint not null,
    beat bigint not null,
    leaving bigint not null default 0,
    constraint node_beats_key primary key (number)
)
