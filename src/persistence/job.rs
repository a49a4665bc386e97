//! The `jobs` rows: how far each job has come, who is at it, and what came of its last run.
//!
//! A run begins with a claim: by compare-and-set on the row's version, for so long, under a name of its own. Nobody else has that name,
//! so what a run says after another one has claimed the row changes nothing; nor does what a node says that counts as dead, before
//! anybody has claimed it. Rows are not synced one by one, for the sake of the journal's disk: after a power cut nobody runs, and at
//! worst an occurrence is run again that had finished, which changes nothing twice.

use super::StoreError;
use super::sql::{self, Damaged, Row, signed, time, unsigned};
use super::store::Store;
use crate::domain::job::{LEASE_MS, Tally};
use crate::domain::stock::Millis;

macro_rules! jobs {
    ($rest:literal) => {
        concat!(
            "select name, finished_at_ms, holder, lease_until_at_ms, running_scheduled_at_ms, running_began_at_ms, \
             last_scheduled_at_ms, last_began_at_ms, last_ended_at_ms, last_outcome, last_by_hand, last_seen, \
             last_moved, last_failed, last_problems, version from jobs ",
            $rest
        )
    };
}

const FIND: &str = jobs!("where name = ?");
const INSERT: &str = "insert into jobs (name, finished_at_ms, version) values (?, ?, 1)";
const CLAIM: &str = "update jobs set holder = ?, lease_until_at_ms = ?, running_scheduled_at_ms = ?, running_began_at_ms = ?, \
    version = version + 1 where name = ? and version = ?";
const RENEW: &str =
    "update jobs set lease_until_at_ms = ?, version = version + 1 where name = ? and holder = ?";
const END: &str = "update jobs set holder = null, lease_until_at_ms = null, running_scheduled_at_ms = null, \
    running_began_at_ms = null, finished_at_ms = case when finished_at_ms > ? then finished_at_ms else ? end, \
    last_scheduled_at_ms = ?, last_began_at_ms = ?, last_ended_at_ms = ?, last_outcome = ?, last_by_hand = ?, last_seen = ?, \
    last_moved = ?, last_failed = ?, last_problems = ?, version = version + 1 where name = ? and holder = ?";
const LET_GO: &str = "update jobs set holder = null, lease_until_at_ms = null, running_scheduled_at_ms = null, \
    running_began_at_ms = null, version = version + 1 where name = ? and holder = ?";

/// Under which name a run holds its row.
pub type Holder = [u8; 16];

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To its end, whatever became of single rows.
    Done,
    /// Not to its end: it is run again.
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
        }
    }

    fn from_word(word: &str) -> Option<Outcome> {
        [Outcome::Done, Outcome::Failed].into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Of which occurrence it was the run.
    pub scheduled: Millis,
    pub began: Millis,
    pub ended: Millis,
    pub outcome: Outcome,
    pub by_hand: bool,
    pub tally: Tally,
}

/// A run that has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Nobody else may run before this.
    pub until: Millis,
    pub scheduled: Millis,
    pub began: Millis,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    pub name: String,
    /// The last occurrence that was run to its end; at first, when the job became known.
    pub finished: Millis,
    pub lease: Option<Lease>,
    pub last: Option<Ran>,
    version: i64,
}

impl JobRow {
    /// Is somebody at it? A lease that ends later than any that is given is one of a clock that has gone back since.
    pub fn is_held(&self, now: Millis) -> bool {
        self.lease.is_some_and(|lease| lease.until > now && lease.until <= now.plus(LEASE_MS))
    }
}

/// How far the jobs have come. Cheap to clone.
#[derive(Clone)]
pub struct JobRows {
    pub(super) store: Store,
}

impl JobRows {
    pub async fn find(&self, name: &str) -> Result<Option<JobRow>, StoreError> {
        let row = sql::query(FIND).bind(name).fetch_optional(&self.store.readers()).await?;
        row.as_ref().map(job).transpose()
    }

    /// The row of this job, which is made if there is none: what came before `now` is no concern of it.
    pub async fn known(&self, name: &str, now: Millis) -> Result<JobRow, StoreError> {
        if let Some(row) = self.find(name).await? {
            return Ok(row);
        }
        let made = self.store.write(sql::query(INSERT).bind(name).bind(now.0)).await;
        match (self.find(name).await?, made) {
            (Some(row), _) => Ok(row),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(Damaged { what: "job" }.into()),
        }
    }

