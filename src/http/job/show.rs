//! How a job and a run of it are shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::scheduler::{Ran, Sight};
use crate::http::time::Stamp;

/// Something that is done again and again.
#[derive(Serialize, ToSchema)]
pub struct JobShown {
    #[schema(value_type = String, example = "deliveries")]
    name: &'static str,
    /// A cron expression: minute, hour, day, month, weekday, on the clocks of the calendar's zone. Where a day is compressed its clocks
    /// are faster, and midnight is the beginning of each compressed day.
    #[schema(example = "0 0 * * *")]
    schedule: String,
    /// When it is due next; in the past while it is behind.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_at: Option<Stamp>,
    running: bool,
    /// Since when it runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    running_since: Option<Stamp>,
    last_run: Option<RunShown>,
}

impl From<Sight> for JobShown {
    fn from(job: Sight) -> JobShown {
        JobShown {
            name: job.name,
            schedule: job.schedule,
            next_at: job.next.map(Stamp),
            running: job.running.is_some(),
            running_since: job.running.map(|(since, _)| Stamp(since)),
            last_run: job.last.map(|ran| RunShown::of(ran, false)),
        }
    }
}

/// A run that has ended.
#[derive(Serialize, ToSchema)]
pub struct RunShown {
    /// Of which occurrence it was the run.
    #[schema(value_type = String, format = DateTime)]
    scheduled_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    began_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    ended_at: Stamp,
    /// `done`: to its end, whatever became of single rows. `failed`: it is run again.
    #[schema(value_type = String)]
    outcome: &'static str,
    by_hand: bool,
    /// Nothing was moved; `moved` are those that would have been.
    dry_run: bool,
    /// Rows that were looked at.
    #[schema(minimum = 0)]
    seen: u64,
    #[schema(minimum = 0)]
    moved: u64,
    /// Rows that could not be moved; they are tried again.
    #[schema(minimum = 0)]
    failed: u64,
    /// What went wrong, the first twenty of it.
    problems: Vec<String>,
}

impl RunShown {
    pub fn of(ran: Ran, dry_run: bool) -> RunShown {
        RunShown {
            scheduled_at: Stamp(ran.scheduled),
            began_at: Stamp(ran.began),
            ended_at: Stamp(ran.ended),
            outcome: ran.outcome.as_str(),
            by_hand: ran.by_hand,
            dry_run,
            seen: ran.tally.seen,
            moved: ran.tally.moved,
            failed: ran.tally.failed,
            problems: ran.tally.problems,
        }
    }
}
