//! Lists as tables for spreadsheets (RFC 4180), sent piece by piece.
//!
//! Always true: a cell of text that a spreadsheet would take for a formula has an apostrophe before it (OWASP, *CSV Injection*), one
//! in which a program may see several is in quotes, numbers stay numbers, and a table that could not be read to its end is broken
//! off rather than closed, so that half of one is never taken for the whole. The next piece is read when the one before has gone, is so
//! many rows and no more, and holds up nobody else on its thread.

use std::cmp::Reverse;
use std::future::{Future, Ready, ready};
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::header::{self, Accept, Header, HeaderName, HeaderValue, Quality};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;
use super::query::Query;

/// With the part that reaches so many rows a table ends: `cursor=` with the last of its ids goes on.
pub const ROWS_MAX: usize = 100_000;
/// Where the bound is told.
pub const X_ROWS_MAX: HeaderName = HeaderName::from_static("x-rows-max");
/// Rows of one piece.
const ROWS_AT_ONCE: usize = 256;
/// A place in the line of its row, and the name under which lines are listed.
const LINE: &str = "/line";
const LINES: &str = "lines";

/// In which form a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Csv,
}

/// A column: its name, and where in a row its cell stands, as a JSON Pointer (RFC 6901). In a row that is a line of something
/// `/line/…` is a place in the line, and everything else one in the whole.
#[derive(Debug, Clone, Copy)]
pub struct Column(pub &'static str, pub &'static str);

/// One row: a thing as it is shown, or one of the lines that it lists. Lines of the same thing share it.
#[derive(Debug)]
pub struct Row {
    whole: Rc<Value>,
    line: Option<usize>,
}

/// Some rows, and where it goes on. Rows are made when they are written.
pub struct Part<C> {
    rows: Box<dyn Iterator<Item = Row>>,
    next: Option<C>,
}

impl Row {
    fn cell(&self, pointer: &str) -> Option<&Value> {
        match (self.line, pointer.strip_prefix(LINE).filter(|rest| rest.starts_with('/'))) {
            (Some(line), Some(rest)) => self.whole.get(LINES)?.get(line)?.pointer(rest),
            _ => self.whole.pointer(pointer),
        }
    }
}

impl<C> Part<C> {
    pub fn of<R>(rows: R, next: Option<C>) -> Part<C>
    where
        R: IntoIterator<Item = Row>,
        R::IntoIter: 'static,
    {
        Part { rows: Box::new(rows.into_iter()), next }
    }
}

impl FromRequest for Form {
    type Error = Problem;
    type Future = Ready<Result<Form, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Query::from_request(request, payload).into_inner().and_then(|query| Form::of(&query, request)))
    }
}

impl Form {
    /// `format=` if it is said; otherwise the one of the two that `Accept` would rather have, or JSON.
    fn of(query: &Query, request: &HttpRequest) -> Result<Form, Problem> {
        let said = query.parsed("format", Form::from_word, "json or csv")?;
        // Nobody is turned away for a header that cannot be read.
        let accepted = || Accept::parse(request).map_or(Form::Json, |accept| Form::accepted(&accept));
        Ok(said.unwrap_or_else(accepted))
    }

    fn from_word(word: &str) -> Option<Form> {
        match word {
            "json" => Some(Form::Json),
            "csv" => Some(Form::Csv),
            _ => None,
        }
    }

    /// The heavier one (RFC 9110, section 12.5.1); of two that weigh the same the one that is named more exactly, or first.
    fn accepted(accept: &Accept) -> Form {
        let csv = Wanted::of(accept, ["*/*", "text/*", "text/csv"]);
        let json = Wanted::of(accept, ["*/*", "application/*", "application/json"]);
        if csv > json && csv.is_some_and(|csv| csv.weight > Quality::ZERO) { Form::Csv } else { Form::Json }
    }
}

