//! What befalls a shop on several nodes while it sells: each fault falls at the node that leads at that moment, or at one that owns what
//! is sold and does not lead, or at what it rests on, is undone, and the next one waits until all is whole again.
//!
//! Always true: a fault that has begun is undone before the run ends, and one that did not fall, or too late, or that the nodes did
//! not notice, is no proof.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use stockade_servers::Cut;
use tokio::time::{Duration, sleep};

use crate::chance::Dice;
use crate::clock::{Nanos, as_seconds, now_ns, seconds};
use crate::cluster::{Cluster, Surroundings};
use crate::drive::{FIRST_KILL, LAST_KILL, Sale, grouped};
use crate::engine::{History, Live};
use crate::judge::Verdict;
use crate::sampler::CpuMeter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL; the node is started again
    Kill,
    /// SIGTERM; the node is started again
    Stop,
    /// SIGSTOP, and SIGCONT ten seconds later
    Pause,
    /// SIGKILL for the database, which is started again
    Database,
    /// Nothing gets through between the node and the database, for eight seconds
    PartitionDatabase,
    /// Nothing gets through between the node and Redis, for three seconds
    PartitionRedis,
    /// Nothing gets through between the nodes, for six seconds
    PartitionNodes,
    /// SIGKILL for Redis, which is started again two seconds later without its data
    RedisKill,
    /// FLUSHALL
    RedisFlush,
}

impl Fault {
    /// Whether it ends, stops or cuts off a node that may be one among others.
    fn may_befall_an_owner(self) -> bool {
        matches!(self, Self::Kill | Self::Stop | Self::Pause | Self::PartitionDatabase)
    }

    /// What it cuts, if it falls at this node.
    fn cut(self, node: usize) -> Option<Cut> {
        match self {
            Self::PartitionDatabase => Some(Cut::Database(node)),
            Self::PartitionRedis => Some(Cut::Redis(node)),
            Self::PartitionNodes => Some(Cut::Nodes),
            Self::Kill | Self::Stop | Self::Pause | Self::Database | Self::RedisKill | Self::RedisFlush => {
                None
            }
        }
    }
}

/// One fault, and what came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Fallen {
    pub fault: Fault,
    /// The node at which it fell.
    pub node: usize,
    /// It owned what was sold, and did not lead.
    #[serde(default)]
    pub only_owned: bool,
    pub at_s: f64,
    /// When it was undone and all nodes knew of each other again.
    pub whole_at_s: f64,
    /// Orders acknowledged, and requests in flight, at the moment it fell.
    pub acknowledged: u64,
    pub in_flight: u64,
    /// Share of the stock that nobody can have been sold yet.
    pub unsold_share: f64,
    /// The nodes noticed, where one can see that from outside before it is undone.
    #[serde(default)]
    pub is_felt: bool,
    /// How long after it the first order was acknowledged that was asked for after it.
    pub next_order_s: Option<f64>,
    /// The longest time without any acknowledgement between it and the next fault, or the end of the sale.
    pub silence_s: f64,
}

/// Longer than the others wait before they take over.
const PAUSE: Duration = Duration::from_secs(10);
const WITHOUT_DATABASE: Duration = Duration::from_secs(8);
/// Longer than a node waits before it believes that Redis is away.
const WITHOUT_REDIS: Duration = Duration::from_secs(3);
const REDIS_AWAY: Duration = Duration::from_secs(2);
/// Longer than nodes that are connected wait for a word of each other.
const WITHOUT_EACH_OTHER: Duration = Duration::from_secs(6);
/// A fault falls in this first part of its share of the sale, so that there is room to undo it.
const EARLY: f64 = 0.3;
/// With less than this unsold a fault proves little.
const UNSOLD_MIN: f64 = 0.05;

/// A run's faults as they fall.
pub struct Ordeal<'a> {
    pub live: &'a Live,
    pub server: &'a CpuMeter,
    pub store: &'a CpuMeter,
    pub start_ns: Nanos,
    pub fallen: &'a RefCell<Vec<Fallen>>,
    /// A fault is not undone yet: the run waits for it.
    pub is_under_way: &'a Cell<bool>,
}

