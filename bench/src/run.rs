//! One workload from an empty folder to a verdict: set the stage, drive the load, let the shop settle, judge, report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::time::{Duration, Instant, sleep};

use crate::answer::Outcome;
use crate::bystanders::{Bystanders, Gathering};
use crate::chance::Zipf;
use crate::client::Client;
use crate::clock::{MILLISECOND, Nanos, SECOND, as_seconds, seconds};
use crate::cluster::Surroundings;
use crate::crowd::{Crowd, LogIns};
use crate::drive::{Drive, Harm, Sale, drive, grouped};
use crate::engine::{Arrivals, Plan};
use crate::faults::{self, Fault};
use crate::judge::{Evidence, PROVIDER_BOOK, Ruling, Verdict, judge};
use crate::report::{
    Latencies, Latency, Machine, Report, SCHEMA, Setting, Summary, TimeLine, by_word, started_now,
};
use crate::rivals::Rival;
use crate::sampler::flush_lag;
use crate::spread::{self, Share};
use crate::stage::{Doors, Server, Stage};
use crate::thresholds;
use crate::wire::OrderRequests;
use crate::workload::Workload;

#[derive(Clone, Debug)]
pub struct Run {
    pub workload: Workload,
    pub scene: Scene,
    pub threads: usize,
    pub seed: u64,
    /// A shop on one node is killed so often.
    pub kills: u64,
    /// These befall a shop on several.
    pub faults: Vec<Fault>,
    /// A node comes to several and another goes, and nobody owns more than this.
    pub spread: Option<Share>,
    /// So many people log in again and again meanwhile; it needs a shop of one's own.
    pub log_ins: usize,
    /// These hold connections meanwhile.
    pub bystanders: Bystanders,
    /// Selling lasts about this long.
    pub pace_seconds: Option<f64>,
    /// At most so many orders are read back.
    pub read_back: usize,
    pub keep_store: bool,
}

#[derive(Clone, Debug)]
pub enum Scene {
    /// With more environment for the server.
    Own {
        binary: PathBuf,
        environment: Vec<(String, String)>,
    },
    Nodes {
        binary: PathBuf,
        nodes: usize,
        doors: Doors,
    },
    Elsewhere {
        url: String,
        tokens: PathBuf,
        admin: Option<String>,
    },
    Reference,
    Rival(Rival),
}

/// After the sale, a paced run lets the rest come faster.
const RATE_AFTER_SALE: f64 = 5_000.0;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

impl Run {
    /// One to which nothing befalls, by two threads, with new dice, and of which nothing is read back.
    pub fn of(workload: Workload, scene: Scene) -> Self {
        Self {
            workload,
            scene,
            threads: 2,
            seed: rand::random(),
            kills: 0,
            faults: Vec::new(),
            spread: None,
            log_ins: 0,
            bystanders: Bystanders::default(),
            pace_seconds: None,
            read_back: 0,
            keep_store: false,
        }
    }

    pub async fn perform(&self) -> Result<Report> {
        let started_at = started_now();
        let mut stage = self.set_stage().await?;
        let plan = Arc::new(self.plan(&stage)?);
        let sale =
            Sale { stock: stage.on_hand.iter().sum(), quantity: self.workload.quantity, seed: self.seed };
        let crowd = self.gather(&mut stage).await?;
        let bystanders = match self.bystanders == Bystanders::default() {
            true => None,
            false => Some(self.bystanders.gather(stage.target).await?),
        };
        let drive = drive(&mut stage, &plan, self.harm(), sale).await?;
        bystanders.map(Gathering::disperse).transpose()?;
        let log_ins = crowd.map(Crowd::disperse).transpose()?;
        let settled_us = self.settle(&stage, &drive).await;
        let warned = stage.warning().map(str::to_owned);
        let mut verdicts = self.judge(&stage, &plan, &drive).await?;
        verdicts.extend(self.close(&mut stage, &drive).await);
        verdicts.extend(log_ins.iter().map(LogIns::verdict));
        let summary = summarize(&plan, &drive, settled_us);
        let answered = Latency::of(&drive.harvest.tally.answered_us()?);
        verdicts.extend(thresholds::verdicts(&self.workload, self.is_harmed(), &summary, &answered));
        if self.keep_store
            && let Some(path) = stage.keep_store()
        {
            eprintln!("the store is kept in {}", path.display());
        }
        Ok(Report {
            schema: SCHEMA.into(),
            started_at,
            machine: Machine::here(),
            workload: self.workload.clone(),
            setting: self.setting(),
            warnings: warned.into_iter().chain(self.warnings(&plan, &drive, &summary)).collect(),
            summary,
            latency: Latencies {
                answered,
                acknowledged: Latency::of(&drive.harvest.tally.acknowledged_us),
                refused: Latency::of(&drive.harvest.tally.refused_us),
            },
            time_line: TimeLine::of(&drive.harvest.tally, plan.interval_ns),
            samples: drive.samples,
            kills: drive.kills,
            faults: drive.faults,
            moments: drive.moments,
            counted: drive.counted,
            log_ins,
            verdicts,
        })
    }

