//! What stands in the address: ids in the path, and parameters behind the question mark.
//!
//! A malformed or foreign id is 404, like one that nobody has. A parameter we do not know is ignored; one we know
//! and cannot read is 422.

use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::Serialize;

use super::problem::Problem;

const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;

/// The path as the doors are looked for: however it is written, it is the same path at every node.
pub fn path_of(request: &HttpRequest) -> &str {
    request.match_info().as_str()
}

/// The id that the path names.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<T: FromStr> FromRequest for Id<T> {
    type Error = Problem;
    type Future = Ready<Result<Id<T>, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = request.match_info().get("id").and_then(|word| word.parse().ok());
        ready(id.map(Id).ok_or_else(|| Problem::not_found("Nothing has this id.")))
    }
}

/// The line of an order that the path names.
#[derive(Debug, Clone, Copy)]
pub struct Line(pub u8);

impl FromRequest for Line {
    type Error = Problem;
    type Future = Ready<Result<Line, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // As we write it ourselves: no sign, no leading zero.
        let written =
            |word: &&str| word.bytes().all(|digit| digit.is_ascii_digit()) && !word.starts_with('0');
        let word = request.match_info().get("line").filter(written);
        let line = word.and_then(|word| word.parse().ok());
        ready(line.map(Line).ok_or_else(|| Problem::not_found("No order has such a line.")))
    }
}

/// The name of ours that the path holds: small letters, `_` between them.
#[derive(Debug, Clone)]
pub struct Name(pub String);

const NAME_LEN_MAX: usize = 64;

impl FromRequest for Name {
    type Error = Problem;
    type Future = Ready<Result<Name, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let ours = |word: &&str| {
            word.len() <= NAME_LEN_MAX
                && word.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_')
        };
        let name = request.match_info().get("name").filter(ours);
        ready(
            name.map(|name| Name(name.to_owned()))
                .ok_or_else(|| Problem::not_found("Nothing has this name.")),
        )
    }
}

/// The parameters behind the question mark.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl FromRequest for Query {
    type Error = Problem;
    type Future = Ready<Result<Query, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        ready(
            pairs
                .map(|pairs| Query(pairs.into_inner()))
                .map_err(|_| Problem::field("?", "not a query string")),
        )
    }
}

impl Query {
    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that `read` understands, or the problem that says it does not.
    pub fn parsed<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(word) => match read(word) {
                Some(value) => Ok(Some(value)),
                None => Err(Problem::field(format!("?{name}"), format!("expected {expected}"))),
            },
        }
    }

    /// How many rows a page has.
    pub fn limit(&self) -> Result<u32, Problem> {
        let read = |word: &str| word.parse().ok().filter(|rows| (1..=PAGE_MAX).contains(rows));
        Ok(self.parsed("limit", read, "an integer from 1 to 100")?.unwrap_or(PAGE_DEFAULT))
    }

    /// Where the page begins: the word that the page before gave.
    pub fn cursor<T: FromStr>(&self) -> Result<Option<T>, Problem> {
        self.cursor_in(|_| true)
    }

    /// The same, where not every word of ours is a place in this list.
    pub fn cursor_in<T: FromStr>(&self, is_in: impl FnOnce(&T) -> bool) -> Result<Option<T>, Problem> {
        let read = |word: &str| word.parse().ok().filter(is_in);
        self.parsed("cursor", read, "the next_cursor of the page before")
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` of the `rows`, of which one more was asked for than is shown.
    pub fn of(mut rows: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> String) -> Page<T> {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = if more { rows.last().map(cursor) } else { None };
        Page { data: rows, next_cursor }
    }

    pub fn map<U>(self, show: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(show).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_more() {
        let page = Page::of(vec![9, 8, 7], 2, |row| row.to_string());
        assert_eq!((page.data, page.next_cursor), (vec![9, 8], Some("8".into())));
        let page = Page::of(vec![9, 8], 2, |row| row.to_string());
        assert_eq!((page.data, page.next_cursor), (vec![9, 8], None));
    }
}