impl Ordeal<'_> {
    /// Lets each fault fall in its part of the sale. Ends when the last of them is undone.
    pub async fn befall(&self, cluster: &mut Cluster, faults: &[Fault], sale: Sale) -> Result<()> {
        let mut dice = Dice::new(sale.seed);
        let orders = sale.stock / sale.quantity;
        for (number, fault) in faults.iter().enumerate() {
            let place = (number as f64 + EARLY * dice.fraction()) / faults.len() as f64;
            let share = FIRST_KILL + (LAST_KILL - FIRST_KILL) * place;
            while self.live.acknowledged.load(Relaxed) < (orders as f64 * share) as u64 {
                sleep(Duration::from_millis(1)).await;
            }
            let active = cluster.active().await?;
            let owner = cluster.seller().await.filter(|owner| *owner != active);
            let owner = owner.filter(|_| fault.may_befall_an_owner() && dice.one_in(2));
            let node = owner.unwrap_or(active);
            self.is_under_way.set(true);
            if let Some(cut) = fault.cut(node) {
                cluster.cut(cut)?;
            }
            let (acknowledged, in_flight) =
                (self.live.acknowledged.load(Relaxed), self.live.in_flight.load(Relaxed));
            let undecided = in_flight + self.live.uncertain.load(Relaxed);
            let at_s = self.since_start();
            self.server.read_us();
            self.store.read_us();
            let is_felt = self.fall(cluster, *fault, node).await?;
            self.fallen.borrow_mut().push(Fallen {
                fault: *fault,
                node,
                only_owned: owner.is_some(),
                at_s,
                whole_at_s: self.since_start(),
                acknowledged,
                in_flight,
                unsold_share: orders.saturating_sub(acknowledged + undecided) as f64 / orders as f64,
                is_felt,
                next_order_s: None,
                silence_s: 0.0,
            });
            self.is_under_way.set(false);
        }
        Ok(())
    }

    /// The fault, if it is more than a cut that is there already, and its undoing; whether it was noticed.
    async fn fall(&self, cluster: &mut Cluster, fault: Fault, node: usize) -> Result<bool> {
        let mut is_felt = true;
        match fault {
            Fault::Kill => cluster.kill(node)?,
            Fault::Stop => cluster.stop(node).await?,
            Fault::Pause => {
                cluster.pause(node)?;
                sleep(PAUSE).await;
                is_felt = !cluster.counts_on(node).await?;
                cluster.wake(node)?;
            }
            Fault::Database => {
                cluster.kill_database()?;
                cluster.start_database().await?;
            }
            Fault::PartitionDatabase => {
                sleep(WITHOUT_DATABASE).await;
                is_felt = !cluster.counts_on(node).await?;
            }
            Fault::PartitionRedis => {
                sleep(WITHOUT_REDIS).await;
                is_felt = cluster.health(node).await.is_degraded;
            }
            Fault::PartitionNodes => {
                sleep(WITHOUT_EACH_OTHER).await;
                for other in (0..cluster.size()).filter(|other| *other != node) {
                    is_felt &= !cluster.health(other).await.is_ready;
                }
            }
            Fault::RedisKill => {
                cluster.kill_redis()?;
                sleep(REDIS_AWAY).await;
                is_felt = cluster.health(node).await.is_degraded;
                cluster.start_redis_empty().await?;
            }
            Fault::RedisFlush => cluster.flush_redis().await?,
        }
        if let Some(cut) = fault.cut(node) {
            cluster.mend(cut)?;
        }
        if matches!(fault, Fault::Kill | Fault::Stop) {
            cluster.start_again(node).await?;
        }
        self.server.watch(cluster.pids());
        self.store.watch(cluster.database_pid());
        cluster.whole().await?;
        if matches!(fault, Fault::RedisKill | Fault::RedisFlush) {
            cluster.mirrored().await?;
        }
        Ok(is_felt)
    }

    fn since_start(&self) -> f64 {
        as_seconds(now_ns().saturating_sub(self.start_ns))
    }
}

/// Fills in what buyers noticed.
pub fn hear(fallen: &mut [Fallen], history: &History, start_ns: Nanos) {
    let mut answered: Vec<Nanos> = history.acknowledged.iter().map(|order| order.answered_ns).collect();
    answered.sort_unstable();
    let falls: Vec<Nanos> = fallen.iter().map(|fallen| start_ns + seconds(fallen.at_s)).collect();
    for (number, fallen) in fallen.iter_mut().enumerate() {
        let (fell_ns, until_ns) = (falls[number], falls.get(number + 1).copied().unwrap_or(Nanos::MAX));
        let asked_later = history.acknowledged.iter().filter(|order| order.asked_ns >= fell_ns);
        let first = asked_later.map(|order| order.answered_ns).min();
        fallen.next_order_s = first.map(|first| as_seconds(first - fell_ns));
        fallen.silence_s = as_seconds(longest_silence(&answered, fell_ns, until_ns));
    }
}

/// Of the times in order, those between the two.
fn longest_silence(answered: &[Nanos], from: Nanos, until: Nanos) -> Nanos {
    let heard = answered.iter().copied().filter(|at| (from..until).contains(at));
    let (_, longest) = heard.fold((from, 0), |(before, longest), at| (at, Nanos::max(longest, at - before)));
    longest
}

