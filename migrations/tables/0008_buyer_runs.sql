create table buyer_runs (
    run bigint not null,
    level bigint not null,
    orders bigint not null,
    goes_into bigint,
    constraint buyer_runs_key primary key (run)
) without rowid
