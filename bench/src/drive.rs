//! One load from its first request to its last, with everything that goes on beside it: the progress line, the samples of
//! the server, the measured window, and the kills or faults.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, sleep};

use crate::chance::Dice;
use crate::clock::{Nanos, as_seconds, now_ns};
use crate::counters::{Counted, Counters};
use crate::engine::{self, Harvest, Live, Plan};
use crate::faults::{self, Fallen, Fault, Ordeal};
use crate::sampler::{CpuMeter, Sample, Sampler};
use crate::shop::Shop;
use crate::spread::{Changes, Moment, Share};
use crate::stage::{Server, Stage};

/// What is done to a shop while it sells.
#[derive(Clone, Copy, Debug)]
pub enum Harm<'a> {
    Nothing,
    /// A shop on one node is killed so often.
    Kills(u64),
    /// These befall a shop on several nodes.
    Faults(&'a [Fault]),
    /// A node comes to several, and another goes.
    Changes(Share),
}

/// The measure of when harm is done.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    /// Units in stock at the start, and units an order takes.
    pub stock: u64,
    pub quantity: u64,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Kill {
    pub at_s: f64,
    pub back_at_s: f64,
    /// Orders acknowledged, and requests in flight, at the moment of the kill.
    pub acknowledged: u64,
    pub in_flight: u64,
    /// Share of the stock that nobody can have been sold yet.
    pub unsold_share: f64,
}

pub struct Drive {
    pub harvest: Harvest,
    pub samples: Vec<Sample>,
    pub kills: Vec<Kill>,
    pub faults: Vec<Fallen>,
    pub moments: Vec<Moment>,
    /// CPU over the measured window.
    pub server_cpu_us: Option<u64>,
    pub store_cpu_us: Option<u64>,
    pub cpu: CpuMeter,
    /// Of a database that was left alone.
    pub counted: Option<Counted>,
}

/// Kills and faults fall between these shares of the sale.
pub const FIRST_KILL: f64 = 0.03;
pub const LAST_KILL: f64 = 0.90;

pub async fn drive(stage: &mut Stage, plan: &Arc<Plan>, harm: Harm<'_>, sale: Sale) -> Result<Drive> {
    let live = Arc::new(Live::default());
    let (cpu, store_cpu) = (CpuMeter::default(), CpuMeter::default());
    cpu.watch(stage.pids());
    store_cpu.watch(stage.store_pid());
    let mut counters = match (harm, stage.database_url()) {
        (Harm::Nothing, Some(url)) if plan.duration_ns < Nanos::MAX => Some(Counters::of(&url).await?),
        _ => None,
    };
    let threads = engine::start(plan, &live)?;
    let all_finished = || live.finished_threads.load(Relaxed) == plan.threads as u64;
    while live.start_ns.get().is_none() && !all_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    let start_ns = live.start_ns.get().copied().unwrap_or_default();
    let sampler = Sampler {
        targets: stage.nodes(),
        every: Duration::from_nanos(plan.interval_ns.max(200_000_000)),
        cpu: &cpu,
        samples: RefCell::default(),
    };
    let (kills, fallen, moments) = (RefCell::default(), RefCell::default(), RefCell::default());
    let (is_under_way, is_counted) = (Cell::new(false), Cell::new(false));
    let window = Window { server: &cpu, store: &store_cpu, opened: Cell::default(), closed: Cell::default() };
    let counting = async {
        if let Some(counters) = &mut counters {
            counters.watch(start_ns, plan, &live).await?;
        }
        is_counted.set(true);
        std::future::pending::<Result<()>>().await
    };
    let finished = async {
        while !all_finished() || is_under_way.get() || !is_counted.get() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let harming = async {
        match (harm, &mut stage.server) {
            (Harm::Nothing, _) => {}
            (Harm::Kills(kills_wanted), Server::Shop(shop)) => {
                kill_and_restart(shop, &live, &cpu, start_ns, kills_wanted, sale, &kills).await?;
            }
            (Harm::Faults(wanted), Server::Cluster(cluster)) => {
                let ordeal = Ordeal {
                    live: &live,
                    server: &cpu,
                    store: &store_cpu,
                    start_ns,
                    fallen: &fallen,
                    is_under_way: &is_under_way,
                };
                ordeal.befall(cluster, wanted, sale).await?;
            }
            (Harm::Changes(share), Server::Cluster(cluster)) => {
                let changes = Changes {
                    share,
                    live: &live,
                    server: &cpu,
                    start_ns,
                    moments: &moments,
                    is_under_way: &is_under_way,
                };
                changes.happen(cluster, sale).await?;
            }
            (Harm::Kills(_), _) => bail!("--kill needs a server of one's own"),
            (Harm::Faults(_) | Harm::Changes(_), _) => bail!("what befalls nodes needs nodes of one's own"),
        }
        // The run goes on until every buyer has heard.
        std::future::pending::<Result<()>>().await
    };
    let outcome = tokio::select! {
        () = finished => Ok(()),
        () = sampler.run(start_ns) => Ok(()),
        () = show_progress(&live, start_ns) => Ok(()),
        () = window.watch(start_ns, plan) => Ok(()),
        failed = harming => failed,
        failed = counting => failed,
    };
    window.close();
    if outcome.is_err() {
        live.stop();
    }
    end_progress();
    let harvest = engine::join(threads);
    outcome?;
    let (harvest, samples) = (harvest?, sampler.samples.take());
    let (server_cpu_us, store_cpu_us) = window.cpu_us();
    let mut faults: Vec<Fallen> = fallen.take();
    faults::hear(&mut faults, &harvest.history, start_ns);
    let counted = match counters {
        Some(counters) => counters.counted().await?,
        None => None,
    };
    Ok(Drive {
        harvest,
        samples,
        kills: kills.take(),
        faults,
        moments: moments.take(),
        server_cpu_us,
        store_cpu_us,
        cpu,
        counted,
    })
}

/// CPU from the end of the warm-up to the end of arrivals, or of the run.
struct Window<'a> {
    server: &'a CpuMeter,
    store: &'a CpuMeter,
    opened: Cell<Option<Reading>>,
    closed: Cell<Option<Reading>>,
}

