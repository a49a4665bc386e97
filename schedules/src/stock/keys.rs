//! One key, several requests at once: it makes one order, whatever products they name.

use shuttle::thread;
use stockade::domain::id::ProductId;
use stockade::domain::stock::{Fingerprint, Millis};

use super::owner::buyer;
use super::used_keys::{Used, UsedKeys};
use crate::sync::{Arc, Mutex};

const DAY_MS: i64 = 24 * 3_600_000;

/// Which products have an order with the key.
type Orders = Arc<Mutex<Vec<ProductId>>>;

fn product(number: u128) -> ProductId {
    ProductId::new(Millis(1), number)
}

/// What a door does with a request of its own for `home`, as `Orders::key_of` does it. `claims_first`: the key's former product is asked while
/// the key is claimed there.
fn request(keys: &UsedKeys, orders: &Orders, home: ProductId, now: Millis, claims_first: bool) {
    let print = Fingerprint::of(buyer(1), [7; 16]);
    // The ledger, and the tables.
    let is_made = |_: ProductId| !orders.lock().unwrap().is_empty();
    let claim = match keys.claim(print, home, now) {
        Ok(claim) if claim.before() != Used::Never && is_made(home) => return,
        Ok(claim) => claim,
        Err(other) => {
            let looks = || keys.is_kept(print) && !is_made(other);
            // Made, or somebody is on his way with it there.
            if !claims_first && !looks() {
                return;
            }
            let Ok(there) = keys.claim(print, other, now) else { return };
            if claims_first && !looks() {
                return;
            }
            there.set_free();
            let Ok(claim) = keys.claim(print, home, now) else { return };
            claim
        }
    };
    let mut claim = claim;
    claim.in_doubt();
    // Its ledger knows its own keys exactly, and nobody else's.
    let mut orders = orders.lock().unwrap();
    if !orders.contains(&home) {
        orders.push(home);
    }
    drop(orders);
    claim.settle(true);
}

/// What happens to the key while they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    Nothing,
    /// It becomes old.
    Ages,
    /// Its order that was never born is read once more, with its product's ledger or from the journal.
    IsLearned,
}

/// A key whose order was never born is known for one product; two come with it for another, and one for the same.
pub fn one_key_makes_one_order(meanwhile: Meanwhile, claims_first: bool) {
    let keys = UsedKeys::default();
    let orders = Orders::default();
    let print = Fingerprint::of(buyer(1), [7; 16]);
    keys.keep(print, product(1), Millis(1));
    let now = Millis(9 * DAY_MS);
    let mut threads: Vec<_> = [2, 1, 2]
        .into_iter()
        .map(|home| {
            let (keys, orders) = (keys.clone(), orders.clone());
            thread::spawn(move || request(&keys, &orders, product(home), now, claims_first))
        })
        .collect();
    let also = keys.clone();
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Ages => threads.push(thread::spawn(move || also.age(now))),
        Meanwhile::IsLearned => {
            threads.push(thread::spawn(move || also.keep(print, product(1), Millis(1))));
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let orders = orders.lock().unwrap();
    assert!(orders.len() <= 1, "one key has made {} orders", orders.len());
    // What was learned last is asked first; the tables know the order all the same.
    if meanwhile != Meanwhile::IsLearned
        && let [home] = orders[..]
    {
        assert_eq!(keys.used(print), Used::For(home), "whoever comes again is sent there");
    }
}
