//! The load engine: threads that send attempts and hear answers, each with a runtime, connections and numbers of its
//! own. Nothing is shared on the hot path but the plan, which nobody changes; progress is published once a tick.
//!
//! Open loop: attempt `n` is due at a moment that the plan alone decides. If no connection is free, it waits in a queue
//! that never drops anything, and its latency runs from the moment it was due. Closed loop: every connection asks
//! again as soon as it has heard.

mod attempt;
mod connection;
mod history;
mod tally;
mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

pub use history::{History, Ordered};
pub use tally::Tally;

use crate::chance::Zipf;
use crate::clock::{MILLISECOND, Nanos, SECOND, seconds};
use crate::wire::OrderRequests;
use crate::workload::Retry;

/// Everything a run's threads need to know; fixed before the first of them starts.
pub struct Plan {
    /// One or more: connections are spread over them evenly.
    pub targets: Vec<SocketAddr>,
    pub requests: OrderRequests,
    pub popularity: Zipf,
    pub seed: u64,
    pub arrivals: Arrivals,
    /// Attempts in all.
    pub attempts: u64,
    /// Arrivals end after this long, and with them the retries of whatever was certainly refused.
    pub duration_ns: Nanos,
    /// Answers after this are judged, but not measured.
    pub measured_until_ns: Nanos,
    pub warm_up_ns: Nanos,
    pub connections: usize,
    pub threads: usize,
    pub products: usize,
    pub retry: Retry,
    pub interval_ns: Nanos,
    /// Room reserved for acknowledged orders, so that no thread stops to make it.
    pub expected_orders: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    Closed,
    /// `rate` a second; the first `paced` buyers come at `pace` a second.
    Open {
        rate: f64,
        paced: u64,
        pace: f64,
    },
}

/// What the rest of the harness may see of a run while it lasts.
#[derive(Default)]
pub struct Live {
    pub start_ns: OnceLock<Nanos>,
    pub acknowledged: AtomicU64,
    pub refused: AtomicU64,
    pub unavailable: AtomicU64,
    pub cut: AtomicU64,
    pub in_flight: AtomicU64,
    /// Attempts that may have an order without knowing it, and are not in flight.
    pub uncertain: AtomicU64,
    pub backlog: AtomicU64,
    pub finished_threads: AtomicU64,
    /// Set to end the run early.
    pub stop: AtomicBool,
}

/// What a run brought in.
pub struct Harvest {
    pub tally: Tally,
    pub history: History,
    pub client: ClientEffort,
}

/// How hard the generator itself had to work: whoever measures must not be what is measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientEffort {
    pub cpu_ns: Nanos,
    pub wall_ns: Nanos,
    /// The busiest thread's share of one core.
    pub busiest_thread: f64,
    /// Attempts that a thread noticed more than 2 ms after they were due.
    pub noticed_late: u64,
    pub longest_backlog: u64,
}

/// How long buyers whose order may or may not stand keep asking after the end of arrivals.
const PATIENCE_NS: Nanos = 60 * SECOND;

impl Plan {
    /// When attempt `number` is due, from the start of the run.
    pub fn due(&self, number: u64) -> Nanos {
        match self.arrivals {
            Arrivals::Closed => 0,
            Arrivals::Open { pace, paced, .. } if number < paced => seconds(number as f64 / pace),
            Arrivals::Open { rate, paced, pace } => {
                let lead = if paced > 0 { paced as f64 / pace } else { 0.0 };
                seconds(lead + (number - paced) as f64 / rate)
            }
        }
    }

    fn product_of(&self, attempt: u64) -> u32 {
        self.popularity.pick(self.seed, attempt) as u32
    }

    /// When the harness stops waiting for answers, from the start of the run.
    fn given_up_ns(&self) -> Nanos {
        let last_arrival = match self.arrivals {
            Arrivals::Open { .. } if self.attempts < u64::MAX => self.due(self.attempts),
            _ => 0,
        };
        if self.duration_ns < Nanos::MAX {
            self.duration_ns + PATIENCE_NS
        } else {
            last_arrival + 5 * PATIENCE_NS
        }
    }
}

impl Live {
    pub fn answers(&self) -> u64 {
        self.acknowledged.load(Relaxed) + self.refused.load(Relaxed) + self.unavailable.load(Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }
}

/// Starts the threads; `join` brings in what they have.
pub fn start(plan: &Arc<Plan>, live: &Arc<Live>) -> Result<Vec<JoinHandle<Result<Harvest>>>> {
    raise_file_limit();
    let ready = Arc::new(Barrier::new(plan.threads));
    (0..plan.threads)
        .map(|index| {
            let (plan, live, ready) = (plan.clone(), live.clone(), ready.clone());
            std::thread::Builder::new()
                .name(format!("buyers-{index}"))
                .spawn(move || {
                    let harvest = connection::run_thread(plan, &live, index, &ready);
                    live.finished_threads.fetch_add(1, Relaxed);
                    harvest
                })
                .context("cannot start a thread")
        })
        .collect()
}

pub fn join(threads: Vec<JoinHandle<Result<Harvest>>>) -> Result<Harvest> {
    let mut whole: Option<Harvest> = None;
    for thread in threads {
        let part = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => {
                whole.tally.absorb(&part.tally)?;
                whole.history.absorb(part.history);
                whole.client.cpu_ns += part.client.cpu_ns;
                whole.client.wall_ns = whole.client.wall_ns.max(part.client.wall_ns);
                whole.client.busiest_thread = whole.client.busiest_thread.max(part.client.busiest_thread);
                whole.client.noticed_late += part.client.noticed_late;
                whole.client.longest_backlog += part.client.longest_backlog;
            }
        }
    }
    whole.context("no load thread")
}

/// The moment all threads start at, once every connection stands.
fn agreed_start(live: &Live, ready: &Barrier) -> Nanos {
    ready.wait();
    *live.start_ns.get_or_init(|| crate::clock::now_ns() + 2 * MILLISECOND)
}

/// A thousand connections need more descriptors than some shells allow.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
