create table trail (
    sequence bigint not null,
    at_ms bigint not null,
    kind varchar(32) not null,
    actor_id varchar(64) not null,
    subject_id varchar(64) not null,
    detail text not null,
    previous_hash blob not null,
    hash blob not null,
    constraint trail_key primary key (sequence)
) without rowid
