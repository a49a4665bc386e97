//! Which idempotency keys were used, and for which product: what every door looks at before anything is asked.
//!
//! It owns 64-bit fingerprints only. A fingerprint that is not here was never used; one that is here sends the
//! request to the ledger of its product, which knows keys exactly. Keys of orders made over a week ago are in a filter, at a
//! tenth of the room: what it finds was perhaps used, and the tables know for which order. Claims keep two requests with one
//! key that name different products apart while neither has been decided.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::past_keys::PastKeys;
use crate::domain::id::ProductId;
use crate::domain::stock::{Fingerprint, Millis};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many that two threads seldom want the same, and that each stays small: one that grows holds up a few keys for a few
/// microseconds.
const SHARDS: usize = 1024;

/// The day an order was made, counted from 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Day(u16);

impl Day {
    fn of(at: Millis) -> Day {
        Day(u16::try_from(at.0 / DAY_MS).unwrap_or(if at.0 < 0 { 0 } else { u16::MAX }))
    }
}

const DAY_MS: i64 = 24 * 3_600_000;
/// Keys of orders made in so many days, and today, are known with their product.
const DAYS_NEAR: u16 = 7;

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    Never,
    /// An order of this product was made with it, or is perhaps being made right now.
    For(ProductId),
    /// Perhaps one that was made over a week ago: the tables know.
    Perhaps,
    /// Perhaps one that is being made elsewhere, of which nobody has heard here: it will be known in a moment.
    Unheard,
}

/// Requests on their way with one key. There are few at a time: whoever ends one finds it without looking into the great table
/// once more, where each look is a walk to main memory.
#[derive(Debug)]
struct UnderWay {
    print: Fingerprint,
    claims: u32,
    /// An order was made with it, or may have been: before them, or by one of them.
    kept: bool,
    /// The latter.
    made: bool,
    /// What it was used for as well, as was learned while they were on their way for another product.
    elsewhere: Option<Use>,
}

/// What a key was used for, or is being used for.
#[derive(Debug, Clone, Copy)]
struct Use {
    product: ProductId,
    made: Day,
}

/// Always true: what is under way is known.
#[derive(Debug, Default)]
struct Keys {
    known: HashMap<Fingerprint, Use>,
    under_way: Vec<UnderWay>,
    past: PastKeys,
}

impl Keys {
    fn under_way(&mut self, print: Fingerprint) -> Option<&mut UnderWay> {
        self.under_way.iter_mut().find(|way| way.print == print)
    }

    fn is_kept(&self, print: Fingerprint) -> bool {
        let pending = |way: &UnderWay| way.print == print && !way.kept;
        self.known.contains_key(&print) && !self.under_way.iter().any(pending)
    }

    /// While somebody is on his way with it for another product it stays that one's: what was learned may be of an order that was never born,
    /// and whoever comes for it finds nothing in the tables of one that is just being made.
    fn keep(&mut self, print: Fingerprint, product: ProductId, made: Day) {
        let used = Use { product, made };
        let is_for_another = self.known.get(&print).is_some_and(|known| known.product != product);
        match self.under_way(print) {
            Some(way) if is_for_another => {
                way.elsewhere = Some(used);
                return;
            }
            Some(way) => (way.kept, way.made) = (true, true),
            None => {}
        }
        self.known.insert(print, used);
    }

    /// What is said of a key that is not known.
    fn unknown(&self, print: Fingerprint, whole: &Whole) -> Used {
        if !whole.owners_are_heard.load(Ordering::Acquire) {
            Used::Unheard
        } else if !whole.past.load(Ordering::Acquire) || self.past.contains(print) {
            Used::Perhaps
        } else {
            Used::Never
        }
    }

    fn claim(
        &mut self,
        print: Fingerprint,
        product: ProductId,
        made: Day,
        whole: &Whole,
    ) -> Result<Used, ProductId> {
        let kept = match self.known.entry(print) {
            Entry::Occupied(known) if known.get().product != product => return Err(known.get().product),
            Entry::Occupied(mut known) => {
                // Of a key that was used for nothing after all an order may be made now, and the tables do not show that.
                let known = known.get_mut();
                known.made = known.made.max(made);
                true
            }
            Entry::Vacant(place) => {
                place.insert(Use { product, made });
                false
            }
        };
        let kept = match self.under_way(print) {
            Some(way) => {
                way.claims += 1;
                way.kept
            }
            None => {
                self.under_way.push(UnderWay { print, claims: 1, kept, made: false, elsewhere: None });
                kept
            }
        };
        Ok(if kept { Used::For(product) } else { self.unknown(print, whole) })
    }

