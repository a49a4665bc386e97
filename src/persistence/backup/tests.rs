//! What a backup holds is what the migrations make.

use sqlx::Row;

use super::listed::{Kind, Part, TABLES, Table};
use super::parts::FILES;
use crate::persistence::testing::Home::Sqlite;

#[tokio::test]
async fn every_table_and_every_column_is_in_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    Sqlite.journal(&dir).await.close().await;
    Sqlite.open(&dir).await.close().await.unwrap();
    for part in [Part::Shop, Part::People, Part::Money, Part::Journal] {
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join(FILES[part as usize]));
        let mut file = sqlx::ConnectOptions::connect(&options).await.unwrap();
        let columns = "select m.name, c.name, lower(c.type) from sqlite_schema m, pragma_table_info(m.name) c \
            where m.type = 'table' and m.name not in ('_sqlx_migrations', 'journal_meta') order by m.name, c.cid";
        let mut found = Vec::new();
        for row in sqlx::query(columns).fetch_all(&mut file).await.unwrap() {
            let kind = match row.get::<String, _>(2).split('(').next().unwrap() {
                "blob" => Kind::Bytes,
                "bigint" | "integer" => Kind::Number,
                "varchar" | "text" => Kind::Words,
                other => panic!("a column of type {other}"),
            };
            found.push((row.get::<String, _>(0), row.get::<String, _>(1), kind));
        }
        let mut listed: Vec<_> = TABLES.iter().filter(|table| table.part == part).collect();
        listed.sort_by_key(|table| table.name);
        let columns = |table: &&Table| {
            let name = table.name.to_owned();
            table
                .columns
                .iter()
                .map(move |(column, kind)| (name.clone(), (*column).to_owned(), *kind))
                .collect::<Vec<_>>()
        };
        let listed: Vec<_> = listed.iter().flat_map(columns).collect();
        assert_eq!(listed, found, "{part:?}");
    }
}