    fn harm(&self) -> Harm<'_> {
        match (self.spread, self.kills, self.faults.as_slice()) {
            (Some(share), _, _) => Harm::Changes(share),
            (None, 0, []) => Harm::Nothing,
            (None, kills, []) => Harm::Kills(kills),
            (None, _, faults) => Harm::Faults(faults),
        }
    }

    fn surroundings(&self) -> Surroundings {
        match self.spread {
            Some(_) => Surroundings { redis: true, spares: 1, ..Surroundings::default() },
            None => faults::surroundings(&self.faults),
        }
    }

    fn is_harmed(&self) -> bool {
        !matches!(self.harm(), Harm::Nothing)
    }

    async fn set_stage(&self) -> Result<Stage> {
        match &self.scene {
            Scene::Own { binary, environment } => Stage::own(binary, &self.workload, environment).await,
            Scene::Nodes { binary, nodes, doors } => {
                Stage::cluster(binary, &self.workload, *nodes, *doors, self.surroundings()).await
            }
            Scene::Elsewhere { url, tokens, admin } => {
                Stage::elsewhere(url, tokens, admin.clone(), self.workload.products).await
            }
            Scene::Reference => Stage::reference(self.workload.users).await,
            Scene::Rival(rival) => Stage::rival(*rival, self.workload.users, self.workload.stock).await,
        }
    }

    async fn gather(&self, stage: &mut Stage) -> Result<Option<Crowd>> {
        if self.log_ins == 0 {
            return Ok(None);
        }
        let shop = stage.shop().context("log-ins need a shop of one's own")?;
        Crowd::gather(shop, self.log_ins).await.map(Some)
    }

    fn plan(&self, stage: &Stage) -> Result<Plan> {
        let workload = &self.workload;
        let sale = workload.buyers_until_sold_out();
        let arrivals = match (self.pace_seconds, workload.rate) {
            (Some(pace_seconds), rate) => {
                ensure!(sale > 0 && pace_seconds > 0.0, "--pace needs something to sell and some time");
                Arrivals::Open {
                    rate: rate.unwrap_or(RATE_AFTER_SALE),
                    paced: sale,
                    pace: sale as f64 / pace_seconds,
                }
            }
            (None, Some(rate)) => match (workload.calm, workload.duration_seconds) {
                (Some(calm), Some(seconds)) => {
                    Arrivals::Open { rate: calm.rate, paced: (rate * seconds) as u64, pace: rate }
                }
                _ => Arrivals::Open { rate, paced: 0, pace: rate },
            },
            (None, None) => Arrivals::Closed,
        };
        let planned = self.pace_seconds.or(workload.planned_seconds());
        let likely = workload.attempts.unwrap_or_else(|| {
            (workload.duration_seconds.unwrap_or(1.0) * workload.rate.unwrap_or(130_000.0)) as u64
        });
        let goods = if stage.products.len() == 1 { sale } else { u64::MAX };
        Ok(Plan {
            targets: stage.targets.clone(),
            requests: OrderRequests::new(
                &stage.target.to_string(),
                &stage.tokens,
                &stage.products,
                workload.quantity,
                workload.card(),
                self.seed as u32,
            ),
            popularity: Zipf::new(stage.products.len(), workload.zipf_exponent),
            seed: self.seed,
            arrivals,
            attempts: workload.attempts.unwrap_or(u64::MAX),
            duration_ns: workload
                .duration_seconds
                .map_or(Nanos::MAX, |lasts| seconds(lasts + workload.calm.map_or(0.0, |calm| calm.seconds))),
            measured_until_ns: workload.duration_seconds.map_or(Nanos::MAX, seconds),
            warm_up_ns: seconds(workload.warm_up_seconds),
            connections: workload.connections,
            threads: self.threads.min(workload.connections),
            products: stage.products.len(),
            retry: workload.retry,
            interval_ns: if planned.is_none_or(|seconds| seconds >= 20.0) {
                SECOND
            } else {
                100 * MILLISECOND
            },
            expected_orders: likely.min(goods).min(5_000_000) as usize,
        })
    }

    /// Waits until the tables have caught up with the journal; the server's CPU up to then.
    async fn settle(&self, stage: &Stage, drive: &Drive) -> Option<u64> {
        let mut client = Client::new(stage.active().await.ok()?);
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while matches!(stage.server, Server::Shop(_) | Server::Cluster(_)) && Instant::now() < deadline {
            let reply = client.get("/metrics", None).await.ok()?.text();
            if flush_lag(&reply)? <= 0.0 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let first = drive.samples.first()?.cpu_us?;
        Some(drive.cpu.read_us()?.saturating_sub(first))
    }

    async fn judge(&self, stage: &Stage, plan: &Plan, drive: &Drive) -> Result<Vec<Verdict>> {
        let provider_book = match &stage.server {
            Server::Reference { .. } => return Ok(Vec::new()),
            Server::Rival(shop) => return Ok(vec![shop.verdict(&drive.harvest.tally).await?]),
            Server::Shop(shop) => Some(shop.data_dir().join(PROVIDER_BOOK)),
            Server::Cluster(_) | Server::Elsewhere => None,
        };
        let history = &drive.harvest.history;
        let heard = history.acknowledged.len() as u64
            + Outcome::ALL
                .iter()
                .filter(|outcome| outcome.is_refusal())
                .map(|outcome| drive.harvest.tally.total[*outcome as usize])
                .sum::<u64>();
        judge(&Evidence {
            target: stage.target,
            history,
            requests: &plan.requests,
            tokens: &stage.tokens,
            admin: stage.admin.as_deref(),
            products: &stage.products,
            on_hand: &stage.on_hand,
            quantity: self.workload.quantity,
            limit: self.workload.per_customer_limit,
            demand_covers_stock: history.went_home == 0
                && heard * self.workload.quantity >= stage.on_hand.iter().sum::<u64>(),
            read_back: self.read_back,
            provider_book: provider_book.as_deref(),
        })
        .await
    }

    /// Stops the shop, and has it audit its own books.
    async fn close(&self, stage: &mut Stage, drive: &Drive) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if self.kills > 0 {
            let early = drive.kills.iter().filter(|kill| kill.unsold_share >= 0.05).count() as u64;
            let detail = format!("{early} of {} kills while at least 5 % was unsold", self.kills);
            verdicts.push(match early == self.kills {
                true => Verdict::pass("kills", detail),
                false => Verdict::fail("kills", detail),
            });
        }
        if !self.faults.is_empty() {
            verdicts.push(faults::verdict(&drive.faults, self.faults.len()));
        }
        if let Some(share) = self.spread {
            verdicts.extend(spread::verdicts(share, &drive.moments, &drive.harvest.tally.total));
        }
        if let Some((stopped, audited)) = stage.close().await {
            verdicts.push(match stopped {
                Ok(()) => Verdict::pass("clean stop", "SIGTERM, exit 0"),
                Err(error) => Verdict::fail("clean stop", format!("{error:#}")),
            });
            verdicts.push(match audited {
                Ok(said) => Verdict::pass("audit", said.lines().last().unwrap_or("no differences").trim()),
                Err(error) => Verdict::fail("audit", format!("{error:#}")),
            });
        }
        verdicts
    }

    fn setting(&self) -> Setting {
        let server = match &self.scene {
            Scene::Own { .. } => "shop".to_owned(),
            Scene::Nodes { nodes, doors: Doors::All, .. } => format!("shop on {nodes} nodes"),
            Scene::Nodes { nodes, doors: Doors::StandingBy, .. } => {
                format!("shop on {nodes} nodes, forwarded")
            }
            Scene::Reference => "reference".to_owned(),
            Scene::Rival(rival) => rival.word().to_owned(),
            Scene::Elsewhere { url, .. } => url.clone(),
        };
        Setting {
            server,
            threads: self.threads,
            seed: self.seed,
            pace_seconds: self.pace_seconds,
            kills: self.kills,
            faults: self.faults.clone(),
        }
    }

    /// What makes the figures worth less than they look.
    fn warnings(&self, plan: &Plan, drive: &Drive, summary: &Summary) -> Vec<String> {
        let mut warnings = Vec::new();
        let client = drive.harvest.client;
        let open = matches!(plan.arrivals, Arrivals::Open { .. });
        if summary.client_busiest_thread > 0.9 {
            warnings.push(format!(
                "the client is saturated: its busiest thread used {:.0} % of a core; --threads or another machine for it",
                summary.client_busiest_thread * 100.0
            ));
        }
        let attempts: u64 = drive.harvest.tally.total.iter().sum();
        if open && client.noticed_late * 100 > attempts {
            warnings.push(format!(
                "the client was late: {} of {attempts} attempts were noticed more than 2 ms after they were due",
                client.noticed_late
            ));
        }
        if open && !self.is_harmed() && client.longest_backlog > plan.connections as u64 {
            warnings.push(format!(
                "up to {} attempts waited for a free connection: the offered rate is over what is served",
                grouped(client.longest_backlog)
            ));
        }
        if let Some(oddity) = &drive.harvest.history.oddity {
            warnings.push(format!("an answer nobody expects: {oddity}"));
        }
        warnings
    }
}

