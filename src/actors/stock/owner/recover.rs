//! How an owner comes to its ledger: read back from the journal, at the start and whenever what it has in memory is of no use any more.
//!
//! Always true: nothing is read before the journal has spoken about the group in flight; and whoever waits for an answer, or for the
//! owner's leaving, hears of it also where there will be no ledger.

use std::sync::Arc;

use actix::prelude::*;
use tracing::{error, warn};

use super::{LOAD_AGAIN, Leaving, PANIC_WINDOW_MS, PANICS_MAX, Phase, StockOwner};
use crate::actors::stock::answer::NotDone;
use crate::actors::stock::home::{Home, NotRead, Stored};
use crate::actors::stock::inbox::Token;
use crate::actors::stock::protocol::{Outcome, Protocol};
use crate::domain::id::ProductId;
use crate::domain::stock::{Epoch, Fingerprint};

impl StockOwner {
    /// What is in memory is of no use any more.
    pub(super) fn reload(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Loading;
        // Who has bought what nobody was told of is not among those who have.
        self.shared.proves_nothing();
        let now = self.house.clock.now();
        self.panics.retain(|at| at.0 > now.0 - PANIC_WINDOW_MS);
        if self.in_flight_since_ns.is_some() {
            self.reload_after_word = true;
        } else if self.panics.len() > PANICS_MAX {
            error!(product = %self.shared.product, "{PANICS_MAX} panics in {PANIC_WINDOW_MS} ms: this product is halted");
            self.halt(ctx);
        } else {
            self.load(ctx);
        }
    }

    /// The journal has spoken about the group that was in flight.
    pub(super) fn reload_after(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        self.reload_after_word = false;
        match outcome {
            Outcome::Written | Outcome::NotWritten => self.reload(ctx),
            // Also where the product is to stand still it is to be known first what it has.
            Outcome::Unknown => self.load(ctx),
        }
    }

    /// Reads the ledger: latest snapshot, then every entry after it.
    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Loading;
        let product = self.shared.product;
        let epoch = self.house.home.epoch(product);
        let recovered = recovered(self.house.home.clone(), product, epoch);
        ctx.spawn(recovered.into_actor(self).map(|recovered, owner, ctx| match recovered {
            Ok(protocol) => owner.serve(protocol, ctx),
            Err(error @ NotRead::Damaged(_)) => {
                error!(product = %owner.shared.product, %error, "the ledger cannot be read: this product is halted; run `stockade audit`");
                owner.halt(ctx);
            }
            Err(error @ NotRead::NoAnswer(_)) => {
                warn!(product = %owner.shared.product, %error, "the journal does not answer; the owner tries again");
                owner.refuse_all(NotDone::Unavailable);
                // Perhaps somebody has waited for its leaving for too long.
                owner.turn(ctx);
                ctx.run_later(LOAD_AGAIN, |owner, ctx| owner.load(ctx));
            }
        }));
    }

    fn serve(&mut self, protocol: Protocol<Token>, ctx: &mut Context<Self>) {
        let now = self.house.clock.now();
        for (order, buyer, key) in protocol.ledger().keys() {
            self.house.keys.keep(Fingerprint::of(buyer, key), self.shared.product, order.made_at());
        }
        let view = protocol.view(now);
        self.phase = Phase::Serving(Box::new(protocol));
        self.saving.begins_anew();
        self.kept_since = None;
        if let Some(view) = view {
            self.publish(view);
        }
        self.turn(ctx);
    }

    /// From here on this product stands still. Nothing of it is in doubt: whoever waits for the owner's leaving need wait no longer.
    fn halt(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Halted;
        self.turn(ctx);
    }

    /// At its end: one that nobody wanted to end, and whose last group may be written yet, has not let go of its product.
    pub(super) fn stays_in_doubt(&mut self) {
        if self.in_flight_since_ns.is_none() && !matches!(self.phase, Phase::Loading) {
            return;
        }
        let left = match std::mem::replace(&mut self.leaving, Leaving::No) {
            Leaving::Asked(left) | Leaving::Left(left) => Some(left),
            Leaving::No => self.shared.inbox.take_leave(),
        };
        if let Some(left) = left {
            let _ = left.send(false);
        }
    }
}

/// What the journal holds of a product, replayed. A snapshot that does not fit is no reason to stop selling: the journal has everything.
async fn recovered(
    home: Arc<dyn Home>,
    product: ProductId,
    epoch: Epoch,
) -> Result<Protocol<Token>, NotRead> {
    let stored = home.load(product).await?;
    let has_snapshot = stored.snapshot.is_some();
    match replayed(product, epoch, stored).await {
        Err(error @ NotRead::Damaged(_)) if has_snapshot => {
            warn!(%product, %error, "the snapshot does not fit the journal: the whole history is read instead");
            let entries = home.history(product).await?;
            replayed(product, epoch, Stored { snapshot: None, entries }).await
        }
        replayed => replayed,
    }
}

/// Replaying a million events takes a second of computing: not on the thread that serves others.
async fn replayed(product: ProductId, epoch: Epoch, stored: Stored) -> Result<Protocol<Token>, NotRead> {
    let recover = move || {
        #[cfg(test)]
        crate::actors::stock::testing::choke(&stored.entries);
        Protocol::recover(product, epoch, stored.snapshot.as_deref(), &stored.entries)
    };
    match tokio::task::spawn_blocking(recover).await {
        Ok(recovered) => recovered.map_err(|error| NotRead::Damaged(error.to_string())),
        // What it panics at stands in the journal, and will the next time.
        Err(error) if error.is_panic() => Err(NotRead::Damaged(error.to_string())),
        Err(error) => Err(NotRead::NoAnswer(error.to_string())),
    }
}
