//! The scheduler: has each job done at its times, once, and what was missed made up for.
//!
//! It owns the jobs' rows and a thread that yields to everybody. Each job has a desk of its own, so one that hangs, fails or panics holds
//! up no other. Always true: a job has one run at a time, whoever asked for it; the occurrences of a job are run in their order, each
//! told which one it is; one that did not come to its end is run again, and a job that is told the same twice does nothing twice.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::actors::background::{Background, Ended};
use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::persistence::StoreError;
use crate::persistence::job::{JobRow, JobRows};
use crate::persistence::trail::Trail;
use crate::telemetry;
use desk::{Ask, Desk};

pub use crate::domain::job::{Due, EACH_DAY, Schedule, Tally};
pub use crate::persistence::job::{Outcome, Ran};

/// Questions that wait at one job's desk. Of those who want it run there is one at most.
pub const ASKS_MAX: usize = 8;
/// How long somebody who runs a job by hand waits for its end.
const HAND_WAIT: Duration = Duration::from_secs(10);
/// How long an end waits for the runs it is at.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// The same, and what is to be written down after it.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How much less important than the order path jobs are, in steps of the system's own scheduler.
const NICE: i32 = 10;

/// Why a run did not come to its end, in words of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotRun(pub String);

impl From<StoreError> for NotRun {
    fn from(error: StoreError) -> NotRun {
        warn!(%error, "a job could not read or write its rows");
        NotRun("its rows cannot be read or written".to_owned())
    }
}

/// Something that is to be done again and again.
///
/// One bad row is counted, told in the tally, and holds up no other. A run may be dropped wherever it waits, as if the process had
/// died; the next one is told the same occurrence and does the rest.
pub trait Job: Send + Sync {
    /// By which it is known in rows, metrics and the address of its door: small letters, `_` between them.
    fn name(&self) -> &'static str;

    fn run(&self, due: Due) -> BoxFuture<'_, Result<Tally, NotRun>>;
}

/// A job and its times.
#[derive(Clone)]
pub struct Planned {
    pub job: Arc<dyn Job>,
    pub schedule: Schedule,
}

/// Why a job was not run by hand, or not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    #[error("there is no such job")]
    NoJob,
    #[error("it is running")]
    Running,
    #[error("no occurrence of it has come yet")]
    NothingDue,
    #[error("the rows cannot be read; nothing was done")]
    Unavailable,
    #[error("the rows cannot be written; it may have been done")]
    Unknown,
}

fn unread(error: StoreError) -> Unable {
    warn!(%error, "the jobs' rows could not be read");
    Unable::Unavailable
}

/// What became of a run by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByHand {
    Ended(Ran),
    /// It takes its time: look later.
    Running,
}

/// A job as it is shown.
#[derive(Debug, Clone)]
pub struct Sight {
    pub name: &'static str,
    pub schedule: String,
    /// When it is due next; in the past if it is behind.
    pub next: Option<Millis>,
    /// Since when it runs, and which occurrence.
    pub running: Option<(Millis, Millis)>,
    pub last: Option<Ran>,
}

/// What the scheduler needs of the house.
#[derive(Clone)]
pub struct JobHouse {
    pub rows: JobRows,
    pub trail: Trail,
    pub clock: Clock,
}

/// What the desks are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Nothing by themselves; what is asked for is done.
    Closed,
    Open,
    /// Come to an end.
    Finishing,
    /// Drop everything.
    Dead,
}

/// Somebody's way to a desk.
struct Slot {
    planned: Planned,
    asks: mpsc::Sender<Ask>,
    turn: Arc<Semaphore>,
}

/// Has jobs done. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    house: JobHouse,
    slots: Arc<Vec<Slot>>,
    alive: Arc<Alive>,
    ended: Ended,
}

/// Ends the thread when the last handle has gone.
struct Alive(watch::Sender<Mode>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_replace(Mode::Dead);
    }
}

impl Scheduler {
    /// Starts the thread. Nothing is run before [`Scheduler::open`].
    pub fn start(house: JobHouse, jobs: Vec<Planned>) -> std::io::Result<Scheduler> {
        let (mode, _) = watch::channel(Mode::Closed);
        let (mut slots, mut desks) = (Vec::new(), Vec::new());
        for planned in jobs {
            telemetry::job_known(planned.job.name());
            let (asks, hears) = mpsc::channel(ASKS_MAX);
            let turn = Arc::new(Semaphore::new(1));
            desks.push(Desk::new(house.clone(), planned.clone(), hears, turn.clone(), mode.subscribe()));
            slots.push(Slot { planned, asks, turn });
        }
        let ended = begin(desks, mode.subscribe())?;
        Ok(Scheduler { house, slots: Arc::new(slots), alive: Arc::new(Alive(mode)), ended })
    }

    /// From now on what is due is done.
    pub fn open(&self) {
        self.alive.0.send_replace(Mode::Open);
    }

