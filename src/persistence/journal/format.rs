//! What may stand in the journal of a store, as the number in it that says so ([`FORMAT`]).
//!
//! Always true: whoever opens a journal to write has raised its number to his own before he writes, and a number that is greater than his
//! own opens nothing. It never falls, so several nodes may raise it at once.

use crate::domain::stock::FORMAT;
use crate::persistence::StoreError;
use crate::persistence::sql::{self, Error, On};

const RAISE: &str = "update journal_meta set format_number = ? where id = 1 and format_number < ?";
/// All columns: in a store that nobody has brought up to date yet the last of them is missing.
const FOUND: &str = "select * from journal_meta where id = 1";
/// Behind `id`, `epoch` and `probe`.
const NUMBER: usize = 3;

/// The largest number that anybody has written under; 0 in a journal of before there was one.
pub async fn format_of<'c>(on: impl Into<On<'c>>) -> Result<i64, StoreError> {
    let row = sql::query(FOUND).fetch_one(on).await?;
    match row.try_get::<i64>(NUMBER) {
        Err(Error::ColumnIndexOutOfBounds { .. }) => Ok(0),
        found => Ok(found?),
    }
}

/// Refuses a journal in which something may stand that this program does not know.
pub async fn check<'c>(on: impl Into<On<'c>>) -> Result<(), StoreError> {
    let found = format_of(on).await?;
    if found > FORMAT { Err(StoreError::Newer { found, known: FORMAT }) } else { Ok(()) }
}

/// The same for whoever is going to write there what this program writes.
pub async fn raise<C>(connection: &mut C) -> Result<(), StoreError>
where
    for<'c> On<'c>: From<&'c mut C>,
{
    sql::query(RAISE).bind(FORMAT).bind(FORMAT).execute(&mut *connection).await?;
    check(connection).await
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;
    use sqlx::sqlite::SqliteConnection;

    use super::*;

    #[tokio::test]
    async fn a_journal_of_before_there_was_a_number_is_known() {
        let mut file = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for statement in [
            include_str!("../../../migrations/journal/0002_journal_meta.sql"),
            include_str!("../../../migrations/journal/0003_journal_meta_row.sql"),
        ] {
            sqlx::query(statement).execute(&mut file).await.unwrap();
        }
        assert_eq!(format_of(&mut file).await.unwrap(), 0);
        check(&mut file).await.unwrap();
    }

    #[tokio::test]
    async fn the_number_is_raised_and_never_falls() {
        let mut file = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for statement in [
            include_str!("../../../migrations/journal/0002_journal_meta.sql"),
            include_str!("../../../migrations/journal/0003_journal_meta_row.sql"),
            include_str!("../../../migrations/journal/0005_journal_meta_format.sql"),
        ] {
            sqlx::query(statement).execute(&mut file).await.unwrap();
        }
        raise(&mut file).await.unwrap();
        raise(&mut file).await.unwrap();
        assert_eq!(format_of(&mut file).await.unwrap(), FORMAT);
        sqlx::query("update journal_meta set format_number = ?")
            .bind(FORMAT + 1)
            .execute(&mut file)
            .await
            .unwrap();
        let refused = raise(&mut file).await.unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found, known: FORMAT } if found == FORMAT + 1));
        assert_eq!(format_of(&mut file).await.unwrap(), FORMAT + 1);
    }
}
