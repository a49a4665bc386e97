//! `serve`: an app, and another one after it when the disk left doubt, or the flush died; until somebody says stop.
//!
//! Nobody who waited is told *failed* when nobody knows: they hear *unknown*, and the app that follows reads from the disk what
//! is true, so that the same key hears it too.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connections::take_all_files;
use super::front::NodeFront;
use super::{App, Ended, Entrance, Owning, breached};
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::domain::stock::Millis;
use crate::mail::Mailer;
use crate::persistence::breached::BreachedPasswords;
use crate::persistence::{StoreError, is_left_open};

/// More rebuilds than this in [`REBUILD_WINDOW_MS`] mean that it will not get better by trying again.
const REBUILDS_MAX: usize = 5;
const REBUILD_WINDOW_MS: i64 = 60_000;
/// A disk that fails is given a moment.
const BETWEEN_REBUILDS: Duration = Duration::from_millis(500);
/// And a database that is away is asked so often whether it is there again, for as long as it takes.
const BETWEEN_JOINS: Duration = Duration::from_secs(1);
/// So long whoever reads what is to be written back has before the next try, which waits for him itself, for some seconds.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How often whoever is to stop looks whether it has become the lead after all.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What a shell says of a process that a signal ended, so that scripts can tell.
const EXIT_BY_SECOND_SIGNAL: i32 = 130;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervised {
    Stopped,
    /// Too many rebuilds: only a person can help.
    GaveUp,
}

/// Runs the shop until it is told to stop, or cannot go on.
pub fn supervise(config: &Config) -> Result<Supervised> {
    take_all_files();
    rt::System::new().block_on(async {
        let (stop, clock) = (StopSignals::listen()?, Clock::start());
        // It stays open, whatever becomes of its name: no shop that follows is without it.
        let breached = breached(config)?;
        Mailer::check(&config.mail)?;
        let entrance = Entrance::of(config, &clock).await?;
        Supervisor { config, clock, breached, stop, rebuilds: VecDeque::new() }.run(entrance).await
    })
}

struct Supervisor<'c> {
    config: &'c Config,
    clock: Clock,
    breached: Option<BreachedPasswords>,
    stop: StopSignals,
    /// When it was tried again, of late.
    rebuilds: VecDeque<Millis>,
}

/// What opening a shop came to.
enum Opened {
    App(Box<App>),
    /// It was told to stop before that.
    Stopped,
    GaveUp,
}

