//! Notices: has buyers written to about their orders, on a thread that yields to everybody.
//!
//! The flush and whoever moves what was sold leave notices; from each follows a letter, if its buyer has an account, and if what it
//! says still makes sense when it is looked at. It owns the pace at which that happens, and the reminders that a hold is about to
//! lapse. Always true: a notice goes after its letter stands in the outbox, never before; a letter is called after what it tells, so
//! a notice that is read again is the letter that there was; and nobody's order waits for any of this.

mod batch;
mod dispatch;
mod letter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::rt;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::warn;

use crate::actors::background::Ended;
use crate::actors::flusher::FlushHandle;
use crate::actors::outbox::Outbox;
use crate::clock::Clock;
use crate::persistence::notice::{Bell, NoticeRows};
use crate::persistence::{StoreError, Tables};
use crate::telemetry::Metrics;
use crate::vault::Vault;
use dispatch::Dispatch;

/// How long an end waits for the letters it is at.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Whom the dispatcher asks.
pub struct NoticeHouse {
    pub tables: Tables,
    pub vault: Vault,
    pub outbox: Outbox,
    /// Tells whether a crowd is buying.
    pub flush: FlushHandle,
    pub clock: Clock,
    /// How long before a hold lapses its buyer is reminded; zero: never.
    pub remind_before: Duration,
}

#[derive(Default)]
struct Signals {
    stop: AtomicBool,
    stopped: Notify,
}

impl Signals {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Ends the thread when the last handle has gone.
struct Alive {
    signals: Arc<Signals>,
    bell: Bell,
}

impl Alive {
    fn end(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.signals.stopped.notify_one();
        self.bell.ring();
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks the dispatcher for its end. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    alive: Arc<Alive>,
    ended: Ended,
}

impl Notices {
    /// Starts writing letters. Must be called where tasks can be spawned.
    pub fn start(house: NoticeHouse, metrics: &Metrics) -> std::io::Result<Notices> {
        let signals = Arc::<Signals>::default();
        let rows = house.tables.notices();
        let alive = Arc::new(Alive { signals: signals.clone(), bell: rows.bell().clone() });
        let hand = Hand::of(rows);
        let ended = dispatch::begin(Dispatch::new(house, hand, metrics.clone(), signals))?;
        Ok(Notices { alive, ended })
    }

    /// Ends after the letters it is at; what is not told yet stays for the next start.
    pub async fn stop(&self) {
        self.alive.end();
        let mut ended = self.ended.clone();
        // A loop that is gone already has nothing more to say.
        if tokio::time::timeout(STOP_WITHIN, ended.wait_for(|ended| *ended)).await.is_err() {
            warn!("letters about orders are still being written; what is not told is told at the next start");
        }
    }
}

/// What is told.
enum Gone {
    SlicesUpTo(i64),
    Sold(Vec<i64>),
}

type Asked = (Gone, oneshot::Sender<Result<(), StoreError>>);

/// Takes notices away for the dispatcher, on a thread like any other: the dispatcher's own yields to everybody, and must not hold
/// what the flush or a purchase waits for.
struct Hand(mpsc::Sender<Asked>);

impl Hand {
    fn of(rows: NoticeRows) -> Hand {
        let (ask, mut asked) = mpsc::channel::<Asked>(1);
        rt::spawn(async move {
            while let Some((gone, done)) = asked.recv().await {
                let _ = done.send(match gone {
                    Gone::SlicesUpTo(pos) => rows.forget_slices(pos).await,
                    Gone::Sold(rows_told) => rows.forget_sold(&rows_told).await,
                });
            }
        });
        Hand(ask)
    }

    async fn forget(&self, gone: Gone) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.0.send((gone, done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
