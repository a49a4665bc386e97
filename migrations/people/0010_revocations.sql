create table revocations (
    subject blob not null,
    kind varchar(8) not null,
    epoch_ms bigint not null,
    until_ms bigint not null,
    noted_at_ms bigint not null,
    constraint revocations_key primary key (subject),
    constraint revocations_kind check (kind in ('session', 'user'))
) without rowid
