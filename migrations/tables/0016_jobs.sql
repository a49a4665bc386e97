create table jobs (
    name varchar(64) not null,
    finished_at_ms bigint not null,
    holder blob,
    lease_until_at_ms bigint,
    running_scheduled_at_ms bigint,
    running_began_at_ms bigint,
    last_scheduled_at_ms bigint,
    last_began_at_ms bigint,
    last_ended_at_ms bigint,
    last_outcome varchar(16),
    last_by_hand bigint,
    last_seen bigint,
    last_moved bigint,
    last_failed bigint,
    last_problems text,
    version bigint not null,
    constraint jobs_key primary key (name)
) without rowid
