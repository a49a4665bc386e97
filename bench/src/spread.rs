//! Several products that are hot at once, on several nodes: nobody owns more than a share of them, also when a node comes and when
//! one goes, and no buyer hears anything of it.
//!
//! Always true: a change that has begun is looked at to its end before the run ends, and one that did not happen, or too late to
//! matter, is no proof.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use crate::answer::Outcome;
use crate::clock::{Nanos, as_seconds, now_ns};
use crate::cluster::{Cluster, Owning};
use crate::command::Binary;
use crate::drive::{Sale, grouped};
use crate::engine::Live;
use crate::judge::{Ruling, Verdict};
use crate::run::{Run, Scene, announce};
use crate::sampler::CpuMeter;
use crate::stage::Doors;
use crate::workload::{Overrides, Workload};

/// What happens, and the share of the sale after which it does.
const STEPS: [(Step, f64); 3] = [(Step::Looked, 0.05), (Step::Came, 0.25), (Step::Went, 0.55)];
/// How long anybody waits until the nodes agree on who owns what.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// With less than this unsold a change proves little.
const UNSOLD_MIN: f64 = 0.05;
/// All shards of products, as the nodes' list counts them.
const SHARDS: u64 = 1_024;

#[derive(Args)]
pub struct Spread {
    #[command(flatten)]
    binary: Binary,
    #[command(flatten)]
    overrides: Overrides,
    /// Nodes at the beginning; another one comes, and one of these goes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// Let selling last this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 45.0)]
    pace: f64,
    /// Load threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Throws the dice of an earlier run again
    #[arg(long)]
    seed: Option<u64>,
    /// Read back at most so many acknowledged orders
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    read_back: usize,
    /// Where reports go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// Leave the servers' stores on disk
    #[arg(long)]
    keep_store: bool,
}

/// How many products there are, and the most of them that one node may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub products: u64,
    pub most: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Everything is hot, and nothing changes.
    Looked,
    /// A node was started.
    Came,
    /// One that does not lead was told to stop.
    Went,
}

/// One look at who owns what, after something changed or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moment {
    pub step: Step,
    /// Who came or went.
    pub node: Option<usize>,
    pub at_s: f64,
    /// Until it was as wanted, or nobody waited any longer.
    pub took_s: f64,
    /// Orders acknowledged when it began.
    pub acknowledged: u64,
    /// Share of the stock that nobody can have been sold yet, at its end.
    pub unsold_share: f64,
    /// As it was seen last.
    pub owning: Vec<Owning>,
    /// A node that did not start, or end, as it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A run's changes as they happen.
pub struct Changes<'a> {
    pub share: Share,
    pub live: &'a Live,
    pub server: &'a CpuMeter,
    pub start_ns: Nanos,
    pub moments: &'a RefCell<Vec<Moment>>,
    /// A change is not seen to its end yet: the run waits for it.
    pub is_under_way: &'a Cell<bool>,
}

impl Spread {
    pub async fn perform(self) -> Result<Ruling> {
        let workload = Workload::load("ten_hot")?.with(&self.overrides)?;
        let share = Share::of(workload.products as u64, self.nodes);
        let nodes = usize::try_from(self.nodes)?;
        let scene = Scene::Nodes { binary: self.binary.find()?, nodes, doors: Doors::All };
        let run = Run {
            threads: self.threads.max(1),
            seed: self.seed.unwrap_or_else(rand::random),
            spread: Some(share),
            pace_seconds: Some(self.pace),
            read_back: self.read_back,
            keep_store: self.keep_store,
            ..Run::of(workload, scene)
        };
        let ruling = announce(&run.perform().await?, Some(&self.out))?;
        if ruling > Ruling::Pass {
            println!("  seed {}", run.seed);
        }
        Ok(ruling)
    }
}

impl Share {
    /// A quarter more than the mean, as nodes share them out.
    pub fn of(products: u64, nodes: u64) -> Self {
        Self { products, most: (5 * products).div_ceil(4 * nodes) }
    }

