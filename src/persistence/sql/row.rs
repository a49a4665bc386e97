//! Rows, and what stands in their columns.

use sqlx::mysql::{MySql, MySqlRow};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Type};

use super::{Damaged, Error, StoreError};
use crate::domain::stock::Millis;

/// A row of either database.
#[derive(Debug)]
pub enum Row {
    Sqlite(SqliteRow),
    MySql(MySqlRow),
}

/// What both databases can find in a column.
pub trait Column<'r>: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, MySql> + Type<MySql> {}

impl<'r, T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, MySql> + Type<MySql>> Column<'r> for T {}

impl Row {
    pub fn try_get<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Error> {
        match self {
            Row::Sqlite(row) => sqlx::Row::try_get(row, column),
            Row::MySql(row) => sqlx::Row::try_get(row, column),
        }
    }
}

#[cfg(test)]
impl Row {
    /// For rows that a test has just written.
    pub fn get<'r, T: Column<'r>>(&'r self, column: usize) -> T {
        self.try_get(column).unwrap()
    }
}

/// Whatever has columns: rows as the tables hand them out, and those of the journal's own file.
pub trait Columns {
    fn column<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Error>;
}

impl Columns for Row {
    fn column<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Error> {
        self.try_get(column)
    }
}

impl Columns for SqliteRow {
    fn column<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Error> {
        sqlx::Row::try_get(self, column)
    }
}

/// A row's first columns.
pub trait FromRow: Sized {
    fn from_row(row: &Row) -> Result<Self, Error>;
}

impl<A: for<'r> Column<'r>> FromRow for (A,) {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok((row.try_get(0)?,))
    }
}

impl<A: for<'r> Column<'r>, B: for<'r> Column<'r>> FromRow for (A, B) {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}

impl<A: for<'r> Column<'r>, B: for<'r> Column<'r>, C: for<'r> Column<'r>> FromRow for (A, B, C) {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    }
}

impl<A, B, C, D> FromRow for (A, B, C, D)
where
    A: for<'r> Column<'r>,
    B: for<'r> Column<'r>,
    C: for<'r> Column<'r>,
    D: for<'r> Column<'r>,
{
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    }
}

impl<A, B, C, D, E> FromRow for (A, B, C, D, E)
where
    A: for<'r> Column<'r>,
    B: for<'r> Column<'r>,
    C: for<'r> Column<'r>,
    D: for<'r> Column<'r>,
    E: for<'r> Column<'r>,
{
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
    }
}

/// Those of some rows that can be read, and the ids, in the first column, of those that cannot: one that is damaged holds up
/// nobody else, and stays for whoever looks into it.
pub fn legible<T>(
    rows: &[Row],
    what: &'static str,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> (Vec<T>, Vec<Vec<u8>>) {
    let (mut found, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match read(row) {
            Ok(one) => found.push(one),
            Err(error) => {
                let id: Vec<u8> = row.try_get(0).unwrap_or_default();
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                tracing::error!(%error, id = %hex, "the row of {what} cannot be read");
                damaged.push(id);
            }
        }
    }
    (found, damaged)
}

/// A column with a time, or without.
pub fn time(row: &impl Columns, column: usize) -> Result<Option<Millis>, StoreError> {
    Ok(row.column::<Option<i64>>(column)?.map(Millis))
}

/// A column with the sixteen bytes of an id, a key or a hash.
pub fn sixteen(row: &impl Columns, column: usize) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = row.column(column)?;
    Ok(bytes.try_into().map_err(|_| Damaged { what: "id" })?)
}

/// A column with the thirty-two bytes of a keyed hash.
pub fn thirty_two(row: &impl Columns, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.column(column)?;
    Ok(bytes.try_into().map_err(|_| Damaged { what: "hash" })?)
}

/// A column with a number that is never negative.
pub fn unsigned<T: TryFrom<i64>>(row: &impl Columns, column: usize) -> Result<T, StoreError> {
    let number: i64 = row.column(column)?;
    Ok(T::try_from(number).map_err(|_| Damaged { what: "number" })?)
}

/// A number of ours as the tables keep it. Ours stay far below the end of an `i64`.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
