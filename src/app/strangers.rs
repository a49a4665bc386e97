//! Whoever has connected at the nodes' door, and has not proved yet that he is a node.
//!
//! Always true: there are no more than [`STRANGERS_MAX`] of them, and whoever comes has a place at once. When all are taken one goes
//! for him: of those whose address holds the most places the one who has been there longest. So a crowd from one address keeps
//! nobody out but itself.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

const STRANGERS_MAX: usize = 256;
/// What strangers can bring about is told no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    last: u64,
    /// In the order in which they came. Who loses his end of the channel goes.
    taken: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// One of them, who leaves his place when he is dropped.
pub struct Stranger {
    strangers: Strangers,
    number: u64,
    goes: oneshot::Receiver<()>,
}

impl Strangers {
    pub fn admit(&self, from: IpAddr) -> Stranger {
        let (stays, goes) = oneshot::channel();
        let mut places = self.places();
        if places.taken.len() >= STRANGERS_MAX
            && let Some(number) = places.who_goes()
        {
            places.taken.remove(&number);
        }
        places.last += 1;
        let number = places.last;
        places.taken.insert(number, (from.to_canonical(), stays));
        Stranger { strangers: self.clone(), number, goes }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn who_goes(&self) -> Option<u64> {
        let mut held = HashMap::<IpAddr, usize>::new();
        self.taken.values().for_each(|(from, _)| *held.entry(*from).or_default() += 1);
        let most = held.values().max()?;
        self.taken.iter().find(|(_, (from, _))| held.get(from) == Some(most)).map(|(number, _)| *number)
    }
}

impl Stranger {
    /// How his greeting ends; `None`: he had to go before.
    pub async fn greets<T>(mut self, greeting: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            greeted = greeting => Some(greeted),
            _ = &mut self.goes => None,
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.places().taken.remove(&self.number);
    }
}

/// Says of something whether it is to be told again.
#[derive(Default)]
pub struct Seldom {
    /// When it was told last; 0: never.
    told_ns: AtomicU64,
}

impl Seldom {
    pub fn is_due(&self, now_ns: u64) -> bool {
        let told = self.told_ns.load(Ordering::Relaxed);
        let due = told == 0 || Duration::from_nanos(now_ns.saturating_sub(told)) >= TELL_EVERY;
        due && self.told_ns.compare_exchange(told, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn a_crowd_from_one_address_keeps_nobody_out_but_itself() {
        let strangers = Strangers::default();
        let early = strangers.admit(from(1));
        let mut crowd: Vec<_> = (0..1_500).map(|_| strangers.admit(from(2))).collect();
        let late = strangers.admit(from(3));
        assert_eq!(strangers.places().taken.len(), STRANGERS_MAX);
        assert_eq!(early.greets(ready("early")).await, Some("early"));
        assert_eq!(late.greets(ready("late")).await, Some("late"));
        assert_eq!(crowd.remove(0).greets(pending::<()>()).await, None, "the first of them has gone");
        // Two have greeted meanwhile: their places are free.
        assert_eq!(strangers.places().taken.len(), STRANGERS_MAX - 2);
        assert!(
            crowd.pop().unwrap().goes.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Empty)
        );
        drop(crowd);
        assert!(strangers.places().taken.is_empty());
    }

    #[tokio::test]
    async fn of_many_addresses_the_one_who_was_first_goes() {
        let strangers = Strangers::default();
        let first = strangers.admit(from(0));
        let others: Vec<_> = (1..=255).map(|last| strangers.admit(from(last))).collect();
        let again = strangers.admit([198, 51, 100, 1].into());
        assert_eq!(first.greets(pending::<()>()).await, None);
        assert_eq!(again.greets(ready(())).await, Some(()));
        drop(others);
    }

    #[test]
    fn what_strangers_bring_about_is_told_seldom() {
        let (seldom, second) = (Seldom::default(), 1_000_000_000);
        let told = [1, 2, 10, 11, 12, 20, 21].map(|at| seldom.is_due(at * second));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
