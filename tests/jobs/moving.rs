//! A job whose rows stand in memory, and which does whatever a test wants: hangs, fails, panics, meets a damaged row. And a house for
//! it: real rows of jobs, and a scheduler or two.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use stockade::actors::scheduler::{
    Due, EACH_DAY, Job, JobHouse, NotRun, Planned, Schedule, Scheduler, Tally,
};
use stockade::clock::Clock;
use stockade::domain::calendar::{Calendar, DAY_MS};
use stockade::domain::stock::Millis;
use stockade::persistence::Tables;
use tempfile::TempDir;
use tokio::sync::Semaphore;

pub const NAME: &str = "moving";

/// By which occurrences each row was moved.
type Rows = Arc<Mutex<BTreeMap<u32, Vec<Millis>>>>;

/// What a test and the job both hold.
#[derive(Clone)]
pub struct Moving(Arc<Inner>);

struct Inner {
    name: &'static str,
    rows: Rows,
    runs: Mutex<Vec<Millis>>,
    /// It hangs before this row; 0: nowhere.
    stop_before: AtomicU32,
    stopped: Semaphore,
    go_on: Semaphore,
    poisoned: AtomicU32,
    panics: AtomicBool,
    fails: AtomicBool,
    dropped: AtomicUsize,
}

impl Moving {
    pub fn of(rows: u32) -> Moving {
        Moving::named(NAME, rows)
    }

    pub fn named(name: &'static str, rows: u32) -> Moving {
        Moving::on(name, Arc::new(Mutex::new((1..=rows).map(|row| (row, Vec::new())).collect())))
    }

    /// Another one for the same rows.
    pub fn twin(&self) -> Moving {
        Moving::on(self.0.name, self.0.rows.clone())
    }

    fn on(name: &'static str, rows: Rows) -> Moving {
        Moving(Arc::new(Inner {
            name,
            rows,
            runs: Mutex::default(),
            stop_before: AtomicU32::new(0),
            stopped: Semaphore::new(0),
            go_on: Semaphore::new(0),
            poisoned: AtomicU32::new(0),
            panics: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
        }))
    }

    /// Which occurrence each run was told that it is, dry ones left out.
    pub fn runs(&self) -> Vec<Millis> {
        self.0.runs.lock().unwrap().clone()
    }

    /// How many runs were dropped before they had ended.
    pub fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn assert_moved_once_by_each(&self, occurrences: &[Millis]) {
        for (row, moved) in self.0.rows.lock().unwrap().iter() {
            assert_eq!(moved, occurrences, "row {row}");
        }
    }

    pub fn stop_before(&self, row: u32) {
        self.0.stop_before.store(row, Ordering::SeqCst);
    }

    pub fn never_stop(&self) {
        self.stop_before(0);
    }

    pub async fn until_stopped(&self) {
        self.0.stopped.acquire().await.unwrap().forget();
    }

    /// Also from now on.
    pub fn go_on(&self) {
        self.never_stop();
        self.0.go_on.add_permits(1);
    }

    pub fn poison(&self, row: u32) {
        self.0.poisoned.store(row, Ordering::SeqCst);
    }

    pub fn cure(&self) {
        self.poison(0);
    }

    pub fn panic(&self, panics: bool) {
        self.0.panics.store(panics, Ordering::SeqCst);
    }

    pub fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }

    async fn go(&self, due: Due) -> Result<Tally, NotRun> {
        let mut going = Going { inner: &self.0, ended: false };
        if !due.dry {
            self.0.runs.lock().unwrap().push(due.scheduled);
        }
        assert!(!self.0.panics.load(Ordering::SeqCst), "as the test wants it");
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(NotRun("the sky fell".to_owned()));
        }
        let mut tally = Tally::default();
        let rows: Vec<u32> = self.0.rows.lock().unwrap().keys().copied().collect();
        for row in rows {
            if row == self.0.stop_before.load(Ordering::SeqCst) {
                self.0.stopped.add_permits(1);
                self.0.go_on.acquire().await.unwrap().forget();
            }
            tally.seen += 1;
            if row == self.0.poisoned.load(Ordering::SeqCst) {
                tally.fail(format!("row {row} is damaged"));
                continue;
            }
            let mut rows = self.0.rows.lock().unwrap();
            let moved = rows.get_mut(&row).unwrap();
            if moved.last().is_none_or(|last| *last < due.scheduled) {
                tally.moved += 1;
                if !due.dry {
                    moved.push(due.scheduled);
                }
            }
        }
        going.ended = true;
        Ok(tally)
    }
}

/// Notices when a run is dropped.
struct Going<'m> {
    inner: &'m Inner,
    ended: bool,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Job for Moving {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn run(&self, due: Due) -> BoxFuture<'_, Result<Tally, NotRun>> {
        self.go(due).boxed()
    }
}

/// Rows, a clock and days.
pub struct House {
    _folder: TempDir,
    tables: Tables,
    pub clock: Clock,
    pub calendar: Calendar,
}

impl House {
    pub async fn open(calendar: Calendar) -> House {
        let folder = tempfile::tempdir().unwrap();
        let tables = Tables::open(folder.path()).await.unwrap();
        House { _folder: folder, tables, clock: Clock::start(), calendar }
    }

    /// One that is open, for jobs that are due each day.
    pub async fn scheduler(&self, jobs: &[&Moving]) -> Scheduler {
        let planned = |job: &&Moving| Planned {
            job: Arc::new((*job).clone()),
            schedule: Schedule::cron(EACH_DAY, self.calendar.clone()).unwrap(),
        };
        let house =
            JobHouse { rows: self.tables.jobs(), trail: self.tables.trail(), clock: self.clock.clone() };
        let scheduler = Scheduler::start(house, jobs.iter().map(planned).collect()).unwrap();
        scheduler.open();
        scheduler
    }
}

pub async fn next_day(house: &House, scheduler: &Scheduler) {
    house.clock.advance(DAY_MS);
    scheduler.look().await;
}
