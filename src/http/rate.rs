//! How often one buyer may try, and one address ask: a bucket for each, in this process; where nodes share a Redis, what a buyer tries
//! at all of them counts as well.
//!
//! The limit protects the crowd from one of its members; what protects the owners from the crowd is their queues.

use std::cell::Cell;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use governor::clock::{Clock as _, QuantaClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use hashbrown::DefaultHashBuilder;

use super::client::Neighbourhood;
use super::problem::{Code, Problem};
use crate::actors::mirror::Tries;
use crate::domain::id::UserId;

/// So many that two threads seldom want the same one.
const SHARDS: usize = 1024;
/// Of so many questions of a thread one is counted: a number that all threads count up with each would go back and forth
/// between them …
const COUNTED_OF: u64 = 1 << 10;
/// … and after so many of those the buckets of those who have gone are dropped.
const SWEEP_EVERY: u64 = 1 << 8;

thread_local! {
    /// Questions that this thread has asked.
    static ASKED: Cell<u64> = const { Cell::new(1) };
}

/// The hasher is keyed, and quicker than the default one for sixteen bytes.
type Buckets<K> = DashMapStateStore<K, DefaultHashBuilder>;

/// A limiter of what one of them may do. Cheap to clone.
struct Limiter<K: Hash + Eq + Clone>(Arc<Inner<K>>);

impl<K: Hash + Eq + Clone> Clone for Limiter<K> {
    fn clone(&self) -> Limiter<K> {
        Limiter(self.0.clone())
    }
}

struct Inner<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, Buckets<K>, QuantaClock>,
    clock: QuantaClock,
    burst: NonZeroU32,
    /// How long an empty bucket takes to be full.
    window: Duration,
    counted: AtomicU64,
    /// What the client hears of it.
    name: &'static str,
    about: &'static str,
}

/// Changes of carts and wish lists that one person may make in a second …
const CHANGES_PER_SECOND: u32 = 50;
/// … and at once. Each is a sync, and orders wait for the same disk.
const CHANGES_AT_ONCE: u32 = 400;

/// The order doors' limiter. Cheap to clone.
#[derive(Clone)]
pub struct OrderRate {
    here: Limiter<UserId>,
    everywhere: Option<Tries>,
}

impl OrderRate {
    /// So many attempts a second, and so many at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> OrderRate {
        let here = Limiter::new("orders", "This buyer tries too often.", per_second, burst);
        OrderRate { here, everywhere: None }
    }

    /// The same, for all nodes together.
    pub fn shared(self, everywhere: Option<Tries>) -> OrderRate {
        OrderRate { everywhere, ..self }
    }

    /// Takes one attempt of `buyer`, or says when there will be one.
    pub fn take(&self, buyer: UserId) -> Result<(), Problem> {
        self.here.take(buyer)?;
        match &self.everywhere {
            Some(tries) => tries.take(buyer).map_err(|wait| self.here.too_many(wait)),
            None => Ok(()),
        }
    }
}

/// The limiter of the cart's and the wishes' doors. Cheap to clone.
#[derive(Clone)]
pub struct CartRate(Limiter<UserId>);

impl CartRate {
    /// Takes one change of `user`, or says when there will be one.
    pub fn take(&self, user: UserId) -> Result<(), Problem> {
        self.0.take(user)
    }
}

impl Default for CartRate {
    fn default() -> CartRate {
        let about = "This cart changes too often.";
        let [per_second, at_once] = [CHANGES_PER_SECOND, CHANGES_AT_ONCE]
            .map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        CartRate(Limiter::new("carts", about, per_second, at_once))
    }
}

/// What one address may ask in a second, whoever it is in whose name. Cheap to clone.
///
/// It counts at all doors; those where an account, a letter or an order is at stake have narrower limits besides.
#[derive(Clone)]
pub struct AddressRate {
    looks: Limiter<Neighbourhood>,
    changes: Limiter<Neighbourhood>,
}

impl AddressRate {
    /// So many looks a second, and so many requests that change something; twice that at once.
    pub fn new(looks: NonZeroU32, changes: NonZeroU32) -> AddressRate {
        const ABOUT: &str = "Too many requests come from this address.";
        let limiter = |name, rate: NonZeroU32| Limiter::new(name, ABOUT, rate, rate.saturating_mul(TWO));
        AddressRate { looks: limiter("looks", looks), changes: limiter("changes", changes) }
    }

    /// Takes one request from there, or says when there will be one.
    pub fn take(&self, from: Neighbourhood, method: &Method) -> Result<(), Problem> {
        match *method {
            _ if from.is_exempt => Ok(()),
            Method::GET | Method::HEAD => self.looks.take(from),
            _ => self.changes.take(from),
        }
    }
}

