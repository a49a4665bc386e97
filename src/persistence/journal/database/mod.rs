//! The journal's home in a database of MySQL's, for many nodes: each writes what its own products do, and another takes its place when
//! it stops.
//!
//! A group is a transaction (`groups`). Who writes, and from when on no more, is `membership`'s; what each owns is `shards`'. The places
//! of all nodes' entries follow each other in the order in which they were committed, so whoever reads in order of place reads in order
//! of time. Always true: the first entry of a shard's owner is written after the last one of the owner before it was.

mod groups;
mod heart;
mod membership;
mod nodes;
mod shards;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub use membership::{Member, Timing, end_session, is_occupied, lead_of, sessions};
pub use nodes::{Active, Neighbours, Peer, Roster, Standby};
pub use shards::{Owned, all as all_shards, give};

use super::format;
use super::snapshot::{Progress, Saving};
use super::{DatabaseConfig, Health, NotWritten, OpenError, Shared};
use crate::clock::Clock;
use crate::domain::stock::Epoch;
use crate::persistence::sql::mysql::{self, Server};
use crate::persistence::sql::{self, Connection};
use crate::persistence::{StoreError, migrations};
use groups::Groups;

/// How often the keeper looks around while there is no snapshot to be saved.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the opening found and made.
pub struct Found {
    pub epoch: Epoch,
    pub groups: Groups,
    /// For whatever else this node writes.
    pub server: Server,
    pub member: Member,
}

/// Brings the database up to date, joins the nodes that write, and leaves a thread that keeps it so. The receiver hears the end.
pub async fn start(
    config: DatabaseConfig,
    shared: Arc<Shared>,
) -> Result<(Found, oneshot::Receiver<()>), OpenError> {
    let server = Server::at(&config.url)?;
    let mut session = server.connect().await.map_err(StoreError::from)?;
    mysql::check(&mut session).await?;
    session.agrees_with(&config.clock).await?;
    mysql::migrate(&mut session, &migrations::on_mysql()).await?;
    let mut joining = Connection::MySql(session);
    if config.neighbours.may_own {
        // Nodes of the version before that run already look no more; what it means for them stands in docs/upgrading.md.
        format::raise(&mut joining).await?;
    } else {
        // It writes nothing there.
        format::check(&mut joining).await?;
    }
    membership::close(joining).await;
    let member = membership::Member::new(&server, &config.clock, &config.timing, &config.neighbours);
    let node = member.join().await?;
    let server = server.of_node(node);
    let mut looking = Connection::MySql(server.connect().await.map_err(StoreError::from)?);
    let last_pos: i64 =
        sql::query_scalar(groups::END).fetch_one(&mut looking).await.map_err(StoreError::from)?;
    shared.furthest.store(last_pos, Ordering::Release);
    let groups = Groups::new(server.clone(), node, shared.furthest.clone()).map_err(StoreError::Thread)?;
    shared.stats.pos.store(last_pos, Ordering::Release);
    let (end, ended) = oneshot::channel();
    // It has just joined.
    shared.beaten_ns.store(config.clock.nanos(), Ordering::Release);
    let keeper = Keeper {
        server: server.clone(),
        node,
        timing: config.timing,
        clock: config.clock.clone(),
        neighbours: config.neighbours.clone(),
        shared,
    };
    let keep = move || {
        keeper.work(looking);
        let _ = end.send(());
    };
    std::thread::Builder::new().name("stockade-keeper".to_owned()).spawn(keep).map_err(StoreError::Thread)?;
    let epoch = Epoch(node.unsigned_abs());
    Ok((Found { epoch, groups, server, member }, ended))
}

/// A node that will leave says so, and how long it is to wait until the others have heard.
pub async fn leaving(
    server: &Server,
    epoch: Epoch,
    timing: &Timing,
    shared: &Shared,
    clock: &Clock,
) -> Result<Duration, StoreError> {
    membership::leaving(server, epoch.0.cast_signed(), shared, clock).await?;
    let nobody = shared.roster.seen(clock.nanos()).is_empty();
    Ok(if nobody { Duration::ZERO } else { timing.look_every + timing.look_again })
}

/// By how much a clock is ahead of the server's; below zero it is behind.
pub async fn ahead_ms(server: &Server, clock: &Clock) -> Result<i64, StoreError> {
    let mut session = server.connect().await?;
    let ahead_ms = session.ahead_ms(clock).await?;
    session.close().await?;
    Ok(ahead_ms)
}

/// Tells `neighbours` who leads for as long as it is awaited, without a wish to do so.
pub async fn follow(config: &DatabaseConfig) -> Result<(), StoreError> {
    let server = Server::at(&config.url)?;
    membership::Member::new(&server, &config.clock, &config.timing, &config.neighbours).follow().await
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Beats, stores snapshots, and leaves at the end.
struct Keeper {
    server: Server,
    node: i64,
    timing: Timing,
    clock: Clock,
    neighbours: Arc<Neighbours>,
    shared: Arc<Shared>,
}

impl Keeper {
    fn work(&self, mut writer: Connection) {
        let (stop, stopped) = oneshot::channel();
        let started = self.start_beating(stopped).and_then(|beating| Ok((beating, runtime()?)));
        let (beating, runtime) = match started {
            Ok(started) => started,
            Err(error) => return self.shared.fence(&error.to_string()),
        };
        loop {
            let finish = self.shared.archive.wait(LOOK_EVERY);
            while let Some(saving) = self.shared.archive.snapshot() {
                runtime.block_on(self.save(&mut writer, saving));
            }
            if finish {
                break;
            }
        }
        let _ = stop.send(());
        let _ = beating.join();
        runtime.block_on(self.leave(writer));
        let follows = |standby: &Standby| standby.may_own;
        let followed = self.shared.roster.seen(self.clock.nanos()).iter().any(follows);
        self.neighbours.followed.store(followed, Ordering::Release);
        self.neighbours.joined.store(false, Ordering::Release);
    }

    /// On a thread of its own: the heart must not wait for a snapshot.
    fn start_beating(&self, stopped: oneshot::Receiver<()>) -> std::io::Result<JoinHandle<()>> {
        let runtime = runtime()?;
        let heart = heart::Heart {
            server: self.server.clone(),
            number: self.node,
            timing: self.timing,
            clock: self.clock.clone(),
            shared: Arc::clone(&self.shared),
        };
        let beat = move || runtime.block_on(heart.beat(stopped));
        std::thread::Builder::new().name("stockade-beat".to_owned()).spawn(beat)
    }

    async fn leave(&self, writer: Connection) {
        if let Connection::MySql(writer) = writer {
            let _ = writer.close().await;
        }
        if let Err(error) = membership::leave(&self.server, self.node, &self.shared, &self.clock).await {
            tracing::warn!(%error, "this node could not say that it leaves: the next one waits until it counts as dead");
        }
    }

    /// What cannot be saved is not lost: the journal holds everything.
    async fn save(&self, writer: &mut Connection, mut saving: Box<Saving>) {
        loop {
            if self.shared.health() == Health::Fenced {
                return saving.give_up(NotWritten::Fenced);
            }
            match saving.slice(writer).await {
                Ok(Progress::More(rest)) => saving = rest,
                Ok(Progress::Done) => return,
                Err((saving, error)) => {
                    tracing::warn!(%error, "a snapshot could not be saved; the journal still holds everything");
                    saving.give_up(NotWritten::Failed);
                    if let Ok(next) = self.server.connect().await {
                        *writer = Connection::MySql(next);
                    }
                    return;
                }
            }
        }
    }
}
