//! How an owner comes to be stored: while it serves by somebody else, at rest by itself.
//!
//! Always true: while it serves nothing of its ledger is written down on its thread, and no more than one snapshot of it is asked for at a
//! time; what is unsaved counts from the last one that stands; and a ledger that is known to be wrong is not stored. Best effort: the
//! journal holds everything.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use actix::prelude::*;
use tracing::{debug, warn};

use super::{Phase, StockOwner};
use crate::actors::stock::snapshots::NotStored;
use crate::domain::stock::{Millis, Sequence};

/// At rest a snapshot is stored after so many events.
const SNAPSHOT_EVENTS_AT_REST: u64 = 1_000;
/// An owner that is never seen without something under way waits for so many times what another waits for: whoever makes a snapshot
/// wants a core and the disk, as the crowd does.
const EVENTS_IN_A_RUSH: u64 = 10;
/// How long it is until the next one of an owner that serves: each is as long as its ledger, and the disk is everybody's.
const SAVED_EVERY_MS: i64 = 60_000;
/// After each one that comes to nothing it is twice as long as before, and so often twice at most.
const DOUBLED_MAX: u32 = 6;

/// After how many events one that serves is stored, where one that is quiet is after `events`.
fn patience(events: u64, is_quiet: bool) -> u64 {
    if is_quiet { events } else { events.saturating_mul(EVENTS_IN_A_RUSH) }
}

/// How an owner that serves stands with being stored.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// Somebody makes a snapshot.
    under_way: bool,
    /// None is asked for before.
    not_before: Millis,
    /// How many in a row have come to nothing.
    failed: u32,
    /// One was stored of what the journal has, and nobody has counted since what stands here.
    uncounted: bool,
    /// What stands here is not what the journal leads to.
    is_wrong: bool,
}

impl Saving {
    fn is_due(&self, now: Millis) -> bool {
        !self.under_way && now >= self.not_before
    }

    /// The ledger was read again: what is known of the one before is of no use.
    pub(super) fn begins_anew(&mut self) {
        (self.uncounted, self.is_wrong) = (false, false);
    }

    /// What was asked for has come to its end.
    fn ended(&mut self, is_stored: bool, now: Millis) {
        self.under_way = false;
        self.uncounted |= is_stored;
        self.failed = if is_stored { 0 } else { (self.failed + 1).min(DOUBLED_MAX) };
        self.not_before = now.plus(SAVED_EVERY_MS << self.failed);
    }
}

impl StockOwner {
    /// Asks for a snapshot if enough has happened since the last one, and goes on. Where another one is being made it comes again.
    pub(super) fn has_itself_saved(&mut self, now: Millis, ctx: &mut Context<Self>) {
        let Phase::Serving(protocol) = &self.phase else { return };
        let house = &self.house;
        let patience = patience(house.snapshots.events(), protocol.is_quiet());
        if protocol.unsaved() < patience || !self.saving.is_due(now) {
            return;
        }
        // The disk has enough to do, or takes nothing.
        if house.lagging.load(Ordering::Relaxed) || !house.home.is_writable() {
            return;
        }
        let (home, product, stood) = (house.home.clone(), self.shared.product, protocol.written());
        let Some(told) = house.snapshots.begin(home, product, stood) else { return };
        self.saving.under_way = true;
        ctx.spawn(told.into_actor(self).map(move |told, owner, _| {
            owner.was_saved(stood.sequence, told.unwrap_or(Err(NotStored::Lost)));
        }));
    }

    fn was_saved(&mut self, at: Sequence, told: Result<(), NotStored>) {
        self.saving.ended(told.is_ok(), self.house.clock.now());
        match told {
            Ok(()) => {
                if let Phase::Serving(protocol) = &mut self.phase {
                    protocol.stored(at);
                }
            }
            Err(error) if error.is_wrong() => {
                // Where it is the journal that is damaged this ledger is all there is.
                self.saving.is_wrong |= !matches!(error, NotStored::NotRead(_));
                self.counted.is_found_wrong();
            }
            Err(NotStored::Lost) => {
                warn!(product = %self.shared.product, "whoever made a snapshot has ended; it is tried again later");
            }
            Err(_) => {}
        }
    }

    /// Stores the ledger as it stands, if that is worth it.
    pub(super) fn stored_at_rest(&mut self) -> impl Future<Output = ()> + 'static {
        let saved = match &self.phase {
            _ if self.saving.is_wrong => None,
            Phase::Serving(protocol) if protocol.unsaved() >= SNAPSHOT_EVENTS_AT_REST => self.snapshot(),
            Phase::Serving(protocol) if self.saving.uncounted => {
                self.counted.adds_up(self.shared.product, protocol.ledger());
                None
            }
            _ => None,
        };
        let product = self.shared.product;
        let saving =
            saved.map(|(sequence, body)| (sequence, self.house.home.save_snapshot(product, sequence, body)));
        async move {
            let Some((sequence, saving)) = saving else { return };
            match saving.await {
                Ok(()) => debug!(%product, sequence = sequence.0, "snapshot stored at rest"),
                Err(error) => warn!(%product, %error, "snapshot not stored"),
            }
        }
    }

    /// The ledger as it stands, to be read back one day. One that does not add up would be refused then, and is not stored.
    fn snapshot(&mut self) -> Option<(Sequence, Vec<u8>)> {
        let Phase::Serving(protocol) = &mut self.phase else { return None };
        let taken = protocol.snapshot()?;
        self.counted.adds_up(self.shared.product, protocol.ledger()).then_some(taken)
    }
}