    /// Takes the row as it was read, for a run. `false`: somebody else was faster.
    pub async fn claim(&self, row: &JobRow, holder: Holder, lease: Lease) -> Result<bool, StoreError> {
        let claim = sql::query(CLAIM)
            .bind(holder.to_vec())
            .bind(lease.until.0)
            .bind(lease.scheduled.0)
            .bind(lease.began.0)
            .bind(&row.name)
            .bind(row.version);
        Ok(self.store.write(claim).await? == 1)
    }

    /// Holds it longer. `false`: it is somebody else's by now.
    pub async fn renew(&self, name: &str, holder: Holder, until: Millis) -> Result<bool, StoreError> {
        let renewal = sql::query(RENEW).bind(until.0).bind(name).bind(holder.to_vec());
        Ok(self.store.write(renewal).await? == 1)
    }

    /// Writes down how the run ended and lets go. `false`: it had lost its row.
    pub async fn end(&self, name: &str, holder: Holder, ran: &Ran) -> Result<bool, StoreError> {
        let finished = match ran.outcome {
            Outcome::Done => ran.scheduled,
            Outcome::Failed => Millis(i64::MIN),
        };
        let problems = serde_json::to_string(&ran.tally.problems).map_err(|_| Damaged { what: "problem" })?;
        let end = sql::query(END)
            .bind(finished.0)
            .bind(finished.0)
            .bind(ran.scheduled.0)
            .bind(ran.began.0)
            .bind(ran.ended.0)
            .bind(ran.outcome.as_str())
            .bind(i64::from(ran.by_hand))
            .bind(signed(ran.tally.seen))
            .bind(signed(ran.tally.moved))
            .bind(signed(ran.tally.failed))
            .bind(problems)
            .bind(name)
            .bind(holder.to_vec());
        Ok(self.store.write(end).await? == 1)
    }

    /// Lets go, as if nothing had been.
    pub async fn let_go(&self, name: &str, holder: Holder) -> Result<(), StoreError> {
        self.store.write(sql::query(LET_GO).bind(name).bind(holder.to_vec())).await.map(drop)
    }
}

fn job(row: &Row) -> Result<JobRow, StoreError> {
    let lease = match (time(row, 3)?, time(row, 4)?, time(row, 5)?) {
        (Some(until), Some(scheduled), Some(began)) => Some(Lease { until, scheduled, began }),
        _ => None,
    };
    let last = match (time(row, 6)?, time(row, 7)?, time(row, 8)?) {
        (Some(scheduled), Some(began), Some(ended)) => Some(Ran { scheduled, began, ended, ..last(row)? }),
        _ => None,
    };
    Ok(JobRow {
        name: row.try_get(0)?,
        finished: Millis(row.try_get(1)?),
        lease,
        last,
        version: row.try_get(15)?,
    })
}