/// CPU so far, in microseconds, of the server and of its store.
type Reading = [Option<u64>; 2];

impl Window<'_> {
    /// Never ends.
    async fn watch(&self, start_ns: Nanos, plan: &Plan) {
        sleep_until(start_ns.saturating_add(plan.warm_up_ns)).await;
        self.opened.set(Some(self.read()));
        sleep_until(start_ns.saturating_add(plan.measured_until_ns)).await;
        self.close();
        std::future::pending().await
    }

    fn close(&self) {
        if self.closed.get().is_none() {
            self.closed.set(Some(self.read()));
        }
    }

    fn read(&self) -> Reading {
        [self.server.read_us(), self.store.read_us()]
    }

    fn cpu_us(&self) -> (Option<u64>, Option<u64>) {
        let used = |who: usize| {
            let (opened, closed) = (self.opened.get()?[who]?, self.closed.get()?[who]?);
            Some(closed.saturating_sub(opened))
        };
        (used(0), used(1))
    }
}

async fn sleep_until(moment: Nanos) {
    let left = moment.saturating_sub(now_ns());
    sleep(Duration::from_nanos(left.min(3600 * 1_000_000_000))).await;
}

/// Kills the server at random points of the sale and starts it again.
async fn kill_and_restart(
    shop: &mut Shop,
    live: &Live,
    cpu: &CpuMeter,
    start_ns: Nanos,
    wanted: u64,
    sale: Sale,
    kills: &RefCell<Vec<Kill>>,
) -> Result<()> {
    let mut dice = Dice::new(sale.seed);
    let since_start = || as_seconds(now_ns().saturating_sub(start_ns));
    let sale = sale.stock / sale.quantity;
    for kill in 0..wanted {
        let share = FIRST_KILL + (LAST_KILL - FIRST_KILL) * (kill as f64 + dice.fraction()) / wanted as f64;
        while live.acknowledged.load(Relaxed) < (sale as f64 * share) as u64 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_micros(dice.between(0, 3_000))).await;
        let (at_s, acknowledged, in_flight) =
            (since_start(), live.acknowledged.load(Relaxed), live.in_flight.load(Relaxed));
        let undecided = in_flight + live.uncertain.load(Relaxed);
        cpu.read_us();
        shop.kill()?;
        shop.start().await?;
        cpu.watch(shop.pid());
        let unsold_share = sale.saturating_sub(acknowledged + undecided) as f64 / sale as f64;
        kills.borrow_mut().push(Kill {
            at_s,
            back_at_s: since_start(),
            acknowledged,
            in_flight,
            unsold_share,
        });
    }
    Ok(())
}

/// One line that is written over and over on a terminal, and now and then elsewhere. Never ends.
async fn show_progress(live: &Live, start_ns: Nanos) {
    let on_terminal = std::io::stderr().is_terminal();
    let every = if on_terminal { Duration::from_millis(250) } else { Duration::from_secs(5) };
    let (mut answers_before, mut then) = (0, start_ns);
    loop {
        sleep(every).await;
        let (now, answers) = (now_ns(), live.answers());
        let rate = (answers - answers_before) as f64 / as_seconds(now - then).max(1e-9);
        (answers_before, then) = (answers, now);
        let line = format!(
            "{:6.1} s  {:>9}/s   yes {}   no {}   503 {}   cut {}   in flight {}   waiting {}",
            as_seconds(now.saturating_sub(start_ns)),
            grouped(rate as u64),
            grouped(live.acknowledged.load(Relaxed)),
            grouped(live.refused.load(Relaxed)),
            grouped(live.unavailable.load(Relaxed)),
            grouped(live.cut.load(Relaxed)),
            grouped(live.in_flight.load(Relaxed)),
            grouped(live.backlog.load(Relaxed)),
        );
        // A progress line that cannot be written is not worth stopping a run for.
        let _ = if on_terminal {
            write!(std::io::stderr(), "\r\x1b[2K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }
}

fn end_progress() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