    /// Why this is not how it should be.
    fn complaint(self, owning: &[Owning]) -> Option<String> {
        let Self { products, most } = self;
        let greedy = owning.iter().find(|node| node.loaded.is_some_and(|loaded| loaded > most));
        if let Some(node) = greedy {
            let owned = node.loaded.unwrap_or_default();
            return Some(format!(
                "node {} owned {owned} of {products} hot products, at most {most}",
                node.node
            ));
        }
        let known: u64 = owning.iter().filter_map(|node| node.loaded).sum();
        (known != products)
            .then(|| format!("the nodes said of {known} products that they are loaded, of {products}"))
    }
}

impl Changes<'_> {
    /// Lets each change happen in its part of the sale. Ends when the last of them has been seen to its end.
    pub async fn happen(&self, cluster: &mut Cluster, sale: Sale) -> Result<()> {
        let orders = sale.stock / sale.quantity;
        for (step, share) in STEPS {
            while self.live.acknowledged.load(Relaxed) < (orders as f64 * share) as u64 {
                sleep(Duration::from_millis(1)).await;
            }
            self.is_under_way.set(true);
            let (at_s, acknowledged) = (self.since_start(), self.live.acknowledged.load(Relaxed));
            self.server.read_us();
            let (node, changed) = match step {
                Step::Looked => (None, Ok(())),
                Step::Came => {
                    let node = cluster.spare().context("there is no node that could come")?;
                    (Some(node), cluster.start_again(node).await)
                }
                Step::Went => {
                    let node = cluster.dispensable().await?;
                    (Some(node), cluster.stop(node).await)
                }
            };
            self.server.watch(cluster.pids());
            let owning = self.settle(cluster, step, node).await;
            let sold = self.live.acknowledged.load(Relaxed)
                + self.live.in_flight.load(Relaxed)
                + self.live.uncertain.load(Relaxed);
            self.moments.borrow_mut().push(Moment {
                step,
                node,
                at_s,
                took_s: self.since_start() - at_s,
                acknowledged,
                unsold_share: orders.saturating_sub(sold) as f64 / orders as f64,
                owning,
                trouble: changed.err().map(|error| format!("{error:#}")),
            });
            self.is_under_way.set(false);
        }
        Ok(())
    }

    /// Who owns what, once it is as wanted.
    async fn settle(&self, cluster: &Cluster, step: Step, node: Option<usize>) -> Vec<Owning> {
        let (deadline, mut last) = (Instant::now() + SETTLE_TIMEOUT, Vec::new());
        loop {
            // Nobody may have an answer while something changes: what was seen before it stands.
            last = cluster.owning().await.unwrap_or(last);
            let is_so = self.share.complaint(&last).is_none() && step.complaint(node, &last).is_none();
            if is_so || Instant::now() > deadline {
                return last;
            }
            sleep(POLL).await;
        }
    }

    fn since_start(&self) -> f64 {
        as_seconds(now_ns().saturating_sub(self.start_ns))
    }
}

impl Step {
    /// Why it has not come to its end.
    fn complaint(self, node: Option<usize>, owning: &[Owning]) -> Option<String> {
        let of = |node: Option<usize>| owning.iter().find(|owning| Some(owning.node) == node);
        let shards = of(node).map_or(0, |owning| owning.shards);
        let all: u64 = owning.iter().map(|owning| owning.shards).sum();
        match self {
            _ if all != SHARDS => Some(format!("{all} of {SHARDS} shards had an owner")),
            Self::Came if shards == 0 => Some("it owned nothing".to_owned()),
            Self::Went if shards > 0 => Some(format!("it still owned {shards} shards")),
            Self::Looked | Self::Came | Self::Went => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Looked => "all hot",
            Self::Came => "node came",
            Self::Went => "node went",
        }
    }
}

/// Nobody owned too much at any moment, each change came to its end while there was something to sell, and nobody who ordered heard
/// anything of it.
pub fn verdicts(share: Share, moments: &[Moment], outcomes: &[u64; Outcome::COUNT]) -> Vec<Verdict> {
    let unfair = moments.iter().filter_map(|moment| {
        let complaint = share.complaint(&moment.owning)?;
        Some(format!("at {:.1} s {complaint}", moment.at_s + moment.took_s))
    });
    let fine = format!("no node owned more than {} of {} hot products", share.most, share.products);
    let mut verdicts = vec![Verdict::of("spread", unfair.collect(), fine)];
    for (step, _) in STEPS {
        let moment = moments.iter().find(|moment| moment.step == step);
        verdicts.push(match moment.map(Moment::seen_through) {
            Some(Ok(detail)) => Verdict::pass(step.name(), detail),
            Some(Err(complaint)) => Verdict::fail(step.name(), complaint),
            None => Verdict::fail(step.name(), "the sale was over before"),
        });
    }
    verdicts.push(refusals(outcomes));
    verdicts
}