fn last(row: &Row) -> Result<Ran, StoreError> {
    let problems: &str = row.try_get(14)?;
    Ok(Ran {
        scheduled: Millis::default(),
        began: Millis::default(),
        ended: Millis::default(),
        outcome: Outcome::from_word(row.try_get(9)?).ok_or(Damaged { what: "outcome of a job" })?,
        by_hand: row.try_get::<i64>(10)? != 0,
        tally: Tally {
            seen: unsigned(row, 11)?,
            moved: unsigned(row, 12)?,
            failed: unsigned(row, 13)?,
            problems: serde_json::from_str(problems).map_err(|_| Damaged { what: "problems of a job" })?,
        },
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::Tables;
    use crate::persistence::sql::mysql::Server;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::new_database;

    const NAME: &str = "sweeping";

    async fn rows(home: Home) -> (tempfile::TempDir, JobRows) {
        let (dir, tables) = home.tables().await;
        (dir, tables.jobs())
    }

    fn lease(until: i64) -> Lease {
        Lease { until: Millis(until), scheduled: Millis(100), began: Millis(105) }
    }

    fn ran(outcome: Outcome) -> Ran {
        let tally = Tally { seen: 3, moved: 2, failed: 1, problems: vec!["the third: \"no\"".to_owned()] };
        let (scheduled, began, ended) = (Millis(100), Millis(105), Millis(107));
        Ran { scheduled, began, ended, outcome, by_hand: true, tally }
    }

    #[rstest]
    #[tokio::test]
    async fn a_job_is_known_from_when_it_was_first_asked_for(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, rows) = rows(home).await;
        assert_eq!(rows.known(NAME, Millis(50)).await.unwrap().finished, Millis(50));
        assert_eq!(rows.known(NAME, Millis(99)).await.unwrap().finished, Millis(50));
    }

    #[rstest]
    #[tokio::test]
    async fn of_two_who_claim_one_has_it(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, rows) = rows(home).await;
        let row = rows.known(NAME, Millis(50)).await.unwrap();
        assert!(rows.claim(&row, [1; 16], lease(200)).await.unwrap());
        assert!(!rows.claim(&row, [2; 16], lease(200)).await.unwrap());
        let held = rows.known(NAME, Millis(50)).await.unwrap();
        assert_eq!(held.lease, Some(lease(200)));
        assert!(held.is_held(Millis(199)) && !held.is_held(Millis(200)));
        assert!(!held.is_held(Millis(199 - LEASE_MS)));
    }

    #[rstest]
    #[tokio::test]
    async fn an_end_is_written_down_and_a_failure_finishes_nothing(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, rows) = rows(home).await;
        for (outcome, finished) in [(Outcome::Failed, 50), (Outcome::Done, 100)] {
            let row = rows.known(NAME, Millis(50)).await.unwrap();
            assert!(rows.claim(&row, [1; 16], lease(200)).await.unwrap());
            assert!(rows.end(NAME, [1; 16], &ran(outcome)).await.unwrap());
            let row = rows.known(NAME, Millis(50)).await.unwrap();
            assert_eq!((row.finished, row.lease, row.last), (Millis(finished), None, Some(ran(outcome))));
        }
    }

    #[rstest]
    #[tokio::test]
    async fn whoever_lost_the_row_changes_nothing(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, rows) = rows(home).await;
        let row = rows.known(NAME, Millis(50)).await.unwrap();
        assert!(rows.claim(&row, [1; 16], lease(200)).await.unwrap());
        assert!(rows.renew(NAME, [1; 16], Millis(300)).await.unwrap());
        let lapsed = rows.known(NAME, Millis(50)).await.unwrap();
        assert!(rows.claim(&lapsed, [2; 16], lease(500)).await.unwrap());
        assert!(!rows.renew(NAME, [1; 16], Millis(900)).await.unwrap());
        assert!(!rows.end(NAME, [1; 16], &ran(Outcome::Done)).await.unwrap());
        rows.let_go(NAME, [1; 16]).await.unwrap();
        let row = rows.known(NAME, Millis(50)).await.unwrap();
        assert_eq!((row.finished, row.lease, row.last), (Millis(50), Some(lease(500)), None));
        rows.let_go(NAME, [2; 16]).await.unwrap();
        assert_eq!(rows.known(NAME, Millis(50)).await.unwrap().lease, None);
    }

    /// It was a lead, and ran what its successor is about to run: it has moved nothing, and must not say that it is through.
    #[tokio::test]
    async fn a_node_that_counts_as_dead_finishes_nothing() {
        let url = new_database().await;
        let rows = Tables::connect(&url).await.unwrap().jobs();
        let row = rows.known(NAME, Millis(50)).await.unwrap();
        assert!(rows.claim(&row, [1; 16], lease(200)).await.unwrap());
        let nobody = Server::at(&url).unwrap().of_node(7);
        let dead = Tables::on(&nobody).await.unwrap().jobs();
        let held = dead.known(NAME, Millis(50)).await.unwrap();
        assert!(dead.renew(NAME, [1; 16], Millis(900)).await.is_err());
        assert!(dead.end(NAME, [1; 16], &ran(Outcome::Done)).await.is_err());
        assert!(dead.let_go(NAME, [1; 16]).await.is_err());
        assert!(dead.claim(&held, [2; 16], lease(900)).await.is_err());
        assert_eq!(rows.known(NAME, Millis(50)).await.unwrap(), held);
        assert!(rows.end(NAME, [1; 16], &ran(Outcome::Done)).await.unwrap());
    }
}