    fn unclaim(&mut self, print: Fingerprint, kept: bool) {
        let Some(at) = self.under_way.iter().position(|way| way.print == print) else { return };
        let Some(way) = self.under_way.get_mut(at) else { return };
        way.claims = way.claims.saturating_sub(1);
        way.kept |= kept;
        way.made |= kept;
        if way.claims == 0 {
            let over = self.under_way.swap_remove(at);
            if !over.kept {
                match over.elsewhere {
                    Some(used) => self.known.insert(print, used),
                    None => self.known.remove(&print),
                };
            }
        }
    }

    /// The one claim that is left ends, and the key with it: unless there is another, or one has made an order meanwhile.
    fn set_free(&mut self, print: Fingerprint) {
        if let Some(way) = self.under_way(print)
            && way.claims == 1
            && !way.made
        {
            way.kept = false;
        }
        self.unclaim(print, false);
    }

    /// Puts what is older than that into the filter, except what is under way.
    fn age(&mut self, near_from: Day) {
        let Keys { known, under_way, past } = self;
        let is_under_way = |print| under_way.iter().any(|way| way.print == print);
        for (print, _) in known.extract_if(|print, used| used.made < near_from && !is_under_way(*print)) {
            past.insert(print);
        }
        known.shrink_to(2 * known.len());
    }
}

/// A few keys. Each is counted apart from the others: one counter for all of them would go back and forth between the
/// threads with every order.
#[derive(Debug, Clone, Default)]
struct Shard(Arc<Mutex<Keys>>);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a key that is not known was never used.
#[derive(Debug)]
struct Whole {
    /// All old keys have been read.
    past: AtomicBool,
    /// What every owner elsewhere had written for somebody else is known here.
    owners_are_heard: AtomicBool,
}

/// Every key that an order of this shop was made with.
#[derive(Debug, Clone)]
pub struct UsedKeys {
    shards: Arc<[Shard]>,
    whole: Arc<Whole>,
}

impl Default for UsedKeys {
    fn default() -> Self {
        UsedKeys {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            whole: Arc::new(Whole { past: AtomicBool::new(true), owners_are_heard: AtomicBool::new(true) }),
        }
    }
}

impl UsedKeys {
    fn shard(&self, print: Fingerprint) -> &Shard {
        &self.shards[(print.bits() >> 48) as usize % SHARDS]
    }

    /// What the key was used for, or is being used for right now.
    pub fn used(&self, print: Fingerprint) -> Used {
        let keys = self.shard(print).lock();
        match keys.known.get(&print) {
            Some(known) => Used::For(known.product),
            None => keys.unknown(print, &self.whole),
        }
    }

    /// Whether an order was made with this key, as far as 64 bits can tell. An old order's is not asked for here.
    pub fn is_kept(&self, print: Fingerprint) -> bool {
        self.shard(print).lock().is_kept(print)
    }

    /// Notes a key that an order was made with then.
    pub fn keep(&self, print: Fingerprint, product: ProductId, made_at: Millis) {
        self.shard(print).lock().keep(print, product, Day::of(made_at));
    }

    /// Claims the key for an order of `product` that is made then. Refused with the other product if it is used, or being used, for
    /// that one.
    pub fn claim(&self, print: Fingerprint, product: ProductId, made_at: Millis) -> Result<Claim, ProductId> {
        let shard = self.shard(print);
        let before = shard.lock().claim(print, product, Day::of(made_at), &self.whole)?;
        Ok(Claim { shard: shard.clone(), print, used: false, is_stale: false, before })
    }

    /// Notes that there is an order with this key in the tables, made before [`UsedKeys::near_from`].
    pub fn keep_past(&self, print: Fingerprint) {
        self.shard(print).lock().past.insert(print);
    }

    /// Leaves the keys of orders made before [`UsedKeys::near_from`] to the filter. The tables have to show those orders by now. Whoever
    /// orders meanwhile waits for a thousandth of it.
    pub fn age(&self, now: Millis) {
        let near_from = Day::of(UsedKeys::near_from(now));
        for shard in self.shards.iter() {
            shard.lock().age(near_from);
        }
    }