fn summarize(plan: &Plan, drive: &Drive, settled_us: Option<u64>) -> Summary {
    let tally = &drive.harvest.tally;
    let measured_s =
        as_seconds(tally.last_answer_ns.min(plan.measured_until_ns).saturating_sub(plan.warm_up_ns))
            .max(1e-6);
    let answers = |outcomes: &[u64; Outcome::COUNT]| {
        let answered = Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::ConnectionCut);
        answered.map(|outcome| outcomes[*outcome as usize]).sum::<u64>() as f64
    };
    let (measured, total) = (answers(&tally.measured), answers(&tally.total).max(1.0));
    let client = drive.harvest.client;
    Summary {
        measured_s,
        answers_per_s: measured / measured_s,
        acknowledged_per_s: tally.measured[Outcome::Acknowledged as usize] as f64 / measured_s,
        outcomes: by_word(&tally.total),
        measured: by_word(&tally.measured),
        server_cpu_us_per_answer: drive.server_cpu_us.map(|us| us as f64 / measured.max(1.0)),
        store_cpu_us_per_answer: drive.store_cpu_us.map(|us| us as f64 / measured.max(1.0)),
        server_cpu_us_per_answer_settled: settled_us.map(|us| us as f64 / total),
        client_cpu_us_per_answer: client.cpu_ns as f64 / 1000.0 / total,
        client_busiest_thread: client.busiest_thread,
    }
}