    /// Nothing is run any more but what is asked for, until it is opened again: for whoever lets days go by himself.
    pub fn pause(&self) {
        self.alive.0.send_replace(Mode::Closed);
    }

    /// Ends after the runs it is at, if they do not take too long; what is not done is done at the next start.
    pub async fn stop(&self) {
        self.alive.0.send_replace(Mode::Finishing);
        let mut ended = self.ended.clone();
        // A thread that is gone already has nothing more to say.
        if tokio::time::timeout(STOP_WITHIN, ended.wait_for(|ended| *ended)).await.is_err() {
            warn!("a job is still running; the next start runs it again");
        }
    }

    /// Ends at once, as if the process had died: what runs is dropped where it waits, and its lease stands until it lapses.
    pub async fn abandon(&self) {
        self.alive.0.send_replace(Mode::Dead);
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout(STOP_WITHIN, ended.wait_for(|ended| *ended)).await;
    }

    /// Every job, in the order in which they were named.
    pub async fn jobs(&self) -> Result<Vec<Sight>, Unable> {
        let mut sights = Vec::with_capacity(self.slots.len());
        for slot in self.slots.iter() {
            sights.push(self.sight(slot).await?);
        }
        Ok(sights)
    }

    /// One of them.
    pub async fn job(&self, name: &str) -> Result<Sight, Unable> {
        self.sight(self.slot(name)?).await
    }

    /// Runs a job now: the oldest occurrence that is due, or, where none is, the last one that came once more, so that a row is never
    /// moved further than its occurrences allow.
    pub async fn run(&self, admin: UserId, name: &str, dry: bool) -> Result<ByHand, Unable> {
        let slot = self.slot(name)?;
        let turn = slot.turn.clone().try_acquire_owned().map_err(|_| Unable::Running)?;
        let job = slot.planned.job.name();
        let record = Record::new(Deed::JobRun, self.house.clock.now()).by(admin).word("job", job);
        let record = record.word("dry_run", if dry { "yes" } else { "no" });
        self.house.trail.append(&record).await.map_err(|error| {
            error!(%error, "the trail could not be written; nothing was run");
            Unable::Unknown
        })?;
        let (answer, ran) = oneshot::channel();
        slot.asks.try_send(Ask::Run { dry, turn, answer }).map_err(|_| Unable::Unavailable)?;
        match tokio::time::timeout(HAND_WAIT, ran).await {
            Ok(Ok(ran)) => ran.map(ByHand::Ended),
            // The desk has gone: the shop is closing.
            Ok(Err(_)) => Err(Unable::Unknown),
            Err(_) => Ok(ByHand::Running),
        }
    }

    /// Does what is due, and comes back when there is nothing more that could be done now: for whoever has moved the clock.
    pub async fn look(&self) {
        for slot in self.slots.iter() {
            let (answer, looked) = oneshot::channel();
            if slot.asks.send(Ask::Look(answer)).await.is_ok() {
                let _ = looked.await;
            }
        }
    }

    fn slot(&self, name: &str) -> Result<&Slot, Unable> {
        self.slots.iter().find(|slot| slot.planned.job.name() == name).ok_or(Unable::NoJob)
    }

    async fn sight(&self, slot: &Slot) -> Result<Sight, Unable> {
        let JobHouse { rows, clock, .. } = &self.house;
        let (now, name) = (clock.now(), slot.planned.job.name());
        let schedule = &slot.planned.schedule;
        let row = rows.find(name).await.map_err(unread)?;
        let held = row.as_ref().is_some_and(|row| row.is_held(now));
        let lease = row.as_ref().and_then(|row| row.lease).filter(|_| held);
        Ok(Sight {
            name,
            schedule: schedule.words().to_owned(),
            next: row.as_ref().map_or_else(|| schedule.next_after(now), |row| next(schedule, row, now)),
            running: lease.map(|lease| (lease.began, lease.scheduled)),
            last: row.and_then(|row| row.last),
        })
    }
}

/// When it is due next: at once, if it is behind.
fn next(schedule: &Schedule, row: &JobRow, now: Millis) -> Option<Millis> {
    let missed = schedule.missed(row.finished, now).due.first().copied();
    missed.or_else(|| schedule.next_after(row.finished.max(now)))
}

fn begin(desks: Vec<Desk>, mode: watch::Receiver<Mode>) -> std::io::Result<Ended> {
    let background = Background { name: "stockade-jobs", nice: NICE, lost: "no job is run" };
    background.begin(move || keep(desks, mode))
}

async fn keep(desks: Vec<Desk>, mut mode: watch::Receiver<Mode>) {
    let mut kept: JoinSet<()> = desks.into_iter().map(Desk::keep).collect();
    let all_end = async {
        while let Some(ended) = kept.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a job's desk is gone: it is not run before the next start");
            }
        }
    };
    tokio::select! {
        () = all_end => {}
        // As if the process had died.
        _ = mode.wait_for(|mode| *mode == Mode::Dead) => {}
    }
}
