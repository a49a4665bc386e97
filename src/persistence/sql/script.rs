//! Several statements as one text, which a MySQL server does one after the other until one fails, without asking us in between.
//!
//! Always true: a script is made of our own literals, of numbers, and of bytes written as hexadecimal digits; so whatever comes from
//! outside cannot be read as a word. This is the one place where a text meets a driver that is not a literal.

use std::fmt::Write;

use futures_util::TryStreamExt;
use sqlx::Either;

use super::Error;
use super::mysql::Session;

const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

#[derive(Debug, Default)]
pub struct Script(String);

impl Script {
    pub fn with_room(bytes: usize) -> Script {
        Script(String::with_capacity(bytes))
    }

    pub fn words(&mut self, words: &'static str) -> &mut Script {
        self.0.push_str(words);
        self
    }

    pub fn number(&mut self, number: impl Into<i128>) -> &mut Script {
        // Writing into a `String` does not fail.
        let _ = write!(self.0, "{}", number.into());
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Script {
        self.0.push_str("x'");
        for byte in bytes {
            self.0.push(DIGITS[usize::from(byte >> 4)]);
            self.0.push(DIGITS[usize::from(byte & 15)]);
        }
        self.0.push('\'');
        self
    }

    /// For each statement the number of rows that it matched, and the number that `last_insert_id(…)` made in it. Where one fails, how
    /// many were done before it, and why.
    pub async fn run(self, session: &mut Session) -> Result<Vec<(u64, u64)>, (usize, Error)> {
        let mut said = sqlx::raw_sql(sqlx::AssertSqlSafe(self.0)).fetch_many(session.connection());
        let mut done = Vec::new();
        loop {
            match said.try_next().await {
                Ok(Some(Either::Left(one))) => done.push((one.rows_affected(), one.last_insert_id())),
                Ok(Some(Either::Right(_))) => {}
                Ok(None) => return Ok(done),
                Err(error) => return Err((done.len(), error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_digits_whatever_they_say() {
        let mut script = Script::default();
        script.words("select ").bytes(b"'; drop --").words(", ").number(-7_i64);
        assert_eq!(script.0, "select x'273b2064726f70202d2d', -7");
        assert_eq!(Script::default().bytes(&[]).0, "x''");
    }
}
