create table letters_told (
    id blob not null,
    constraint letters_told_key primary key (id)
) without rowid