const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// So many a second, and so many at once.
    fn new(name: &'static str, about: &'static str, per_second: NonZeroU32, burst: NonZeroU32) -> Limiter<K> {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let clock = QuantaClock::default();
        let buckets = Buckets::<K>::with_hasher_and_shard_amount(DefaultHashBuilder::default(), SHARDS);
        Limiter(Arc::new(Inner {
            limiter: RateLimiter::new(quota, buckets, clock.clone()),
            clock,
            burst,
            window: Duration::from_millis(u64::from(burst.get()) * 1000 / u64::from(per_second.get())),
            counted: AtomicU64::new(1),
            name,
            about,
        }))
    }

    fn take(&self, who: K) -> Result<(), Problem> {
        let asked = ASKED.get();
        ASKED.set(asked.wrapping_add(1));
        if asked.is_multiple_of(COUNTED_OF)
            && self.0.counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY)
        {
            self.0.limiter.retain_recent();
        }
        self.0
            .limiter
            .check_key(&who)
            .map_err(|not_until| self.too_many(not_until.wait_time_from(self.0.clock.now())))
    }

    #[cold]
    fn too_many(&self, wait: Duration) -> Problem {
        let policy = Policy { name: self.0.name, most: self.0.burst.get(), window: self.0.window };
        too_many(policy, wait.as_millis() as u64, self.0.about)
    }
}

/// So many in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub name: &'static str,
    pub most: u32,
    pub window: Duration,
}

/// Fields after draft-ietf-httpapi-ratelimit-headers: quota and window in seconds, what remains, seconds until more.
pub(super) fn too_many(policy: Policy, wait_ms: u64, about: &'static str) -> Problem {
    let Policy { name, most, window } = policy;
    let told = format!(r#""{name}";q={most};w={}"#, window.as_secs().max(1));
    limited((name, most), told, wait_ms, about)
}

/// The same of what may be open at once, however long.
pub(super) fn too_many_at_once(name: &str, most: u32, wait_ms: u64, about: &'static str) -> Problem {
    limited((name, most), format!(r#""{name}";q={most};qu="concurrent-requests""#), wait_ms, about)
}

fn limited((name, most): (&str, u32), told: String, wait_ms: u64, about: &'static str) -> Problem {
    let state = format!(r#""{name}";r=0;t={}"#, wait_ms.div_ceil(1000).max(1));
    let mut problem = Problem::new(Code::RateLimited, about).number("limit", most).retry_after(wait_ms);
    for (name, value) in [("ratelimit-policy", told), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            problem = problem.header(HeaderName::from_static(name), value);
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    #[test]
    fn one_buyer_does_not_take_from_another() {
        let rate = OrderRate::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let [a, b] = [1, 2].map(|chance| UserId::new(Millis(0), chance));
        let tries: Vec<bool> = (0..5).map(|_| rate.take(a).is_ok()).collect();
        assert_eq!(tries, [true, true, true, false, false]);
        assert!(rate.take(b).is_ok());
        assert_eq!(rate.take(a).unwrap_err().code(), Code::RateLimited);
        let carts = CartRate::default();
        let tries = (0..1_000).filter(|_| carts.take(a).is_ok()).count() as u32;
        assert!((CHANGES_AT_ONCE..1_000).contains(&tries), "{tries}");
        assert!(carts.take(b).is_ok());
    }

    #[test]
    fn an_address_has_a_limit_for_looks_and_one_for_changes_and_we_have_none() {
        let rate = AddressRate::new(NonZeroU32::new(10).unwrap(), NonZeroU32::MIN);
        let there = Neighbourhood::of([203, 0, 113, 9].into());
        let took = |from, method| (0..1_000).filter(|_| rate.take(from, method).is_ok()).count();
        assert!((20..1_000).contains(&took(there, &Method::GET)));
        assert!((2..20).contains(&took(there, &Method::POST)));
        assert_eq!(rate.take(there, &Method::DELETE).unwrap_err().code(), Code::RateLimited);
        let household = |last: u16| Neighbourhood::of([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into());
        assert!(took(household(1), &Method::HEAD) >= 20 && took(household(2), &Method::GET) < 20);
        assert!((2..20).contains(&took(Neighbourhood::of([203, 0, 113, 8].into()), &Method::PUT)));
        assert_eq!(took(Neighbourhood::of([127, 0, 0, 1].into()), &Method::POST), 1_000);
    }
}