/// How much a form is wanted. What stands first counts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    weight: Quality,
    exactness: usize,
    place: Reverse<usize>,
}

impl Wanted {
    /// What the range says that fits most exactly, of these `ranges`; the last of them is the form itself.
    fn of(accept: &Accept, ranges: [&str; 3]) -> Option<Wanted> {
        let fitting = accept.iter().enumerate().filter_map(|(place, range)| {
            let exactness = ranges.iter().position(|known| *known == range.item.essence_str())?;
            Some(Wanted { weight: range.quality, exactness, place: Reverse(place) })
        });
        fitting.max_by_key(|wanted| (wanted.exactness, wanted.place))
    }
}

/// What is shown as JSON, to be shown as a row.
pub fn row(shown: &impl Serialize) -> Row {
    Row { whole: whole(shown), line: None }
}

/// The same with a row for each of its `lines`.
pub fn lines(shown: &impl Serialize) -> Vec<Row> {
    let whole = whole(shown);
    let lines = whole.get(LINES).and_then(Value::as_array).map_or(0, Vec::len);
    (0..lines).map(|line| Row { whole: whole.clone(), line: Some(line) }).collect()
}

fn whole(shown: &impl Serialize) -> Rc<Value> {
    Rc::new(serde_json::to_value(shown).unwrap_or_default())
}

/// A table, read in parts from `first` on. What goes wrong with the first part is a problem like any other.
pub async fn stream<C, F, Later>(
    name: &'static str,
    columns: &'static [Column],
    first: Option<C>,
    read: F,
) -> Result<HttpResponse, Problem>
where
    C: 'static,
    F: Fn(Option<C>) -> Later + 'static,
    Later: Future<Output = Result<Part<C>, Problem>>,
{
    let part = read(first).await?;
    let reading = Reading { read, columns, rows: 0, head: Some(head(columns)), part };
    let pieces = stream::try_unfold(reading, |mut reading| async move {
        let piece = reading.piece().await?;
        Ok::<_, actix_web::Error>(piece.map(|piece| (piece, reading)))
    });
    let file = format!("attachment; filename=\"{name}.csv\"");
    let file = HeaderValue::from_str(&file).unwrap_or(HeaderValue::from_static("attachment"));
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
        ))
        .insert_header((header::CONTENT_DISPOSITION, file))
        .insert_header((X_ROWS_MAX, HeaderValue::from(ROWS_MAX)))
        .streaming(Box::pin(pieces)))
}

/// The line of names.
fn head(columns: &[Column]) -> Bytes {
    let mut head = String::new();
    line(&mut head, columns.iter().map(|Column(name, _)| Cell::Plain((*name).to_owned())));
    Bytes::from(head)
}

/// How far a table has been read, and written.
struct Reading<C, F> {
    read: F,
    columns: &'static [Column],
    rows: usize,
    head: Option<Bytes>,
    part: Part<C>,
}

impl<C, F, Later> Reading<C, F>
where
    F: Fn(Option<C>) -> Later,
    Later: Future<Output = Result<Part<C>, Problem>>,
{
    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        loop {
            // Whoever takes all of it at once leaves room for others between two pieces.
            tokio::task::yield_now().await;
            let text = self.text();
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
            let next = self.part.next.take().filter(|_| self.rows < ROWS_MAX);
            let Some(next) = next else { return Ok(None) };
            self.part = (self.read)(Some(next)).await?;
        }
    }

    /// The next rows of this part; empty: there are no more.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for row in self.part.rows.by_ref().take(ROWS_AT_ONCE) {
            self.rows += 1;
            line(&mut text, self.columns.iter().map(|Column(_, pointer)| Cell::of(row.cell(pointer))));
        }
        text
    }
}

/// What stands in one cell.
enum Cell {
    /// Our own words, times and numbers: nothing in them needs care.
    Plain(String),
    /// What somebody wrote.
    Text(String),
}