/// What a shop needs around it, so that these can befall it.
pub fn surroundings(faults: &[Fault]) -> Surroundings {
    let cuts = faults.iter().any(|fault| fault.cut(0).is_some());
    Surroundings { redis: !faults.is_empty(), cuts, spares: 0 }
}

/// Every fault fell while there was something to lose, and was noticed, and somebody bought after it.
pub fn verdict(fallen: &[Fallen], wanted: usize) -> Verdict {
    let good = |fallen: &&Fallen| {
        fallen.unsold_share >= UNSOLD_MIN && fallen.is_felt && fallen.next_order_s.is_some()
    };
    let proved = fallen.iter().filter(good).count();
    let detail =
        format!("{proved} of {wanted} fell while at least 5 % was unsold, were noticed, and orders followed");
    if proved == wanted { Verdict::pass("faults", detail) } else { Verdict::fail("faults", detail) }
}

impl fmt::Display for Fallen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.only_owned {
            f.write_str("owner, ")?;
        }
        match self.fault {
            Fault::Kill => write!(f, "node {} killed", self.node),
            Fault::Stop => write!(f, "node {} told to stop", self.node),
            Fault::Pause => write!(f, "node {} paused for {} s", self.node, PAUSE.as_secs()),
            Fault::Database => write!(f, "database killed under node {}", self.node),
            Fault::PartitionDatabase => write!(f, "node {} cut off from the database", self.node),
            Fault::PartitionRedis => write!(f, "node {} cut off from Redis", self.node),
            Fault::PartitionNodes => {
                write!(f, "nodes cut off from each other, with node {} active", self.node)
            }
            Fault::RedisKill => write!(f, "Redis killed under node {}, and emptied", self.node),
            Fault::RedisFlush => write!(f, "Redis emptied under node {}", self.node),
        }?;
        write!(
            f,
            " at {:.2} s with {} acknowledged, {} in flight; ",
            self.at_s,
            grouped(self.acknowledged),
            self.in_flight
        )?;
        match self.next_order_s {
            Some(next_order_s) => write!(f, "next order after {next_order_s:.2} s")?,
            None => write!(f, "no order after it")?,
        }
        write!(f, ", silence {:.2} s, whole after {:.2} s", self.silence_s, self.whole_at_s - self.at_s)?;
        if self.is_felt { Ok(()) } else { f.write_str("; NOT NOTICED") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;

    fn fallen(unsold_share: f64, next_order_s: Option<f64>) -> Fallen {
        Fallen {
            fault: Fault::Kill,
            node: 1,
            only_owned: false,
            at_s: 1.0,
            whole_at_s: 6.0,
            acknowledged: 1_000,
            in_flight: 3,
            unsold_share,
            is_felt: true,
            next_order_s,
            silence_s: 4.2,
        }
    }

    #[test]
    fn a_fault_that_comes_late_or_ends_the_sale_proves_nothing() {
        let good = fallen(0.05, Some(4.2));
        assert_eq!(verdict(&[good, good], 2).ruling, Ruling::Pass);
        assert_eq!(verdict(&[good], 2).ruling, Ruling::Fail);
        assert_eq!(verdict(&[good, fallen(0.04, Some(4.2))], 2).ruling, Ruling::Fail);
        assert_eq!(verdict(&[good, fallen(0.5, None)], 2).ruling, Ruling::Fail);
        assert_eq!(verdict(&[good, Fallen { is_felt: false, ..good }], 2).ruling, Ruling::Fail);
    }

    #[test]
    fn silence_is_counted_from_the_fault_to_the_next_one() {
        let answered = [5, 10, 14, 30, 31, 90];
        assert_eq!(longest_silence(&answered, 11, 40), 16);
        assert_eq!(longest_silence(&answered, 29, 32), 1);
        assert_eq!(longest_silence(&answered, 91, Nanos::MAX), 0);
    }

    #[test]
    fn a_line_says_what_fell_and_what_followed() {
        let line = "node 1 killed at 1.00 s with 1,000 acknowledged, 3 in flight; next order after 4.20 s, \
                    silence 4.20 s, whole after 5.00 s";
        assert_eq!(fallen(0.5, Some(4.2)).to_string(), line);
        let unfelt = Fallen { is_felt: false, ..fallen(0.5, Some(4.2)) };
        assert_eq!(unfelt.to_string(), format!("{line}; NOT NOTICED"));
    }

    #[test]
    fn only_what_is_cut_needs_a_network_that_can_be() {
        assert_eq!(surroundings(&[]), Surroundings::default());
        assert_eq!(
            surroundings(&[Fault::RedisFlush]),
            Surroundings { redis: true, ..Surroundings::default() }
        );
        let all = Fault::value_variants();
        let cut = all.iter().filter(|fault| surroundings(&[**fault]).cuts).count();
        assert_eq!((all.len(), cut), (9, 3));
    }
}