impl Supervisor<'_> {
    /// One app after another behind one entrance.
    async fn run(mut self, entrance: Entrance) -> Result<Supervised> {
        let mut entrance = Some(entrance);
        while let Some(opening) = &entrance {
            let app = match self.open(opening).await? {
                Opened::App(app) => app,
                Opened::Stopped => {
                    self.leave(entrance.and_then(Entrance::front)).await;
                    return Ok(Supervised::Stopped);
                }
                Opened::GaveUp => return Ok(give_up(self.config)),
            };
            if self.rebuilds.is_empty() || self.is_one_of_many() {
                announce(self.config, &app);
            } else {
                tracing::info!(addr = %app.addr(), "recovered: everything acknowledged was read back from the disk");
            }
            let mut front = None;
            let leaving = || {
                // A socket of the shop's own that nobody accepts from is closed at once.
                front = entrance.take().and_then(Entrance::front);
            };
            match app.run_until(self.stop.first(), leaving).await {
                Ended::Stopped => {
                    self.leave(front).await;
                    return Ok(Supervised::Stopped);
                }
                Ended::JournalLost | Ended::TablesLost | Ended::FlushLost => {
                    if !self.may_rebuild() {
                        return Ok(give_up(self.config));
                    }
                }
            }
        }
        Ok(Supervised::Stopped)
    }

    /// Whoever may own nothing stands by for as long as he lives, and is told to stop meanwhile; a shop in files opens at once, or not.
    fn is_one_of_many(&self) -> bool {
        self.config.store.database_url.is_some()
    }

    /// Joins the others, if there are to be any, and opens the shop; again and again, if that has worked before.
    async fn open(&mut self, entrance: &Entrance) -> Result<Opened> {
        loop {
            let owning = match self.joined(entrance).await {
                Some(Ok(owning)) => owning,
                Some(Err(error)) if self.rebuilds.is_empty() => return Err(error),
                Some(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "this node cannot join the others yet");
                    let again = before_joining_again(&mut self.rebuilds, self.clock.now(), &error);
                    let Some(pause) = again else { return Ok(Opened::GaveUp) };
                    if self.is_stopped_within(pause).await {
                        return Ok(Opened::Stopped);
                    }
                    continue;
                }
                None => return Ok(Opened::Stopped),
            };
            match self.built(entrance, owning.as_ref()).await {
                Some(Ok(app)) => return Ok(Opened::App(Box::new(app))),
                Some(Err(error)) => {
                    if let Some(ended) = self.not_built(entrance, owning, error).await? {
                        return Ok(ended);
                    }
                }
                None => return Ok(Opened::Stopped),
            }
        }
    }

    /// `None`: it was told to stop.
    async fn joined(&mut self, entrance: &Entrance) -> Option<Result<Option<Owning>>> {
        let is_one_of_many = self.is_one_of_many();
        tokio::select! {
            joined = entrance.join(self.config) => Some(joined),
            () = self.stop.first(), if is_one_of_many => None,
        }
    }

    /// `None`: it was told to stop. Whoever stands by for another node may do so for days.
    async fn built(&mut self, entrance: &Entrance, owning: Option<&Owning>) -> Option<Result<App>> {
        let is_one_of_many = self.is_one_of_many();
        let mut building = pin!(App::build_behind(self.config, entrance, owning, self.breached.clone()));
        tokio::select! {
            built = &mut building => return Some(built),
            () = self.stop.first(), if is_one_of_many => {}
        }
        // Whoever has become the lead meanwhile hands over in order.
        let became = loop {
            // Somebody else may have been faster, and then it would stand by as before.
            if !entrance.has_joined() {
                break None;
            }
            if let Ok(built) = rt::time::timeout(LOOK_AGAIN, &mut building).await {
                break built.ok();
            }
        };
        match (became, owning) {
            (Some(app), _) => app.stop().await,
            (None, Some(owning)) => owning.clone().leave().await,
            (None, None) => {}
        }
        None
    }

    /// `None`: it is tried again. What a configuration forbids it would forbid again, and so would a store that could not be opened at
    /// the first try; but of a node that has led nobody knows that.
    async fn not_built(
        &mut self,
        entrance: &Entrance,
        owning: Option<Owning>,
        error: anyhow::Error,
    ) -> Result<Option<Opened>> {
        // He says nothing about the disk, and reads for as long as it takes. But nobody waits for what this process itself has left open.
        if is_still_read(&error) && !is_left_open() {
            tracing::warn!(error = format!("{error:#}"), "the shop opens when nobody reads there any more");
            return Ok(self.is_stopped_within(BETWEEN_LOOKS).await.then_some(Opened::Stopped));
        }
        if owning.is_none() && self.rebuilds.is_empty() {
            return Err(error);
        }
        tracing::error!(error = format!("{error:#}"), "the store cannot be read back yet");
        if let Some(owning) = owning {
            // What it owns is left to others, and it joins them anew.
            let was_lost = owning.is_lost();
            owning.abandon().await;
            // Whoever has led may have been in the midst of it when the database went, and nobody else may be left.
            if self.rebuilds.is_empty() && !was_lost && !entrance.has_led() {
                return Err(error);
            }
        }
        if !self.may_rebuild() {
            return Ok(Some(Opened::GaveUp));
        }
        Ok(self.is_stopped_within(BETWEEN_REBUILDS).await.then_some(Opened::Stopped))
    }

    /// Rests for so long, or until it is told to stop; whether it was.
    async fn is_stopped_within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.first() => true,
            () = rt::time::sleep(pause) => false,
        }
    }

    fn may_rebuild(&mut self) -> bool {
        may_rebuild(&mut self.rebuilds, self.clock.now())
    }

    async fn leave(&self, front: Option<Arc<NodeFront>>) {
        if let Some(front) = front {
            front.leave(self.config, &self.clock).await;
        }
    }
}

fn give_up(config: &Config) -> Supervised {
    if config.store.database_url.is_some() {
        tracing::error!(
            "this node could not take its place again and again within a minute; giving up. Nothing acknowledged is lost. Look at the \
             database, and at what was said above, then start again"
        );
        return Supervised::GaveUp;
    }
    tracing::error!(
        data_dir = %config.store.data_dir.display(),
        "the disk or the flush failed again and again within a minute; giving up. Nothing acknowledged is lost. Look at what was said \
         above and at the disk (`dmesg`, SMART, free space), then start again; `stockade audit` says whether all adds up",
    );
    Supervised::GaveUp
}

