//! The log: how its lines look, and which request each of them is about.
//!
//! While a request is being worked on, whatever is said bears its id, and the id of the trace that it belongs to, if whoever sent it
//! traces it (W3C Trace Context). That costs a line that is not written nothing: the mark is moved in and out with each turn of
//! the request's future, and is looked at when a line is made.

#[cfg(feature = "otel")]
mod otel;
mod trace;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::IsTerminal;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::http::header::HeaderValue;
use pin_project_lite::pin_project;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Profile;
pub use trace::{Ended, Exporting, TRACEPARENT, Trace};

/// The server beneath us tells each of its threads' comings and goings; that is for those who ask.
const FILTER_DEFAULT: &str = "info,actix_server=warn";

thread_local! {
    /// Whose turn it is on this thread.
    static CURRENT: RefCell<Option<Mark>> = const { RefCell::new(None) };
}

/// What a request is called.
#[derive(Debug, Clone)]
pub struct Mark {
    pub request_id: HeaderValue,
    pub trace: Option<Trace>,
}

/// The request that is being worked on.
pub fn current() -> Option<Mark> {
    CURRENT.with_borrow(Clone::clone)
}

/// Puts back what was there, however this ends.
struct Turn<'m> {
    mark: &'m mut Option<Mark>,
    before: Option<Mark>,
}

impl<'m> Turn<'m> {
    fn of(mark: &'m mut Option<Mark>) -> Turn<'m> {
        let before = CURRENT.replace(mark.take());
        Turn { mark, before }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.mark = CURRENT.replace(self.before.take());
    }
}

/// Says something about a request.
pub fn about<T>(mark: &mut Option<Mark>, say: impl FnOnce() -> T) -> T {
    let _turn = Turn::of(mark);
    say()
}

pin_project! {
    /// A future that works on a request.
    pub struct Marked<F> {
        #[pin]
        future: F,
        mark: Option<Mark>,
    }
}

impl<F> Marked<F> {
    pub fn new(future: F, mark: Mark) -> Marked<F> {
        Marked { future, mark: Some(mark) }
    }

    /// Its mark, when its work is done.
    pub fn take_mark(self: Pin<&mut Self>) -> Option<Mark> {
        self.project().mark.take()
    }
}

impl<F: Future> Future for Marked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _turn = Turn::of(this.mark);
        this.future.poll(cx)
    }
}

/// Work that goes on by itself, for the request that is being worked on now.
pub fn carried<F: Future>(future: F) -> Marked<F> {
    carried_for(current(), future)
}

/// The same where it goes on on another thread: whose it is was looked at before.
pub fn carried_for<F: Future>(mark: Option<Mark>, future: F) -> Marked<F> {
    Marked { future, mark }
}

/// Starts the log: JSON in production, readable lines in development, coloured on a terminal. `RUST_LOG` chooses what is
/// told, `info` if it is unset. Lines go to standard error, so that standard output belongs to what was asked for.
pub fn start(profile: Profile) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, changes nothing.
    let _ = match profile {
        Profile::Production => {
            let lines = lines.json().flatten_event(true).with_current_span(true);
            lines.map_event_format(AsJson).finish().try_init()
        }
        Profile::Development => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = lines.compact().with_target(false).with_ansi(colour);
            lines.fmt_fields(AsWords(DefaultFields::new())).finish().try_init()
        }
    };
}

/// Members of an object, with the request's among them.
struct AsJson<F>(F);

impl<S, N, F> FormatEvent<S, N> for AsJson<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(Mark { request_id, trace }) = current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(members) = line.strip_prefix('{') else { return writer.write_str(&line) };
        let id = serde_json::Value::from(request_id.to_str().unwrap_or_default());
        write!(writer, "{{\"request_id\":{id},")?;
        if let Some(trace) = trace {
            write!(writer, "\"trace_id\":\"{}\",", trace.id())?;
        }
        writer.write_str(members)
    }
}

/// Words behind the others.
struct AsWords(DefaultFields);

impl<'w> FormatFields<'w> for AsWords {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        let Some(Mark { request_id, trace }) = current() else { return Ok(()) };
        write!(writer, " request_id={}", request_id.to_str().unwrap_or_default())?;
        match trace {
            Some(trace) => write!(writer, " trace_id={}", trace.id()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    const TRACE: &str = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn mark(id: &'static str) -> Mark {
        Mark { request_id: HeaderValue::from_static(id), trace: Trace::read(TRACE.as_bytes()) }
    }

    async fn works() {
        tracing::info!(order = 7, "before");
        tokio::task::yield_now().await;
        tracing::info!("after");
    }

    /// Two requests that take turns on one thread, and something that is about neither.
    async fn goings_on() {
        let [one, two] = ["r1", "r2\""].map(|id| Marked::new(works(), mark(id)));
        futures_util::future::join(one, two).await;
        tracing::info!("nobody's");
        let mut of = Some(mark("r3"));
        about(&mut of, || tracing::info!("outside"));
        let spawned = Marked::new(async { tokio::spawn(carried(works())).await }, mark("r4"));
        assert!(spawned.await.is_ok());
    }

    #[actix_web::test]
    async fn a_line_of_json_names_its_request() {
        let paper = Paper::default();
        let writer = paper.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let quiet = tracing::subscriber::set_default(lines.map_event_format(AsJson).finish());
        goings_on().await;
        drop(quiet);
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ids: Vec<&str> = told.iter().map(|line| line["request_id"].as_str().unwrap_or("-")).collect();
        assert_eq!(ids, ["r1", "r2\"", "r1", "r2\"", "-", "r3", "r4", "r4"], "{text}");
        assert_eq!((&told[0]["order"], &told[0]["message"]), (&Value::from(7), &Value::from("before")));
        let traced = told.iter().filter(|line| line["trace_id"] == "0123456789abcdef0123456789abcdef");
        assert_eq!(traced.count(), 7);
    }

    #[actix_web::test]
    async fn a_line_of_words_names_its_request() {
        let paper = Paper::default();
        let writer = paper.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).compact().with_ansi(false);
        let lines = lines.fmt_fields(AsWords(DefaultFields::new()));
        let quiet = tracing::subscriber::set_default(lines.finish());
        goings_on().await;
        drop(quiet);
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.ends_with(" request_id=r1 trace_id=0123456789abcdef0123456789abcdef"), "{text}");
        assert!(first.contains("before") && first.contains("order=7"), "{text}");
        assert_eq!(text.matches("request_id=").count(), 7, "{text}");
    }
}