/// Buyers hear *yes* or *sold out*, and nothing else. A connection that ends with its node is opened again elsewhere, where the
/// first try may still be on its way.
fn refusals(outcomes: &[u64; Outcome::COUNT]) -> Verdict {
    let heard = |outcome: &Outcome| outcomes[*outcome as usize];
    let told = |outcomes: &[Outcome]| {
        let words = outcomes.iter().map(|outcome| format!("{} {}", outcome.word(), grouped(heard(outcome))));
        words.collect::<Vec<_>>().join(", ")
    };
    let mut fair =
        vec![Outcome::Acknowledged, Outcome::SoldOut, Outcome::ConnectionCut, Outcome::IdempotencyInProgress];
    fair.retain(|outcome| heard(outcome) > 0);
    let others: Vec<Outcome> =
        Outcome::ALL.into_iter().filter(|outcome| heard(outcome) > 0 && !fair.contains(outcome)).collect();
    // Whoever is slow says that it is; that is the machine's fault, and none of the change's.
    let is_slowness =
        others.iter().all(|outcome| matches!(outcome, Outcome::Overloaded | Outcome::RateLimited));
    match (others.is_empty(), is_slowness) {
        (true, _) => Verdict::pass("refusals", format!("{}, and nothing else", told(&fair))),
        (false, true) => Verdict::miss("refusals", told(&others)),
        (false, false) => Verdict::fail("refusals", told(&others)),
    }
}

