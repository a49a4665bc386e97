//! One job's desk: when it is run, by whom, and what is done about a run that did not end well.
//!
//! A run is a task of its own, so a panic in it ends the run and nothing else, and whoever waits here for the tables' writer never
//! keeps the run from giving it back. While it runs its lease is renewed; without the lease it is dropped where it waits. Always true:
//! what is written down as finished came to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::{Due, FINISH_WITHIN, JobHouse, Mode, NotRun, Outcome, Planned, Ran, Tally, Unable, next, unread};
use crate::domain::job::{CATCH_UP_MAX, LEASE_MS, Missed};
use crate::domain::stock::Millis;
use crate::persistence::StoreError;
use crate::persistence::job::{Holder, JobRow, Lease};
use crate::telemetry;

/// How often a run says that it goes on: two may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// The longest without a look: a machine that slept wakes later than its clock.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Pause when the rows cannot be read.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the first run that left something behind, and twice as long after each further one.
const AGAIN_MS: i64 = 1_000;
const AGAIN_MAX_MS: i64 = 300_000;

/// What is asked at a desk.
pub(super) enum Ask {
    Run { dry: bool, turn: OwnedSemaphorePermit, answer: oneshot::Sender<Result<Ran, Unable>> },
    Look(oneshot::Sender<()>),
}

/// An occurrence of which something was left behind.
#[derive(Debug, Clone, Copy)]
struct Again {
    scheduled: Millis,
    at: Millis,
    tries: u32,
}

/// How a run was left.
enum Left {
    Ended(Ran),
    /// Somebody else has the row.
    Lost,
    /// The shop closes; it is run again at the next start.
    Stopped,
}

/// What is to be done after a look.
enum Step {
    /// There may be more.
    Again,
    /// Nothing that could be done now.
    Rest(Duration),
    /// Somebody is about to ask for a run.
    Hear,
}

pub(super) struct Desk {
    house: JobHouse,
    planned: Planned,
    asks: mpsc::Receiver<Ask>,
    /// Whoever has it may run the job in this process.
    turn: Arc<Semaphore>,
    mode: watch::Receiver<Mode>,
    again: Option<Again>,
    /// The last run that is known here, whoever ran it.
    last: Option<Ran>,
    /// What is told of a long absence, until all that is made up for has been.
    left_out: Option<String>,
    lookers: Vec<oneshot::Sender<()>>,
}

impl Desk {
    pub(super) fn new(
        house: JobHouse,
        planned: Planned,
        asks: mpsc::Receiver<Ask>,
        turn: Arc<Semaphore>,
        mode: watch::Receiver<Mode>,
    ) -> Desk {
        Desk {
            house,
            planned,
            asks,
            turn,
            mode,
            again: None,
            last: None,
            left_out: None,
            lookers: Vec::new(),
        }
    }

