//! The keys that orders were made with, as every door has to know them: learned at a start, from the tables and from the journal, and put
//! by when they are old.
//!
//! Always true once the shop is open: a key that the doors do not know made no order. While the old ones are still read, they say of
//! any other that it perhaps did, and ask the tables.

use std::pin::pin;
use std::time::Duration;

use actix_web::rt;
use futures_util::TryStreamExt;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::actors::flusher::FlushHandle;
use crate::actors::stock::UsedKeys;
use crate::actors::turns::Loop;
use crate::clock::Clock;
use crate::domain::id::OrderId;
use crate::domain::stock::{Event, Fingerprint, Millis};
use crate::persistence::flush::Run;
use crate::persistence::journal::{Journal, JournalReader};
use crate::persistence::order::OrderReader;
use crate::persistence::{StoreError, Tables};

/// Events that are read at once.
const EVENTS_AT_ONCE: u64 = 5_000;

/// Learns the keys of orders that the tables do not show yet from the journal. No owner is relied on: it may be elsewhere and have been
/// asked by another lead, its ledger may not be readable, or have forgotten the order.
pub struct Keys {
    keys: UsedKeys,
    journal: JournalReader,
    /// Up to here they are known.
    pos: i64,
}

impl Keys {
    /// Those of everything behind a place, and later of everything behind that.
    pub fn behind(pos: i64, journal: &Journal, keys: &UsedKeys) -> Keys {
        Keys { keys: keys.clone(), journal: journal.reader().clone(), pos }
    }

    /// Reads to the journal's end.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let found = self.journal.after(self.pos, EVENTS_AT_ONCE).await?;
            let Some(last) = found.last().map(|(last, _)| *last) else { return Ok(()) };
            for (_, entry) in found {
                let product = entry.product;
                // What cannot be read stops its owner, and says so there.
                let Ok(run) = Run::of(entry) else { continue };
                for event in run.events {
                    let (order, buyer, key) = match event {
                        Event::Held(held) => (held.order, held.buyer, held.key),
                        Event::Placed(placed) => (placed.order, placed.buyer, placed.key),
                        _ => continue,
                    };
                    if let Some(key) = key {
                        self.keys.keep(Fingerprint::of(buyer, key.key), product, order.made_at());
                    }
                }
            }
            // Not before: whoever is given up half-way reads it again.
            self.pos = last;
        }
    }
}

/// Between two looks for keys that have become old.
const AGE_EVERY: Duration = Duration::from_secs(3_600);
/// How long such a look waits for the tables, and when it comes again if they lag.
const TABLES_SHOW_WITHIN: Duration = Duration::from_secs(5);
/// How long a start waits for old keys: some million are read by then. Where there are more, each new key costs a look into the tables until
/// they are.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// When what could not be read is tried again.
const AGAIN_IN: Duration = Duration::from_secs(5);

/// Learns the keys of the last days, which are known with their product: from the tables, and what they do not show from the journal. The
/// doors may open then.
pub async fn recall(learner: &mut Keys, tables: &Tables, now: Millis) -> Result<Past, StoreError> {
    learner.keys.set_past_is_whole(false);
    let past = Past { orders: tables.orders(), until: OrderId::first_at(UsedKeys::near_from(now)) };
    past.read_what_follows(&learner.keys).await?;
    learner.catch_up().await?;
    Ok(past)
}

/// The orders before those, whose keys are yet to be read.
pub struct Past {
    orders: OrderReader,
    until: OrderId,
}

impl Past {
    async fn read_what_follows(&self, keys: &UsedKeys) -> Result<(), StoreError> {
        let mut near = pin!(self.orders.keys(self.until, OrderId::from_bytes([0xff; 16])));
        while let Some(used) = near.try_next().await? {
            keys.keep(used.print(), used.home, used.made_at);
        }
        Ok(())
    }

    /// Reads them, and puts by from then on what becomes old.
    pub fn keep(self, keys: UsedKeys, flush: FlushHandle, clock: Clock) -> Keeping {
        let (all, read) = watch::channel(false);
        let _task = Loop::start(async move {
            self.read(&keys, &clock).await;
            all.send_replace(true);
            loop {
                // What a key was used for is forgotten here when the tables can say it.
                let shown = flush.caught_up(TABLES_SHOW_WITHIN).await;
                if shown {
                    keys.age(clock.now());
                }
                rt::time::sleep(if shown { AGE_EVERY } else { AGAIN_IN }).await;
            }
        });
        Keeping { _task, read }
    }

