//! A product's past: every event in order, with the counters after it.
//!
//! Counters are not kept anywhere; the ledger's own rule makes them again from the journal. The ledger of the last
//! page is kept for a little while, so that reading on does not begin from the beginning.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actors::stock::NotDone;
use crate::domain::id::ProductId;
use crate::domain::stock::{Counts, Entry, Event, Ledger, Millis, Sequence, decode_events};
use crate::persistence::journal::JournalReader;

/// Entries read at once; each has at most 64 KiB.
const ENTRIES_AT_ONCE: u32 = 256;
/// Products whose place is remembered.
const PLACES_MAX: usize = 4;
/// How long a place is remembered: a ledger of a million orders is 200 MB.
const PLACE_KEPT: Duration = Duration::from_secs(30);
/// From here on it is worth looking for a snapshot to begin from.
const FAR: u64 = 10_000;

/// One event, and what it led to.
#[derive(Debug, Clone)]
pub struct Moved {
    pub sequence: Sequence,
    /// When its group was closed.
    pub at: Millis,
    pub event: Event,
    pub counts: Counts,
}

/// Reads the past of products. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    reader: JournalReader,
    places: Mutex<Vec<Place>>,
}

struct Place {
    product: ProductId,
    ledger: Ledger,
}

/// What has been read so far.
struct Reading {
    ledger: Ledger,
    from: Sequence,
    most: usize,
    moved: Vec<Moved>,
}

/// The journal cannot be understood. The product's owner will say so louder.
struct Broken;

impl History {
    pub fn new(reader: JournalReader) -> History {
        History(Arc::new(Inner { reader, places: Mutex::default() }))
    }

    /// At most `most` events from `from` on, oldest first.
    pub async fn page(&self, product: ProductId, from: Sequence, most: usize) -> Result<Vec<Moved>, NotDone> {
        let ledger = match self.taken_place(product, from) {
            Some(ledger) => ledger,
            None => self.start(product, from).await?,
        };
        let mut reading = Reading { ledger, from, most, moved: Vec::with_capacity(most) };
        loop {
            let next = reading.ledger.sequence().next();
            let entries =
                self.0.reader.read(product, next, ENTRIES_AT_ONCE).await.map_err(|_| NotDone::Unavailable)?;
            let before = reading.ledger.sequence();
            // A thousand events take a millisecond: not on a thread that serves others.
            let read = tokio::task::spawn_blocking(move || reading.go_through(&entries)).await;
            reading = read.map_err(|_| NotDone::Internal)?.map_err(|Broken| NotDone::Internal)?;
            if reading.moved.len() >= most || reading.ledger.sequence() == before {
                break;
            }
        }
        self.keep_place(product, reading.ledger);
        Ok(reading.moved)
    }

    /// The newest snapshot if it lies before `from` and spares much; else the beginning.
    async fn start(&self, product: ProductId, from: Sequence) -> Result<Ledger, NotDone> {
        if from.0 < FAR {
            return Ok(Ledger::default());
        }
        let stored = self.0.reader.load(product).await.map_err(|_| NotDone::Unavailable)?;
        let Some(body) = stored.snapshot else { return Ok(Ledger::default()) };
        let restoring = tokio::task::spawn_blocking(move || Ledger::restore(&body).ok());
        let restored = restoring.await.map_err(|_| NotDone::Internal)?;
        Ok(restored.filter(|ledger| ledger.sequence() < from).unwrap_or_default())
    }

    /// The remembered ledger that is nearest before `from`.
    fn taken_place(&self, product: ProductId, from: Sequence) -> Option<Ledger> {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |place: &Place| place.product == product && place.ledger.sequence() < from;
        let nearest = places.iter().enumerate().filter(|(_, place)| fits(place));
        let (at, _) = nearest.max_by_key(|(_, place)| place.ledger.sequence())?;
        Some(places.swap_remove(at).ledger)
    }

    fn keep_place(&self, product: ProductId, ledger: Ledger) {
        let sequence = ledger.sequence();
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_MAX {
            places.remove(0);
        }
        places.push(Place { product, ledger });
        drop(places);
        let inner = Arc::downgrade(&self.0);
        actix::spawn(async move {
            tokio::time::sleep(PLACE_KEPT).await;
            if let Some(inner) = inner.upgrade() {
                let mut places = inner.places.lock().unwrap_or_else(PoisonError::into_inner);
                places.retain(|place| place.product != product || place.ledger.sequence() != sequence);
            }
        });
    }
}

impl Reading {
    /// Applies what is new in `entries` until the page is full.
    fn go_through(mut self, entries: &[Entry]) -> Result<Reading, Broken> {
        for entry in entries {
            let events = decode_events(&entry.events).map_err(|_| Broken)?;
            for (place, event) in (0..).zip(events) {
                let sequence = Sequence(entry.first.0 + place);
                if self.moved.len() >= self.most {
                    return Ok(self);
                }
                if sequence <= self.ledger.sequence() {
                    continue;
                }
                if sequence != self.ledger.sequence().next() {
                    return Err(Broken);
                }
                self.ledger.apply(&event);
                if sequence >= self.from {
                    let counts = self.ledger.counts();
                    self.moved.push(Moved { sequence, at: entry.at, event, counts });
                }
            }
        }
        Ok(self)
    }
}