    fn name(&self) -> &'static str {
        self.planned.job.name()
    }

    /// Until the shop closes.
    pub(super) async fn keep(mut self) {
        let now = self.house.clock.now();
        let known = self.house.rows.known(self.name(), now).await;
        match known {
            Ok(row) => self.follow(&row, now),
            Err(error) => {
                warn!(job = self.name(), %error, "the row of the job {} cannot be read or written yet", self.name());
            }
        }
        loop {
            let mode = *self.mode.borrow();
            if mode >= Mode::Finishing {
                return;
            }
            if mode == Mode::Closed && self.lookers.is_empty() {
                tokio::select! {
                    changed = self.mode.changed() => if changed.is_err() { return },
                    Some(ask) = self.asks.recv() => self.hear(ask).await,
                }
                continue;
            }
            let pause = match self.step().await {
                Ok(Step::Again) => continue,
                Ok(Step::Hear) => LOOK_EVERY,
                Ok(Step::Rest(pause)) => {
                    self.answer_lookers();
                    pause
                }
                Err(error) => {
                    warn!(job = self.name(), %error, "the rows of the job {} cannot be read or written", self.name());
                    self.answer_lookers();
                    FAILED_PAUSE
                }
            };
            tokio::select! {
                changed = self.mode.changed() => if changed.is_err() { return },
                Some(ask) = self.asks.recv() => self.hear(ask).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What somebody else has left behind, an earlier process or another node, is tried again like what this one does.
    fn follow(&mut self, row: &JobRow, now: Millis) {
        if self.last == row.last {
            return;
        }
        self.last.clone_from(&row.last);
        let left = row.last.as_ref().filter(|ran| ran.tally.failed > 0 && ran.scheduled == row.finished);
        self.again = match left {
            Some(ran) => Some(Again { scheduled: ran.scheduled, at: now, tries: 0 }),
            None => self.again.filter(|again| again.scheduled > row.finished),
        };
    }

    fn answer_lookers(&mut self) {
        for looker in self.lookers.drain(..) {
            let _ = looker.send(());
        }
    }

    /// Looks once, and runs what is due.
    async fn step(&mut self) -> Result<Step, StoreError> {
        let now = self.house.clock.now();
        let row = self.house.rows.known(self.name(), now).await?;
        self.follow(&row, now);
        let missed = self.planned.schedule.missed(row.finished, now);
        let due_next = next(&self.planned.schedule, &row, now);
        if let Some(at) = due_next {
            telemetry::job_due(self.name(), at.0);
        }
        // Rows that could not be moved are tried again, until the next occurrence does so anyway.
        let left_behind = || self.again.filter(|again| again.scheduled == row.finished);
        let due = missed.due.first().copied().or_else(|| left_behind().map(|again| again.scheduled));
        if missed.due.is_empty() {
            self.left_out = None;
        }
        let Some(scheduled) = due else { return Ok(self.rest_until(due_next)) };
        if let Some(again) = self.again.filter(|again| again.scheduled == scheduled && again.at > now) {
            return Ok(self.rest_until(Some(again.at)));
        }
        if let Some(lease) = row.lease.filter(|_| row.is_held(now)) {
            return Ok(self.rest_until(Some(lease.until)));
        }
        let Ok(_turn) = self.turn.clone().try_acquire_owned() else { return Ok(Step::Hear) };
        self.remember(&missed);
        self.run(&row, Due { scheduled, now, dry: false }, false).await?;
        Ok(Step::Again)
    }

    /// What is not made up for stands in the tallies of what is.
    fn remember(&mut self, missed: &Missed) {
        if let (true, Some(from)) = (missed.skips, missed.due.first()) {
            let from = shown(*from);
            let words = format!(
                "what was due before {from} was left out: more than {CATCH_UP_MAX} times were missed"
            );
            warn!(job = self.name(), "{}: {words}", self.name());
            self.left_out = Some(words);
        }
    }

    fn rest_until(&self, at: Option<Millis>) -> Step {
        Step::Rest(at.map_or(LOOK_EVERY, |at| self.house.clock.until(at).min(LOOK_EVERY)))
    }

    async fn hear(&mut self, ask: Ask) {
        match ask {
            Ask::Look(looker) => self.lookers.push(looker),
            Ask::Run { dry, turn, answer } => {
                let ran = self.by_hand(dry).await;
                drop(turn);
                // Whoever asked may have gone.
                let _ = answer.send(ran);
            }
        }
    }

    async fn by_hand(&mut self, dry: bool) -> Result<Ran, Unable> {
        let now = self.house.clock.now();
        let row = self.house.rows.known(self.name(), now).await.map_err(unread)?;
        if row.is_held(now) {
            return Err(Unable::Running);
        }
        let missed = self.planned.schedule.missed(row.finished, now);
        let due = missed.due.first().copied().or_else(|| self.planned.schedule.latest(now));
        let scheduled = due.ok_or(Unable::NothingDue)?;
        self.remember(&missed);
        match self.run(&row, Due { scheduled, now, dry }, true).await {
            Ok(Some(Left::Ended(ran))) => Ok(ran),
            Ok(Some(Left::Lost | Left::Stopped)) => Err(Unable::Unknown),
            Ok(None) => Err(Unable::Running),
            Err(error) => {
                error!(job = self.name(), %error, "how a run of {} ended cannot be written down", self.name());
                Err(Unable::Unknown)
            }
        }
    }

    /// One run from the claim to the last word. `None`: somebody else was faster.
    async fn run(&mut self, row: &JobRow, due: Due, by_hand: bool) -> Result<Option<Left>, StoreError> {
        let JobHouse { rows, clock, .. } = self.house.clone();
        let holder: Holder = clock.chance().to_be_bytes();
        let lease = Lease { until: due.now.plus(LEASE_MS), scheduled: due.scheduled, began: due.now };
        if !rows.claim(row, holder, lease).await? {
            return Ok(None);
        }
        let began = clock.nanos();
        let left = match self.attend(holder, due, lease.until).await {
            Attended::Ended(ended) => {
                let ran = self.judged(ended, due, by_hand);
                let took = Duration::from_nanos(clock.nanos().saturating_sub(began));
                let (moved, failed) = (ran.tally.moved, ran.tally.failed);
                if due.dry {
                    rows.let_go(self.name(), holder).await?;
                    Left::Ended(ran)
                } else if rows.end(self.name(), holder, &ran).await? {
                    telemetry::job_ran(self.name(), ran.outcome.as_str(), took, moved, failed);
                    self.note(&ran, took);
                    self.last = Some(ran.clone());
                    Left::Ended(ran)
                } else {
                    Left::Lost
                }
            }
            Attended::Lost => Left::Lost,
            Attended::Stopped => {
                rows.let_go(self.name(), holder).await?;
                Left::Stopped
            }
        };
        if matches!(left, Left::Lost) {
            telemetry::job_lost(self.name());
            warn!(job = self.name(), "a run of {} was stopped: somebody else has it", self.name());
        }
        Ok(Some(left))
    }

    /// What is written down of a run, and when the same is to be run again.
    fn judged(&mut self, ended: Result<Tally, NotRun>, due: Due, by_hand: bool) -> Ran {
        let (outcome, mut tally) = match ended {
            Ok(tally) => (Outcome::Done, tally.bounded()),
            Err(NotRun(why)) => {
                let mut tally = Tally::default();
                tally.tell(why);
                (Outcome::Failed, tally)
            }
        };
        if let Some(words) = &self.left_out {
            tally.problems.insert(0, words.clone());
            tally = tally.bounded();
        }
        let ended = self.house.clock.now();
        if !due.dry {
            let before =
                self.again.filter(|again| again.scheduled == due.scheduled).map_or(0, |again| again.tries);
            let left_behind = outcome == Outcome::Failed || tally.failed > 0;
            self.again = left_behind.then(|| Again {
                scheduled: due.scheduled,
                at: ended.plus((AGAIN_MS << before.min(16)).min(AGAIN_MAX_MS)),
                tries: before + 1,
            });
        }
        Ran { scheduled: due.scheduled, began: due.now, ended, outcome, by_hand, tally }
    }

    fn note(&self, ran: &Ran, took: Duration) {
        let (job, scheduled, took_ms) = (self.name(), shown(ran.scheduled), took.as_millis());
        let Tally { seen, moved, failed, problems } = &ran.tally;
        match ran.outcome {
            Outcome::Failed => {
                error!(job, %scheduled, ?problems, "the job {job} did not come to its end; it is run again");
            }
            Outcome::Done if *failed > 0 => {
                warn!(job, %scheduled, seen, moved, failed, ?problems, took_ms, "the job {job} left rows behind; they are tried again");
            }
            Outcome::Done if *moved > 0 => {
                info!(job, %scheduled, seen, moved, took_ms, "the job {job} was run")
            }
            Outcome::Done => debug!(job, %scheduled, seen, took_ms, "the job {job} was run"),
        }
    }

    /// Stays with a run to its end, or as long as it may go on.
    async fn attend(&mut self, holder: Holder, due: Due, mut until: Millis) -> Attended {
        let job = self.planned.job.clone();
        let mut work = Work(tokio::spawn(async move { job.run(due).await }));
        let (rows, clock, name) = (self.house.rows.clone(), self.house.clock.clone(), self.name());
        let mut closing = self.mode.clone();
        let closed = async move {
            let _ = closing.wait_for(|mode| *mode >= Mode::Finishing).await;
            tokio::time::sleep(FINISH_WITHIN).await;
        };
        let mut closed = std::pin::pin!(closed);
        let left = loop {
            tokio::select! {
                ended = &mut work.0 => return Attended::Ended(ended.unwrap_or_else(|_| {
                    Err(NotRun("it panicked; standard error says where".to_owned()))
                })),
                () = &mut closed => break Attended::Stopped,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            let longer = clock.now().plus(LEASE_MS);
            match rows.renew(name, holder, longer).await {
                Ok(true) => until = longer,
                Ok(false) => break Attended::Lost,
                Err(error) if clock.now() < until => {
                    warn!(job = name, %error, "the lease of {name} could not be renewed; trying again");
                }
                Err(_) => break Attended::Lost,
            }
        };
        work.0.abort();
        // Until it is really gone: then nothing of it comes after what somebody else does.
        let _ = (&mut work.0).await;
        left
    }
}

enum Attended {
    Ended(Result<Tally, NotRun>),
    Lost,
    Stopped,
}

/// A run. It does not outlive whoever attends it.
struct Work(JoinHandle<Result<Tally, NotRun>>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn shown(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or_default().to_string()
}