    /// Where those days begin of whose orders the keys are known with their product.
    pub fn near_from(now: Millis) -> Millis {
        Millis(i64::from(Day::of(now).0.saturating_sub(DAYS_NEAR)) * DAY_MS)
    }

    /// Whether all old keys are in the filter. Until then any key may have been used.
    pub fn set_past_is_whole(&self, whole: bool) {
        self.whole.past.store(whole, Ordering::Release);
    }

    /// Whether everything that owners elsewhere have written for somebody else is known. Until then any key may have been used.
    pub fn set_owners_are_heard(&self, heard: bool) {
        self.whole.owners_are_heard.store(heard, Ordering::Release);
    }

    /// Whether it is.
    pub fn owners_are_heard(&self) -> bool {
        self.whole.owners_are_heard.load(Ordering::Acquire)
    }

    /// How many keys are known with their product, and how many are in the filter.
    pub fn len(&self) -> (usize, usize) {
        let count = |(near, past): (usize, usize), shard: &Shard| {
            let keys = shard.lock();
            let pending = keys.under_way.iter().filter(|way| !way.kept).count();
            (near + keys.known.len() - pending, past + keys.past.len())
        };
        self.shards.iter().fold((0, 0), count)
    }
}

/// A key on its way: given back when dropped, unless an order was made with it, or may have been.
#[derive(Debug)]
pub struct Claim {
    shard: Shard,
    print: Fingerprint,
    used: bool,
    is_stale: bool,
    before: Used,
}

impl Claim {
    /// What was known of the key when it was claimed, but for others who were on their way with it.
    pub fn before(&self) -> Used {
        self.before
    }

    /// The question is out. Until its answer is certain the key counts as used: asking its ledger once more does no
    /// harm, giving it to another product could make two orders.
    pub fn in_doubt(&mut self) {
        self.used = true;
    }

    /// The answer is certain: an order was made with the key, or certainly not.
    pub fn settle(&mut self, used: bool) {
        self.used = used;
    }

