//! The stock of one product as it changes: server-sent events, at most ten a second.
//!
//! A client that comes back says what it saw last and hears only what is new. Streams are counted and their number
//! has a limit; a shutdown ends them all, and clients come back to whoever serves then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::NO_PRODUCT;
use super::show::StockShown;
use crate::actors::catalogue::Catalogue;
use crate::actors::stock::{Directory, View, Watch};
use crate::domain::id::ProductId;
use crate::domain::stock::Sequence;
use crate::http::client::Neighbourhood;
use crate::http::places::{Place, Places, TooMany};
use crate::http::problem::{Code, Problem};
use crate::http::query::Id;
use crate::http::rate::too_many_at_once;
use crate::telemetry::Metrics;

/// The most streams one process serves …
pub const STREAMS_MAX: usize = 10_000;
/// … and one address, which many people may share; whoever comes through a proxy of ours has no cap of connections.
const STREAMS_OF_ADDRESS_MAX: u32 = 100;
/// Between two events of one stream: ten a second at most.
const COALESCE: Duration = Duration::from_millis(100);
/// A silent connection says that it lives this often, so that no proxy cuts it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client that lost its stream waits before it comes back.
const RETRY_MS: u64 = 2_000;
const FULL_RETRY_MS: u64 = 10_000;

/// Counts the open streams and ends them. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    open: Arc<AtomicUsize>,
    places: Places,
    ending: Arc<watch::Sender<bool>>,
    /// How often those that were open were ended.
    ended: Arc<watch::Sender<u64>>,
}

impl Default for Streams {
    fn default() -> Streams {
        let places = Places::new(STREAMS_OF_ADDRESS_MAX);
        let (ending, ended) = (Arc::new(watch::Sender::new(false)), Arc::new(watch::Sender::new(0)));
        Streams { open: Arc::default(), places, ending, ended }
    }
}

impl Streams {
    /// Ends every stream, those that are opened later included.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Ends those that are open: whoever comes back hears what there is then, here or elsewhere.
    pub fn end_present(&self) {
        self.ended.send_modify(|times| *times += 1);
    }

    /// The end of one that is opened now.
    fn end_of_one(&self) -> End {
        End { ending: self.ending.subscribe(), ended: self.ended.subscribe() }
    }

    fn open(&self, from: Neighbourhood) -> Result<Open, Problem> {
        let place = self.places.take(from).map_err(|TooMany| {
            let about = "Too many streams are open from this address.";
            too_many_at_once("streams", STREAMS_OF_ADDRESS_MAX, FULL_RETRY_MS, about)
        })?;
        let open = Open { streams: self.clone(), _place: place };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        Metrics::global().stream_subscribers.increment(1.0);
        if before >= STREAMS_MAX {
            return Err(Problem::new(Code::Overloaded, "Too many streams are open.")
                .number("limit", STREAMS_MAX as u64)
                .retry_after(FULL_RETRY_MS));
        }
        Ok(open)
    }
}

/// One open stream, counted.
struct Open {
    streams: Streams,
    _place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
        Metrics::global().stream_subscribers.decrement(1.0);
    }
}

/// When a stream is to end.
struct End {
    ending: watch::Receiver<bool>,
    ended: watch::Receiver<u64>,
}

impl End {
    async fn comes(&mut self) {
        tokio::select! {
            _ = self.ending.wait_for(|ending| *ending) => {}
            _ = self.ended.changed() => {}
        }
    }
}

/// `GET /v1/products/{id}/stock/stream`.
pub async fn stream(
    Id(product): Id<ProductId>,
    from: Neighbourhood,
    request: HttpRequest,
    streams: web::Data<Streams>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
) -> Result<HttpResponse, Problem> {
    catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let open = streams.open(from)?;
    let watch = directory.watch(product).await?;
    // Asked for after the watch began, so that nothing is missed in between.
    let view = directory.view(product).await?;
    let listener = Listener {
        product,
        directory: directory.get_ref().clone(),
        view,
        watch,
        end: streams.end_of_one(),
        seen: last_seen(&request),
        _open: open,
    };
    let events = stream::unfold(Turn::First(listener), Turn::next);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")))
        .streaming(Box::pin(events)))
}

/// What the client saw last. Anything but a sequence is as good as nothing.
pub fn last_seen(request: &HttpRequest) -> Option<Sequence> {
    request.headers().get("last-event-id")?.to_str().ok()?.parse().ok().map(Sequence)
}

struct Listener {
    product: ProductId,
    directory: Directory,
    /// The newest that is known.
    view: Arc<View>,
    watch: Watch,
    end: End,
    seen: Option<Sequence>,
    _open: Open,
}

enum Turn {
    First(Listener),
    Later(Listener),
}

type Piece = Result<Bytes, actix_web::Error>;

impl Turn {
    async fn next(self) -> Option<(Piece, Turn)> {
        match self {
            Turn::First(mut listener) => {
                let mut text = format!("retry: {RETRY_MS}\n\n");
                if let Some(event) = listener.news() {
                    text.push_str(&event);
                }
                Some((Ok(Bytes::from(text)), Turn::Later(listener)))
            }
            Turn::Later(mut listener) => {
                let text = listener.wait().await?;
                Some((Ok(Bytes::from(text)), Turn::Later(listener)))
            }
        }
    }
}

impl Listener {
    /// The present state as an event, if the client does not know it.
    fn news(&mut self) -> Option<String> {
        // What is published while nobody listens does not come by here: it may be older than what was asked for at first.
        let newest = self.watch.newest();
        self.know(newest);
        let view = &self.view;
        if self.seen == Some(view.sequence) {
            return None;
        }
        self.seen = Some(view.sequence);
        let data = serde_json::to_string(&StockShown::from(&**view)).unwrap_or_default();
        Some(format!("id: {}\ndata: {data}\n\n", view.sequence.0))
    }

    fn know(&mut self, view: Option<Arc<View>>) {
        self.view = view.filter(|view| view.sequence > self.view.sequence).unwrap_or(self.view.clone());
    }

    /// The owner has gone: whoever has come after it is watched. `None` if there is nobody, and the client had better come again.
    async fn watch_again(&mut self) -> Option<()> {
        self.watch = self.directory.watch(self.product).await.ok()?;
        let view = self.directory.view(self.product).await.ok()?;
        self.know(Some(view));
        Some(())
    }

    /// The next event, or a sign of life; `None` ends the stream.
    async fn wait(&mut self) -> Option<String> {
        tokio::select! {
            () = next_news(&mut self.watch) => {}
            () = self.end.comes() => return None,
        }
        if self.watch.is_over() {
            self.watch_again().await?;
        }
        match self.news() {
            Some(event) => Some(event),
            None => Some(":\n\n".to_owned()),
        }
    }
}

/// Waits for a change, and for what follows on its heels; or as long as a connection may be silent.
async fn next_news(watch: &mut Watch) {
    sleep(COALESCE).await;
    let _ = timeout(KEEP_ALIVE, watch.changed()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_that_are_open_can_be_ended_alone() {
        let soon = Duration::from_millis(20);
        let streams = Streams::default();
        let mut before = streams.end_of_one();
        streams.end_present();
        timeout(soon, before.comes()).await.unwrap();
        let mut later = streams.end_of_one();
        assert!(timeout(soon, later.comes()).await.is_err(), "whoever came later is told on");
        streams.end();
        timeout(soon, later.comes()).await.unwrap();
        timeout(soon, streams.end_of_one().comes()).await.unwrap();
    }
}