impl Moment {
    /// That it came to its end, and in time; or why not.
    fn seen_through(&self) -> Result<String, String> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone());
        }
        if let Some(complaint) = self.step.complaint(self.node, &self.owning) {
            return Err(format!("after {:.1} s {complaint}", self.took_s));
        }
        let detail =
            format!("seen after {:.1} s, with {:.0} % unsold", self.took_s, self.unsold_share * 100.0);
        if self.unsold_share < UNSOLD_MIN { Err(format!("{detail}: too late to matter")) } else { Ok(detail) }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.step, self.node) {
            (Step::Came, Some(node)) => write!(f, "node {node} came")?,
            (Step::Went, Some(node)) => write!(f, "node {node} went")?,
            (step, _) => f.write_str(step.name())?,
        }
        let acknowledged = grouped(self.acknowledged);
        write!(f, " at {:.2} s with {acknowledged} acknowledged; after {:.2} s", self.at_s, self.took_s)?;
        for owning in &self.owning {
            let loaded = owning.loaded.map_or("?".to_owned(), |loaded| loaded.to_string());
            write!(f, ", node {}: {loaded} products, {} shards", owning.node, owning.shards)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share { products: 10, most: 5 };

    fn owning(nodes: &[(usize, u64, Option<u64>)]) -> Vec<Owning> {
        nodes
            .iter()
            .map(|(node, shards, loaded)| Owning { node: *node, shards: *shards, loaded: *loaded })
            .collect()
    }

    fn moment(step: Step, node: Option<usize>, nodes: &[(usize, u64, Option<u64>)]) -> Moment {
        Moment {
            step,
            node,
            at_s: 2.0,
            took_s: 0.5,
            acknowledged: 1_000,
            unsold_share: 0.4,
            owning: owning(nodes),
            trouble: None,
        }
    }

    /// As it should be.
    fn good() -> [Moment; 3] {
        let of = |node, shards, loaded| (node, shards, Some(loaded));
        [
            moment(Step::Looked, None, &[of(0, 341, 5), of(1, 341, 3), of(2, 342, 2)]),
            moment(Step::Came, Some(3), &[of(0, 300, 4), of(1, 300, 2), of(2, 232, 2), of(3, 192, 2)]),
            moment(Step::Went, Some(2), &[of(0, 341, 4), of(1, 341, 3), of(3, 342, 3)]),
        ]
    }

    fn tally(heard: &[(Outcome, u64)]) -> [u64; Outcome::COUNT] {
        let mut outcomes = [0; Outcome::COUNT];
        heard.iter().for_each(|(outcome, count)| outcomes[*outcome as usize] = *count);
        outcomes
    }

    fn ruled(moments: &[Moment]) -> Vec<Ruling> {
        verdicts(SHARE, moments, &tally(&[])).iter().map(|verdict| verdict.ruling).collect()
    }

    #[test]
    fn a_share_is_a_quarter_more_than_the_mean() {
        assert_eq!(Share::of(10, 3), SHARE);
        assert_eq!((Share::of(10, 4).most, Share::of(1, 3).most), (4, 1));
    }

    #[test]
    fn all_is_well_only_if_everything_is() {
        assert_eq!(ruled(&good()), [Ruling::Pass; 5]);
        // One node sells everything, and what the others do is not known.
        let [mut looked, came, went] = good();
        looked.owning = owning(&[(0, 1_024, Some(10)), (1, 0, None), (2, 0, None)]);
        let told = verdicts(SHARE, &[looked.clone(), came.clone(), went.clone()], &tally(&[]));
        assert_eq!((told[0].ruling, told[1].ruling), (Ruling::Fail, Ruling::Pass));
        assert_eq!(told[0].detail, "at 2.5 s node 0 owned 10 of 10 hot products, at most 5");
        // Nobody owns too much, but somebody does not say what he owns.
        looked.owning = owning(&[(0, 341, Some(5)), (1, 341, Some(3)), (2, 342, None)]);
        assert_eq!(ruled(&[looked, came, went])[0], Ruling::Fail);
    }

    #[test]
    fn who_comes_has_to_own_and_who_goes_has_to_let_go_while_there_is_something_to_sell() {
        let with = |change: fn(&mut [Moment; 3])| {
            let mut moments = good();
            change(&mut moments);
            ruled(&moments)[1..4].to_vec()
        };
        let [pass, fail] = [Ruling::Pass, Ruling::Fail];
        assert_eq!(with(|moments| moments[1].owning.truncate(3)), [pass, fail, pass]);
        assert_eq!(with(|moments| moments[1].owning[3].shards = 0), [pass, fail, pass]);
        assert_eq!(with(|moments| moments[2].owning[2].node = 2), [pass, pass, fail]);
        assert_eq!(with(|moments| moments[2].owning[2].shards = 341), [pass, pass, fail]);
        assert_eq!(with(|moments| moments[2].trouble = Some("exit code 1".into())), [pass, pass, fail]);
        assert_eq!(with(|moments| moments[2].unsold_share = 0.04), [pass, pass, fail]);
        assert_eq!(ruled(&good()[..2])[3], fail);
    }

    #[test]
    fn nobody_hears_of_it() {
        let ruled = |heard: &[(Outcome, u64)]| refusals(&tally(heard)).ruling;
        let fair = [(Outcome::Acknowledged, 9), (Outcome::SoldOut, 5), (Outcome::ConnectionCut, 2)];
        assert_eq!(ruled(&fair), Ruling::Pass);
        assert_eq!(refusals(&tally(&fair[..2])).detail, "acknowledged 9, sold_out 5, and nothing else");
        for outcome in
            [Outcome::OwnerUnavailable, Outcome::Unknown, Outcome::ServerError, Outcome::SaleNotRunning]
        {
            assert_eq!(ruled(&[(outcome, 1), (Outcome::Overloaded, 1)]), Ruling::Fail);
        }
        assert_eq!(ruled(&[(Outcome::Overloaded, 1)]), Ruling::Miss);
    }

    #[test]
    fn a_line_says_who_owned_what() {
        let line = "node 2 went at 2.00 s with 1,000 acknowledged; after 0.50 s, node 0: 4 products, 341 shards, \
                    node 1: 3 products, 341 shards, node 3: 3 products, 342 shards";
        assert_eq!(good()[2].to_string(), line);
        assert!(
            moment(Step::Looked, None, &[(1, 0, None)]).to_string().ends_with("node 1: ? products, 0 shards")
        );
    }
}