impl Cell {
    fn of(value: Option<&Value>) -> Cell {
        match value {
            None | Some(Value::Null) => Cell::Plain(String::new()),
            Some(Value::Bool(yes)) => Cell::Plain(yes.to_string()),
            Some(Value::Number(number)) => Cell::Plain(number.to_string()),
            Some(Value::String(text)) => Cell::Text(text.clone()),
            Some(Value::Array(words)) => {
                let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                Cell::Text(words.join(" "))
            }
            Some(Value::Object(_)) => Cell::Text(value.map(Value::to_string).unwrap_or_default()),
        }
    }
}

fn line(out: &mut String, cells: impl Iterator<Item = Cell>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        match cell {
            Cell::Plain(word) => out.push_str(&word),
            Cell::Text(text) => write_text(out, &text),
        }
    }
    out.push_str("\r\n");
}

/// A line of texts.
#[cfg(any(test, feature = "fuzz"))]
pub fn line_of(texts: &[&str]) -> String {
    let mut out = String::new();
    line(&mut out, texts.iter().map(|text| Cell::Text((*text).to_owned())));
    out
}

/// Some programs pass over spaces before they look, and take the wide forms of these signs for the signs.
fn is_formula(text: &str) -> bool {
    let starts = |text: &str, signs: &[char]| text.starts_with(signs);
    starts(text, &['\t', '\r', '\n'])
        || starts(text.trim_start(), &['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

/// Some programs take a semicolon or a tab for a separator as well: what follows it would begin a cell, and could be a formula.
fn write_text(out: &mut String, text: &str) {
    let armed = is_formula(text);
    if !armed && !text.contains(['"', ',', ';', '\t', '\r', '\n']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    if armed {
        out.push('\'');
    }
    for letter in text.chars() {
        if letter == '"' {
            out.push('"');
        }
        out.push(letter);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use futures_util::FutureExt;
    use serde_json::json;

    fn written(value: &Value) -> String {
        let mut out = String::new();
        line(&mut out, std::iter::once(Cell::of(Some(value))));
        out.strip_suffix("\r\n").unwrap().to_owned()
    }

    #[test]
    fn a_formula_is_disarmed_and_a_number_is_not() {
        for (value, cell) in [
            (json!("=1+1"), "\"'=1+1\""),
            (json!("+82 10"), "\"'+82 10\""),
            (json!("-2+3"), "\"'-2+3\""),
            (json!("@SUM(A1)"), "\"'@SUM(A1)\""),
            (json!("\tx"), "\"'\tx\""),
            (json!("\rx"), "\"'\rx\""),
            (json!("  =1"), "\"'  =1\""),
            (json!("＝1"), "\"'＝1\""),
            (json!("=\"a\""), "\"'=\"\"a\"\"\""),
            (json!("say \"hi\", you"), "\"say \"\"hi\"\", you\""),
            (json!("two\nlines"), "\"two\nlines\""),
            (json!("cup;=1"), "\"cup;=1\""),
            (json!("cup\t=1"), "\"cup\t=1\""),
            (json!("달항아리"), "달항아리"),
            (json!("a=b"), "a=b"),
            (json!(-3), "-3"),
            (json!(19_900), "19900"),
            (json!(null), ""),
            (json!(true), "true"),
            (json!(["new", "best"]), "new best"),
        ] {
            assert_eq!(written(&value), cell);
        }
    }

    #[test]
    fn lines_share_what_they_are_of() {
        let rows = lines(&json!({ "id": "o", "lines": [{ "line": 1 }, { "line": 2 }], "line": "no" }));
        let cells: Vec<_> = rows.iter().map(|row| (row.cell("/id"), row.cell("/line/line"))).collect();
        let (id, one, two) = (json!("o"), json!(1), json!(2));
        assert_eq!(cells, [(Some(&id), Some(&one)), (Some(&id), Some(&two))]);
        assert!(Rc::ptr_eq(&rows[0].whole, &rows[1].whole));
        assert_eq!(row(&json!({ "line": { "line": 3 } })).cell("/line/line"), Some(&json!(3)));
    }

    /// However much one part holds, no more of it is made into rows than goes out, and others have their turn in between.
    #[tokio::test]
    async fn a_piece_is_so_many_rows_and_no_more() {
        const COLUMNS: &[Column] = &[Column("order", "/id"), Column("line", "/line/line")];
        let shown = json!({ "id": 7, "lines": vec![json!({ "line": 1 }); 50] });
        let made = Rc::new(std::cell::Cell::new(0));
        let counted = made.clone();
        let orders = (0..256).flat_map(move |_| {
            counted.set(counted.get() + 1);
            lines(&shown)
        });
        let part = Part::of(orders, Some(1_u8));
        let read = |_: Option<u8>| ready(Ok::<_, Problem>(Part::of([row(&json!({ "id": 8 }))], None::<u8>)));
        let mut reading = Reading { read, columns: COLUMNS, rows: 0, head: Some(head(COLUMNS)), part };
        assert_eq!(reading.piece().await.ok().flatten().as_deref(), Some(&b"order,line\r\n"[..]));
        assert_eq!(made.get(), 0);
        let mut piece = Box::pin(reading.piece());
        assert!(piece.as_mut().now_or_never().is_none(), "others have their turn");
        let written = piece.await.ok().flatten().unwrap();
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), ROWS_AT_ONCE);
        assert_eq!(made.get(), ROWS_AT_ONCE.div_ceil(50));
        let mut last = written;
        while let Some(next) = reading.piece().await.ok().flatten() {
            last = next;
        }
        assert_eq!((reading.rows, &last[..]), (256 * 50 + 1, &b"8,\r\n"[..]));
    }

    #[test]
    fn the_form_is_said_or_accepted() {
        let form = |uri: &str, accept: &str| {
            let request =
                TestRequest::with_uri(uri).insert_header((header::ACCEPT, accept)).to_http_request();
            Form::from_request(&request, &mut Payload::None).into_inner().ok()
        };
        assert_eq!(form("/?format=csv", "application/json"), Some(Form::Csv));
        assert_eq!(form("/?format=json", "text/csv"), Some(Form::Json));
        assert_eq!(form("/?format=xml", "*/*"), None);
        for (accept, expected) in [
            ("text/csv", Form::Csv),
            ("Text/CSV", Form::Csv),
            ("text/csv; header=present; Q=0.5", Form::Csv),
            ("text/*", Form::Csv),
            ("text/csv, */*", Form::Csv),
            ("text/csv, */*;q=0.1", Form::Csv),
            ("application/json;q=0.1, text/csv;q=0.2", Form::Csv),
            ("application/json;q=0, */*", Form::Csv),
            ("*/*, application/json;q=0.5", Form::Csv),
            ("text/csv, application/json", Form::Csv),
            ("application/json, text/csv", Form::Json),
            ("text/csv;q=0.1, application/json", Form::Json),
            ("text/csv;q=0.5, */*", Form::Json),
            ("text/*, text/csv;q=0, */*;q=0.1", Form::Json),
            ("text/csv;q=0", Form::Json),
            ("text/csv;q=0, application/json;q=0", Form::Json),
            ("text/html, application/xhtml+xml, */*;q=0.8", Form::Json),
            ("application/*", Form::Json),
            ("*/*", Form::Json),
            ("nonsense", Form::Json),
            ("", Form::Json),
        ] {
            assert_eq!(form("/", accept), Some(expected), "{accept}");
        }
        let twice = TestRequest::default()
            .append_header((header::ACCEPT, "text/html"))
            .append_header((header::ACCEPT, "text/csv"))
            .to_http_request();
        assert_eq!(Form::from_request(&twice, &mut Payload::None).into_inner().ok(), Some(Form::Csv));
    }
}
