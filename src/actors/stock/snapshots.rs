//! Snapshots of ledgers that are being sold from: made beside their owners, of what the journal has.
//!
//! It owns the right to make one, which is a single one's in a process, and the thread that does. Always true: what is stored is the
//! journal replayed to where the owner stood when it asked, held against what the owner had there; and nothing is waited for, held or
//! taken that an order needs.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::home::{Home, NotRead};
use crate::actors::background::Background;
use crate::domain::id::ProductId;
use crate::domain::stock::{Ledger, RECORD_BYTES, Standing};
use crate::telemetry::room_bytes;

/// One is wanted after so many events.
const SNAPSHOT_EVENTS: u64 = 100_000;
/// What the thread is called. It is as unimportant as whatever else can wait.
pub(super) const THREAD: &str = "stockade-snapshot";
const NICE: i32 = 15;
/// What an order takes in one more ledger, and in what is written of it …
const BYTES_AN_ORDER: u64 = 400;
/// … and what is left for others besides.
const BYTES_SPARED: u64 = 64 * 1024 * 1024;
/// What was written may be on its way to where it is read: so often it is looked for, and after such pauses.
const LOOKS_MAX: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a snapshot is not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("there is no memory for one more ledger of {orders} orders")]
    NoRoom { orders: usize },
    #[error("what is written has not come to where it is read")]
    Behind,
    #[error(transparent)]
    NotRead(#[from] NotRead),
    #[error("its owner has {owner:?}, the journal leads to {journal:?}")]
    Differs { owner: Box<Standing>, journal: Box<Standing> },
    #[error("the records do not add up to {0:?}")]
    DoesNotAddUp(Box<Standing>),
    #[error("nobody wants it any more")]
    Unwanted,
    #[error("the thread that makes it has ended")]
    Lost,
}

impl NotStored {
    /// Whether it will not be otherwise the next time, and somebody must look.
    pub fn is_wrong(&self) -> bool {
        matches!(
            self,
            NotStored::NotRead(NotRead::Damaged(_)) | NotStored::Differs { .. } | NotStored::DoesNotAddUp(_)
        )
    }
}

/// Whether it stands, once that is known.
pub type Told = oneshot::Receiver<Result<(), NotStored>>;

/// Where owners that serve have snapshots made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// [`SNAPSHOT_EVENTS`], but in tests.
    events: u64,
    /// One is being made.
    under_way: Arc<AtomicBool>,
    /// [`room_bytes`], but in tests.
    room: fn() -> Option<u64>,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        Snapshots::after(SNAPSHOT_EVENTS)
    }
}

impl Snapshots {
    /// Those of a process: a shop that is opened again in it has no others.
    pub fn of_process() -> Snapshots {
        static ALL: OnceLock<Snapshots> = OnceLock::new();
        ALL.get_or_init(Snapshots::default).clone()
    }

    /// One is wanted after so many events.
    pub fn after(events: u64) -> Snapshots {
        Snapshots { events, under_way: Arc::default(), room: room_bytes }
    }

    /// How many events a ledger is to have that no snapshot holds.
    pub fn events(&self) -> u64 {
        self.events
    }

    #[cfg(test)]
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    /// Begins to make one of where an owner stands, all of which is written. `None`: another one is being made, so come again later. If
    /// nobody waits for the answer any more, nothing need be stored.
    pub fn begin(&self, home: Arc<dyn Home>, product: ProductId, stood: Standing) -> Option<Told> {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return None;
        }
        let turn = Turn(self.under_way.clone());
        let (reply, told) = oneshot::channel();
        let making = Making { home, product, stood, room: self.room, reply };
        let background = Background { name: THREAD, nice: NICE, lost: "no snapshot is made" };
        if let Err(error) = background.begin(move || making.make(turn)) {
            warn!(%product, %error, "no thread makes a snapshot");
        }
        Some(told)
    }
}

/// The right to make one. However it ends, the next one has it then.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// One that is being made.
struct Making {
    home: Arc<dyn Home>,
    product: ProductId,
    /// Where its owner stood.
    stood: Standing,
    room: fn() -> Option<u64>,
    reply: oneshot::Sender<Result<(), NotStored>>,
}