/// Does one thing that waits, for commands that are no server.
pub fn blocking<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime")?.block_on(work)
}

fn may_rebuild(rebuilds: &mut VecDeque<Millis>, now: Millis) -> bool {
    rebuilds.push_back(now);
    while rebuilds.front().is_some_and(|at| at.plus(REBUILD_WINDOW_MS) < now) {
        rebuilds.pop_front();
    }
    rebuilds.len() <= REBUILDS_MAX
}

/// How long it is waited before a node that has joined once tries to do so again; `None`: it gives up. A database that is away says
/// nothing about this node, and takes as long as it takes.
fn before_joining_again(
    rebuilds: &mut VecDeque<Millis>,
    now: Millis,
    error: &anyhow::Error,
) -> Option<Duration> {
    if is_caused_by(error, StoreError::is_away) {
        return Some(BETWEEN_JOINS);
    }
    may_rebuild(rebuilds, now).then_some(BETWEEN_REBUILDS)
}

/// Whether the files are only kept from being written back by somebody who reads them.
fn is_still_read(error: &anyhow::Error) -> bool {
    is_caused_by(error, |error| matches!(error, StoreError::StillRead { .. }))
}

/// Whether something that a store has said is among the causes, and is such.
fn is_caused_by(error: &anyhow::Error, is_such: impl Fn(&StoreError) -> bool) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<StoreError>()).any(is_such)
}

fn announce(config: &Config, app: &App) {
    tracing::info!(
        addr = %app.addr(),
        ops_addr = app.ops_addr().map(tracing::field::display),
        data_dir = %config.store.data_dir.display(),
        workers = config.http.workers,
        "the shop is open",
    );
    if config.profile == Profile::Development {
        match app.greeting() {
            // `println!` would panic where nobody reads.
            Ok(text) => drop(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())),
            Err(error) => tracing::warn!(%error, "no tokens to try it with"),
        }
    }
}

/// SIGTERM from an orchestrator, SIGINT from a keyboard.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Comes back at the first; a second one ends the process on the spot.
    async fn first(&mut self) {
        self.next().await;
        if let Ok(mut again) = StopSignals::listen() {
            rt::spawn(async move {
                again.next().await;
                tracing::warn!("a second signal: leaving at once; the next start recovers from the journal");
                std::process::exit(EXIT_BY_SECOND_SIGNAL);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::journal::OpenError;

    #[test]
    fn whoever_reads_what_is_to_be_written_back_is_told_from_a_disk_that_fails() {
        let opening = |why: OpenError| anyhow::Error::from(why).context("this shop");
        assert!(is_still_read(&opening(StoreError::StillRead { path: "journal.db".into() }.into())));
        let unclean = StoreError::Unclean { path: "journal.db".into(), why: "a disk that fails".to_owned() };
        assert!(!is_still_read(&opening(unclean.into())));
        assert!(!is_still_read(&opening(StoreError::Closed.into())));
    }

    #[test]
    fn a_database_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
        let mut rebuilds = VecDeque::from([Millis(0)]);
        let joining = |why: StoreError| anyhow::Error::from(OpenError::Store(why)).context("this node");
        let mut tried = |second: i64, why: StoreError| {
            let pause = before_joining_again(&mut rebuilds, Millis(second * 1_000), &joining(why));
            (pause, rebuilds.len())
        };
        for second in 1..50 {
            assert_eq!(tried(second, StoreError::InDoubt), (Some(BETWEEN_JOINS), 1));
        }
        for second in 50..54 {
            assert_eq!(tried(second, StoreError::Fenced).0, Some(BETWEEN_REBUILDS));
        }
        assert_eq!(tried(54, StoreError::Fenced).0, None);
        assert_eq!(tried(55, StoreError::InDoubt).0, Some(BETWEEN_JOINS), "what is away is no refusal");
    }

    #[test]
    fn five_rebuilds_in_a_minute_are_enough() {
        let mut rebuilds = VecDeque::new();
        let tries: Vec<bool> =
            (0..7).map(|second| may_rebuild(&mut rebuilds, Millis(second * 1_000))).collect();
        assert_eq!(tries, [true, true, true, true, true, false, false]);
        assert!(may_rebuild(&mut rebuilds, Millis(600_000)));
    }
}
