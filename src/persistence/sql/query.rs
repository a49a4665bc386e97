//! A statement with its values, until it meets a connection.
//!
//! Always true: what is lent is copied once, into the driver's own form, and what is handed over is moved there.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use sqlx::mysql::{MySqlArguments, MySqlPool, MySqlRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Encode, Executor, IntoArguments, Type};

use super::row::{Column, FromRow};
use super::{Error, On, Row, mysql};

/// A value that is bound.
#[derive(Debug)]
pub enum Value<'q> {
    Null,
    Number(i64),
    Bytes(&'q [u8]),
    OwnBytes(Vec<u8>),
    Words(&'q str),
    OwnWords(Box<str>),
}

/// A statement and what is bound to it, in the order of its question marks.
#[derive(Debug)]
#[must_use = "nothing is asked until it meets a connection"]
pub struct Query<'q> {
    text: &'static str,
    values: Vec<Value<'q>>,
}

pub fn query<'q>(text: &'static str) -> Query<'q> {
    // In a rush there are thousands: they find their place at once.
    let marks = text.bytes().filter(|letter| *letter == b'?').count();
    Query { text, values: Vec::with_capacity(marks) }
}

/// The same for its rows' first columns.
pub fn query_as<'q, T: FromRow>(text: &'static str) -> Typed<'q, T> {
    Typed { query: query(text), of: PhantomData }
}

/// The same for the first column alone.
pub fn query_scalar<'q, T: for<'r> Column<'r>>(text: &'static str) -> Scalar<'q, T> {
    Scalar(query_as(text))
}

/// What a statement has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done(u64);

impl Done {
    /// How many rows it matched.
    pub fn rows_affected(self) -> u64 {
        self.0
    }
}

impl<'q> Query<'q> {
    pub fn bind(mut self, value: impl Into<Value<'q>>) -> Query<'q> {
        self.values.push(value.into());
        self
    }

    pub async fn execute<'c>(self, on: impl Into<On<'c>>) -> Result<Done, Error> {
        match on.into() {
            On::File(file) => file.execute(self.sqlite()?).await.map(|done| Done(done.rows_affected())),
            On::Files(files) => files.execute(self.sqlite()?).await.map(|done| Done(done.rows_affected())),
            On::Server(server) => {
                mysql::bounded(server.execute(self.mysql()?)).await.map(|done| Done(done.rows_affected()))
            }
            On::Servers(servers) => {
                let mut server = mysql::acquire(&servers).await?;
                let doing = server.execute(self.mysql()?);
                mysql::bounded(doing).await.map(|done| Done(done.rows_affected()))
            }
        }
    }

    pub async fn fetch_optional<'c>(self, on: impl Into<On<'c>>) -> Result<Option<Row>, Error> {
        Ok(match on.into() {
            On::File(file) => file.fetch_optional(self.sqlite()?).await?.map(Row::Sqlite),
            On::Files(files) => files.fetch_optional(self.sqlite()?).await?.map(Row::Sqlite),
            On::Server(server) => mysql::bounded(server.fetch_optional(self.mysql()?)).await?.map(Row::MySql),
            On::Servers(servers) => {
                let mut server = mysql::acquire(&servers).await?;
                mysql::bounded(server.fetch_optional(self.mysql()?)).await?.map(Row::MySql)
            }
        })
    }

    pub async fn fetch_one<'c>(self, on: impl Into<On<'c>>) -> Result<Row, Error> {
        self.fetch_optional(on).await?.ok_or(Error::RowNotFound)
    }

    pub async fn fetch_all<'c>(self, on: impl Into<On<'c>>) -> Result<Vec<Row>, Error> {
        match self.fetch(on) {
            rows @ Rows::MySql(_) => mysql::bounded(rows.try_collect()).await,
            rows => rows.try_collect().await,
        }
    }

    /// The rows one after the other, as they come.
    pub fn fetch<'c>(self, on: impl Into<On<'c>>) -> Rows<'c> {
        let rows = match on.into() {
            On::File(file) => self.sqlite().map(|query| Rows::Sqlite(file.fetch(query))),
            On::Files(files) => self.sqlite().map(|query| Rows::Sqlite(files.fetch(query))),
            On::Server(server) => {
                self.mysql().map(|query| Rows::MySql(mysql::each_bounded(server.fetch(query))))
            }
            On::Servers(servers) => self.mysql().map(|query| Rows::MySql(all_of(servers, query).boxed())),
        };
        rows.unwrap_or_else(|error| Rows::None(Some(error)))
    }

    fn sqlite(self) -> Result<Driven<SqliteArguments>, Error> {
        driven(self)
    }

    fn mysql(self) -> Result<Driven<MySqlArguments>, Error> {
        driven(self)
    }
}

/// All rows at once: a connection goes back into its pool before anybody looks at them.
fn all_of(
    servers: MySqlPool,
    query: Driven<MySqlArguments>,
) -> impl Stream<Item = Result<MySqlRow, Error>> + Send {
    let rows = async move {
        let mut server = mysql::acquire(&servers).await?;
        mysql::bounded(server.fetch_all(query)).await
    };
    stream::once(rows).map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten()
}