    async fn read(&self, keys: &UsedKeys, clock: &Clock) {
        let began = clock.nanos();
        let found = loop {
            match self.read_once(keys).await {
                Ok(found) => break found,
                Err(error) => warn!(%error, "keys of old orders cannot be read; it is tried again"),
            }
            rt::time::sleep(AGAIN_IN).await;
        };
        keys.set_past_is_whole(true);
        let took_ms = clock.nanos().saturating_sub(began) / 1_000_000;
        info!(keys = found, took_ms, "the keys of old orders are known");
    }

    /// How many there were.
    async fn read_once(&self, keys: &UsedKeys) -> Result<u64, StoreError> {
        let (mut past, mut count) = (pin!(self.orders.keys(OrderId::from_bytes([0; 16]), self.until)), 0);
        while let Some(used) = past.try_next().await? {
            keys.keep_past(used.print());
            count += 1;
        }
        Ok(count)
    }
}

/// Ends with its app.
pub struct Keeping {
    _task: Loop,
    read: watch::Receiver<bool>,
}

impl Keeping {
    /// Waits until all old keys are known, but not for long: where there are very many the shop opens without them.
    pub async fn has_read(&self) {
        let _ = rt::time::timeout(READ_WITHIN, self.read.clone().wait_for(|read| *read)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::stock::Used;
    use crate::persistence::flush::Flusher;
    use crate::persistence::testing::{Home, Owner, T0, append_all, buyer};

    const DAY_MS: i64 = 24 * 3_600_000;

    /// An order a day, for ten days.
    #[rstest::rstest]
    #[actix::test]
    async fn a_start_learns_the_last_days_first_and_the_others_behind_its_back(
        #[values(Home::Sqlite, Home::MySql)] home: Home,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (journal, tables) = (home.journal(&dir).await, home.open(&dir).await);
        let mut shop = Owner::stocked(1, 100);
        let day = |number: i64| T0.plus(number * DAY_MS);
        let ids: Vec<OrderId> =
            (0..10).map(|number| OrderId::for_home(day(number), number as u128, shop.product)).collect();
        for (number, id) in ids.iter().enumerate() {
            shop.hold(*id, buyer(number as u128), 1, T0);
        }
        append_all(&journal, vec![shop.seal(T0)]);
        Flusher::open(&journal, &tables).await.unwrap().run_slice().await.unwrap();
        let flushed = tables.flushed_pos().await.unwrap();
        // And another one today, that the tables do not show.
        let unflushed = OrderId::for_home(day(9), 1 << 20, shop.product);
        shop.hold(unflushed, buyer(10), 1, T0);
        append_all(&journal, vec![shop.seal(T0)]);

        let keys = UsedKeys::default();
        let print = |number: usize| Fingerprint::of(buyer(number as u128), *ids[number].as_bytes());
        let never = Fingerprint::of(buyer(99), [9; 16]);
        let mut learner = Keys::behind(flushed, &journal, &keys);
        let past = recall(&mut learner, &tables, day(9)).await.unwrap();
        let unflushed = Fingerprint::of(buyer(10), *unflushed.as_bytes());
        assert_eq!(keys.used(unflushed), Used::For(shop.product));
        let near = (0..10).filter(|number| keys.used(print(*number)) == Used::For(shop.product)).count();
        assert_eq!((near, keys.len()), (8, (9, 0)), "seven days and today");
        assert_eq!((keys.used(print(0)), keys.used(never)), (Used::Perhaps, Used::Perhaps));
        past.read(&keys, &Clock::start()).await;
        assert_eq!(keys.len(), (9, 2));
        assert_eq!(keys.used(never), Used::Never);
        assert!((0..2).all(|number| keys.used(print(number)) == Used::Perhaps));

        // And those that only the journal knows, however old: the tables do not show them.
        let young = UsedKeys::default();
        Keys::behind(0, &journal, &young).catch_up().await.unwrap();
        assert_eq!(young.len(), (11, 0));
        journal.close().await;
        tables.close().await.unwrap();
    }
}
