create table products (
    id blob not null,
    sku varchar(64) not null,
    name varchar(200) not null,
    name_key varchar(200) not null,
    description text not null,
    thumbnail_url text,
    image_url text,
    tags text not null,
    archived bigint not null,
    version bigint not null,
    created_at_ms bigint not null,
    updated_at_ms bigint not null,
    made_by blob,
    made_of bigint not null,
    constraint products_key primary key (id),
    constraint products_sku unique (sku),
    constraint products_made_by unique (made_by)
)