/// Rows as they come.
pub enum Rows<'c> {
    Sqlite(BoxStream<'c, Result<SqliteRow, Error>>),
    MySql(BoxStream<'c, Result<MySqlRow, Error>>),
    /// Nothing was asked.
    None(Option<Error>),
}

impl Stream for Rows<'_> {
    type Item = Result<Row, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Rows::Sqlite(rows) => {
                rows.poll_next_unpin(context).map(|row| row.map(|row| row.map(Row::Sqlite)))
            }
            Rows::MySql(rows) => rows.poll_next_unpin(context).map(|row| row.map(|row| row.map(Row::MySql))),
            Rows::None(error) => Poll::Ready(error.take().map(Err)),
        }
    }
}

/// A statement whose rows are so many columns.
#[must_use = "nothing is asked until it meets a connection"]
pub struct Typed<'q, T> {
    query: Query<'q>,
    of: PhantomData<fn() -> T>,
}

impl<'q, T: FromRow> Typed<'q, T> {
    pub fn bind(self, value: impl Into<Value<'q>>) -> Typed<'q, T> {
        Typed { query: self.query.bind(value), ..self }
    }

    pub async fn fetch_optional<'c>(self, on: impl Into<On<'c>>) -> Result<Option<T>, Error> {
        self.query.fetch_optional(on).await?.as_ref().map(T::from_row).transpose()
    }

    pub async fn fetch_one<'c>(self, on: impl Into<On<'c>>) -> Result<T, Error> {
        T::from_row(&self.query.fetch_one(on).await?)
    }

    pub async fn fetch_all<'c>(self, on: impl Into<On<'c>>) -> Result<Vec<T>, Error> {
        self.query.fetch_all(on).await?.iter().map(T::from_row).collect()
    }
}

/// A statement whose rows are one column.
#[must_use = "nothing is asked until it meets a connection"]
pub struct Scalar<'q, T>(Typed<'q, (T,)>);

impl<'q, T: for<'r> Column<'r>> Scalar<'q, T> {
    pub fn bind(self, value: impl Into<Value<'q>>) -> Scalar<'q, T> {
        Scalar(self.0.bind(value))
    }

    pub async fn fetch_optional<'c>(self, on: impl Into<On<'c>>) -> Result<Option<T>, Error> {
        Ok(self.0.fetch_optional(on).await?.map(|(value,)| value))
    }

    pub async fn fetch_one<'c>(self, on: impl Into<On<'c>>) -> Result<T, Error> {
        Ok(self.0.fetch_one(on).await?.0)
    }

    pub async fn fetch_all<'c>(self, on: impl Into<On<'c>>) -> Result<Vec<T>, Error> {
        Ok(self.0.fetch_all(on).await?.into_iter().map(|(value,)| value).collect())
    }
}

// --- what the drivers are handed ---------------------------------------------------------------------------------------------

/// A statement in a driver's own form. Each is compiled once a connection.
type Driven<A> = sqlx::query::Query<'static, <A as Arguments>::Database, A>;

fn driven<'q, A: Arguments + IntoArguments<A::Database>>(query: Query<'q>) -> Result<Driven<A>, Error>
where
    Option<i64>: Encode<'q, A::Database> + Type<A::Database>,
    i64: Encode<'q, A::Database> + Type<A::Database>,
    &'q [u8]: Encode<'q, A::Database> + Type<A::Database>,
    Vec<u8>: Encode<'q, A::Database> + Type<A::Database>,
    &'q str: Encode<'q, A::Database> + Type<A::Database>,
    String: Encode<'q, A::Database> + Type<A::Database>,
{
    let mut arguments = A::default();
    arguments.reserve(query.values.len(), 0);
    for value in query.values {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Number(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::OwnBytes(bytes) => arguments.add(bytes),
            Value::Words(words) => arguments.add(words),
            Value::OwnWords(words) => arguments.add(String::from(words)),
        };
        added.map_err(Error::Encode)?;
    }
    Ok(sqlx::query_with(query.text, arguments))
}

// --- what can be bound --------------------------------------------------------------------------------------------------------

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<&i64> for Value<'_> {
    fn from(number: &i64) -> Self {
        Value::Number(*number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Number(i64::from(number))
    }
}

impl<'q> From<&'q [u8]> for Value<'q> {
    fn from(bytes: &'q [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'q> From<&'q Vec<u8>> for Value<'q> {
    fn from(bytes: &'q Vec<u8>) -> Self {
        Value::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value::OwnBytes(bytes)
    }
}

impl<'q> From<&'q str> for Value<'q> {
    fn from(words: &'q str) -> Self {
        Value::Words(words)
    }
}

impl<'q> From<&'q String> for Value<'q> {
    fn from(words: &'q String) -> Self {
        Value::Words(words)
    }
}

impl From<String> for Value<'_> {
    fn from(words: String) -> Self {
        Value::OwnWords(words.into_boxed_str())
    }
}

impl<'q, T: Into<Value<'q>>> From<Option<T>> for Value<'q> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, T::into)
    }
}

impl<'q, T> From<&'q Option<T>> for Value<'q>
where
    &'q T: Into<Value<'q>>,
{
    fn from(value: &'q Option<T>) -> Self {
        value.as_ref().into()
    }
}