impl Making {
    async fn make(self, turn: Turn) {
        let made = self.made().await;
        let (product, sequence) = (self.product, self.stood.sequence.0);
        match &made {
            Ok(()) => info!(%product, sequence, "snapshot stored"),
            Err(NotStored::Unwanted) => {}
            Err(error) if error.is_wrong() => {
                error!(%product, sequence, %error, "the journal does not lead to the ledger that is sold from; run `stockade audit`");
            }
            Err(error) => warn!(%product, sequence, %error, "snapshot not stored; it is tried again later"),
        }
        let _ = self.reply.send(made);
        // Whoever finds it free knows that the one before was told.
        drop(turn);
    }

    async fn made(&self) -> Result<(), NotStored> {
        self.has_room(self.stood.remembered, 0)?;
        let ledger = self.replayed().await?;
        check(&ledger, &self.stood)?;
        let body = ledger.snapshot();
        drop(ledger);
        self.is_wanted()?;
        self.home.save_snapshot(self.product, self.stood.sequence, body).await?;
        Ok(())
    }

    /// Nobody is to pay for a snapshot with his memory: it can wait. Of what so many orders take these bytes are taken already.
    fn has_room(&self, orders: usize, taken: u64) -> Result<(), NotStored> {
        let yet = BYTES_AN_ORDER.saturating_mul(orders as u64).saturating_sub(taken);
        match (self.room)() {
            Some(bytes) if bytes < yet.saturating_add(BYTES_SPARED) => Err(NotStored::NoRoom { orders }),
            _ => Ok(()),
        }
    }

    fn is_wanted(&self) -> Result<(), NotStored> {
        if self.reply.is_closed() { Err(NotStored::Unwanted) } else { Ok(()) }
    }

    /// The ledger where its owner stood. A snapshot that does not fit is no reason to have no other: the journal has everything.
    async fn replayed(&self) -> Result<Ledger, NotStored> {
        let Some(body) = self.home.snapshot_aside(self.product).await? else {
            return self.led_on(Ledger::default()).await;
        };
        // It may be of a time of which most has been forgotten since.
        let orders = self.stood.remembered.max(body.len().div_ceil(RECORD_BYTES));
        self.has_room(orders, body.len() as u64)?;
        let restored = Ledger::restore(&body).map_err(damaged);
        drop(body);
        let led = match restored {
            // Somebody owns it by now who has come further.
            Ok(ledger) if ledger.sequence() > self.stood.sequence => Err(NotStored::Unwanted),
            Ok(ledger) => self.led_on(ledger).await,
            Err(error) => Err(error.into()),
        };
        match led {
            Err(NotStored::NotRead(error @ NotRead::Damaged(_))) => {
                warn!(product = %self.product, %error, "the snapshot does not fit the journal: the whole history is read instead");
                self.led_on(Ledger::default()).await
            }
            led => led,
        }
    }

    /// Leads a ledger on to where the owner stood.
    async fn led_on(&self, mut ledger: Ledger) -> Result<Ledger, NotStored> {
        let mut looks = 0;
        while ledger.sequence() < self.stood.sequence {
            self.is_wanted()?;
            let entries = self.home.entries_aside(self.product, ledger.sequence()).await?;
            // What it was read by goes back before anything long begins.
            tokio::task::yield_now().await;
            if entries.is_empty() {
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(NotStored::Behind);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            #[cfg(test)]
            super::testing::choke(&entries);
            for entry in &entries {
                ledger.replay(entry).map_err(damaged)?;
                if ledger.sequence() >= self.stood.sequence {
                    break;
                }
            }
            // On the way it may be larger than where it ends, and others want memory too: what is spared for them stays.
            let orders = ledger.standing().remembered;
            self.has_room(orders, BYTES_AN_ORDER.saturating_mul(orders as u64))?;
        }
        Ok(ledger)
    }
}

/// What cannot be read back will not be the next time.
fn damaged(error: impl ToString) -> NotRead {
    NotRead::Damaged(error.to_string())
}

/// Whether it is the ledger that its owner had there, and its stock adds up.
fn check(ledger: &Ledger, stood: &Standing) -> Result<(), NotStored> {
    let journal = ledger.standing();
    if journal != *stood {
        return Err(NotStored::Differs { owner: Box::new(*stood), journal: Box::new(journal) });
    }
    if !ledger.adds_up() {
        return Err(NotStored::DoesNotAddUp(Box::new(journal)));
    }
    Ok(())
}