/// Prints a report for people; the worst of its verdicts.
pub fn announce(report: &Report, folder: Option<&Path>) -> Result<Ruling> {
    let summary = &report.summary;
    println!("{}: {}", report.workload.name, report.workload.shows);
    println!(
        "  {:.1} s, {} answers/s, {} {}/s",
        summary.measured_s,
        grouped(summary.answers_per_s as u64),
        grouped(summary.acknowledged_per_s as u64),
        if report.workload.payment.is_some() { "purchases" } else { "orders" }
    );
    let outcomes: Vec<String> =
        summary.outcomes.iter().map(|(word, count)| format!("{word} {}", grouped(*count))).collect();
    println!("  {}", outcomes.join(", "));
    for (name, latency) in [("yes", &report.latency.acknowledged), ("no", &report.latency.refused)] {
        if latency.count > 0 {
            let ms = |us: u64| us as f64 / 1000.0;
            println!(
                "  {name:<4} p50 {:.2} ms   p90 {:.2}   p99 {:.2}   p99.9 {:.2}   max {:.2}",
                ms(latency.p50_us),
                ms(latency.p90_us),
                ms(latency.p99_us),
                ms(latency.p999_us),
                ms(latency.max_us)
            );
        }
    }
    if let Some(us) = summary.server_cpu_us_per_answer {
        let settled = summary
            .server_cpu_us_per_answer_settled
            .map(|us| format!(", {us:.1} with the whole flush"))
            .unwrap_or_default();
        println!(
            "  server CPU {us:.1} µs an answer{settled}; client {:.1} µs",
            summary.client_cpu_us_per_answer
        );
    }
    for kill in &report.kills {
        println!(
            "  killed at {:.2} s with {} acknowledged, {} in flight; serving again after {:.2} s",
            kill.at_s,
            grouped(kill.acknowledged),
            kill.in_flight,
            kill.back_at_s - kill.at_s
        );
    }
    report.faults.iter().for_each(|fallen| println!("  {fallen}"));
    report.moments.iter().for_each(|moment| println!("  {moment}"));
    report.warnings.iter().for_each(|warning| println!("  WARNING {warning}"));
    for verdict in &report.verdicts {
        println!("  {}  {:<18} {}", verdict.ruling.word(), verdict.name, verdict.detail);
    }
    if let Some(folder) = folder {
        let (json, html) = report.write(folder)?;
        println!("  {}\n  {}", json.display(), html.display());
    }
    Ok(Ruling::of(&report.verdicts))
}