    /// Neither the ledger of the product nor the tables know the key: its order was never born. It is free, unless somebody else is on his way
    /// with it, or has made an order while they were asked.
    pub fn set_free(mut self) {
        self.is_stale = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut keys = self.shard.lock();
        match self.is_stale {
            true => keys.set_free(self.print),
            false => keys.unclaim(self.print, self.used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    #[test]
    fn a_claim_binds_the_key_to_one_product_until_it_is_dropped() {
        let keys = UsedKeys::default();
        let (a, b) = (ProductId::new(Millis(1), 1), ProductId::new(Millis(1), 2));
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        let claim = |product| keys.claim(print, product, Millis(1));
        let first = claim(a).unwrap();
        let again = claim(a).unwrap();
        assert_eq!(claim(b).unwrap_err(), a);
        drop(first);
        assert_eq!(claim(b).unwrap_err(), a, "one of two claims still stands");
        drop(again);
        let mut won = claim(b).unwrap();
        assert_eq!(won.before(), Used::Never);
        won.in_doubt();
        drop(won);
        assert_eq!(keys.used(print), Used::For(b));
        assert_eq!(claim(a).unwrap_err(), b);
        // Who comes again and is turned away takes nothing from the order that stands.
        let again = claim(b).unwrap();
        assert_eq!(again.before(), Used::For(b));
        drop(again);
        assert!(keys.is_kept(print));
        claim(b).unwrap().set_free();
        assert_eq!((keys.used(print), keys.len()), (Used::Never, (0, 0)));
    }

    #[test]
    fn a_key_counts_as_used_from_the_order_on_that_it_has_made() {
        let keys = UsedKeys::default();
        let product = ProductId::new(Millis(1), 1);
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        let pending = keys.claim(print, product, Millis(1)).unwrap();
        assert_eq!((keys.used(print), keys.is_kept(print), keys.len()), (Used::For(product), false, (0, 0)));
        keys.claim(print, product, Millis(1)).unwrap().set_free();
        assert_eq!(keys.used(print), Used::For(product), "somebody is on his way with it");
        keys.keep(print, product, Millis(1));
        drop(pending);
        assert!(keys.is_kept(print));
    }

    #[test]
    fn of_an_old_key_it_is_known_that_it_was_perhaps_used() {
        let keys = UsedKeys::default();
        let product = ProductId::new(Millis(1), 1);
        let print = |number| Fingerprint::of(UserId::new(Millis(1), number), [7; 16]);
        let day = |day: i64| Millis(day * DAY_MS + 1);
        for number in 0..100 {
            keys.keep(print(number), product, day(number as i64 % 10));
        }
        let mut under_way = keys.claim(print(1_000), product, day(0)).unwrap();
        keys.age(day(9));
        assert_eq!(UsedKeys::near_from(day(9)), Millis(2 * DAY_MS));
        assert_eq!(keys.len(), (80, 20));
        for number in 0..100 {
            let used = if number % 10 < 2 { Used::Perhaps } else { Used::For(product) };
            assert_eq!(keys.used(print(number)), used);
        }
        // It is known as long as somebody is on his way with it, and then as any other.
        assert_eq!(keys.used(print(1_000)), Used::For(product));
        under_way.settle(true);
        drop(under_way);
        keys.age(day(9));
        assert_eq!(keys.used(print(1_000)), Used::Perhaps);

        // Somebody comes with an old key. What he makes with it if it was never used is known as any other.
        let claim = keys.claim(print(0), product, day(9)).unwrap();
        assert_eq!(claim.before(), Used::Perhaps);
        drop(claim);
        assert_eq!(keys.used(print(0)), Used::Perhaps);
        let mut claim = keys.claim(print(0), product, day(9)).unwrap();
        claim.settle(true);
        drop(claim);
        assert_eq!(keys.used(print(0)), Used::For(product));
    }

    #[test]
    fn whoever_finds_no_order_sets_the_key_free_unless_there_is_one_by_then() {
        let product = ProductId::new(Millis(1), 1);
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        for made_meanwhile in [false, true] {
            let keys = UsedKeys::default();
            let claim = || keys.claim(print, product, Millis(1)).unwrap();
            // Of an order that was never born.
            keys.keep(print, product, Millis(1));
            let looks = claim();
            let mut orders = claim();
            orders.settle(made_meanwhile);
            drop(orders);
            looks.set_free();
            assert_eq!(keys.is_kept(print), made_meanwhile);
        }
    }

    #[test]
    fn what_is_learned_of_another_product_waits_for_those_who_are_on_their_way() {
        let (a, b) = (ProductId::new(Millis(1), 1), ProductId::new(Millis(1), 2));
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        for (is_stale, made) in [(false, false), (false, true), (true, false), (true, true)] {
            let keys = UsedKeys::default();
            if is_stale {
                keys.keep(print, b, Millis(1));
            }
            let mut on_its_way = keys.claim(print, b, Millis(1)).unwrap();
            keys.keep(print, a, Millis(1));
            assert_eq!((keys.used(print), keys.is_kept(print)), (Used::For(b), is_stale));
            assert_eq!(keys.claim(print, a, Millis(1)).unwrap_err(), b, "nobody goes for the other one");
            on_its_way.settle(made);
            match is_stale && !made {
                true => on_its_way.set_free(),
                false => drop(on_its_way),
            }
            // Nor is it forgotten: it may be the order that was made.
            assert_eq!(keys.used(print), Used::For(if made { b } else { a }));
            assert!(keys.is_kept(print));
        }
    }

    #[test]
    fn until_everything_has_been_read_any_key_may_have_been_used() {
        let keys = UsedKeys::default();
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        let product = ProductId::new(Millis(1), 1);
        keys.set_past_is_whole(false);
        assert_eq!(keys.used(print), Used::Perhaps);
        assert_eq!(keys.claim(print, product, Millis(1)).unwrap().before(), Used::Perhaps);
        keys.set_owners_are_heard(false);
        assert!(!keys.owners_are_heard());
        assert_eq!(keys.used(print), Used::Unheard);
        assert_eq!(keys.claim(print, product, Millis(1)).unwrap().before(), Used::Unheard);
        keys.set_owners_are_heard(true);
        keys.set_past_is_whole(true);
        assert_eq!(keys.used(print), Used::Never);
        assert_eq!(keys.claim(print, product, Millis(1)).unwrap().before(), Used::Never);
    }
}
