//! Which nodes write: their rows among `node_sessions`, and how another takes the place of one that died. The beats of their hearts are
//! rows of their own, and so is that a node will leave: whoever writes holds on to the session's, and no heart waits for a writer, nor
//! any writer for a heart.
//!
//! Every node that may own stock has a session from its start on; one of them is the *lead*, which runs the shop and gives the others
//! their shards. Always true: at most one session is the lead; a session's row is locked by every transaction of its writers; a session
//! is declared dead only by somebody who saw its beat unchanged for [`Timing::dead_after`] on his own clock, while he could write to
//! the database and read it at least every [`Timing::gap_max`]; and before that its writers' connections are ended, with whatever they
//! had left open. No clock of another machine is believed, and nobody is dead because nobody could read or write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::nodes::{Active, Looked, Neighbours, Peer};
use crate::clock::Clock;
use crate::persistence::StoreError;
use crate::persistence::journal::Shared;
use crate::persistence::sql::mysql::{self, Server};
use crate::persistence::sql::{self, Connection, Error, Trouble, is_duplicate, trouble};
use crate::telemetry;

/// Without a number two starts at once would take the same: the key says which of them was first.
const JOINS_MAX: usize = 16;

/// `active` of the lead; that of another session is its number below zero, and `null` once it has ended. What locks a row says so in
/// words that no key serves (`coalesce(active, 0) <> 0`): the server is to go by the number, and wait for nobody else's row.
const LEAD: &str = "select number, node_id, beat, address, leaving from node_sessions join node_beats using (number) \
    where active = 1";
const SESSIONS: &str = "select number, node_id, beat, address, leaving from node_sessions join node_beats using (number) \
    where active is not null order by number limit 256";
/// A database that reads and does not write makes every heart stand still: whoever looks writes first.
const LOOKED: &str = "update node_standbys set looks = looks + 1 where node_id = ?";
const STAND_BY: &str = "insert into node_standbys (node_id, looks, address, may_own) values (?, 1, ?, ?)";
const STANDBYS: &str = "select node_id, looks, address, may_own from node_standbys limit 256";
const HAS_GONE: &str = "delete from node_standbys where node_id = ? and looks = ?";
const I_STAND_BY_NO_MORE: &str = "delete from node_standbys where node_id = ?";
const NOR_STANDS_BY: &str =
    "delete from node_standbys where node_id = (select node_id from node_sessions where number = ?)";
const NEXT: &str = "select greatest((select coalesce(max(number), 0) from node_sessions), \
    (select coalesce(max(number), 0) from node_beats)) + 1";
/// Written before its session, each by itself: whoever stops in between leaves a heart without a session, and no lock.
const FIRST_BEAT: &str = "insert into node_beats (number, beat) values (?, 0)";
const JOIN: &str =
    "insert into node_sessions (number, node_id, active, started_at_ms, address) values (?, ?, ?, ?, ?)";
/// It may be the lead already, when the answer to this was lost.
const TAKE_THE_LEAD: &str =
    "update node_sessions set active = 1 where number = ? and coalesce(active, 0) in (?, 1)";
/// Both rows are changed, so both are locked: a heart that wants to beat meanwhile waits, and then finds that it is dead.
const DECLARE_DEAD: &str = "update node_sessions join node_beats using (number) set active = null, beat = beat + 1 \
    where number = ? and beat = ? and coalesce(active, 0) <> 0";
const LEAVING: &str = "update node_beats set leaving = 1 where number = ?";
const LEAVE: &str = "update node_sessions set active = null where number = ? and coalesce(active, 0) <> 0";
/// What was in the journal before places were counted there, or was restored.
const COUNT_PLACES: &str = "update journal_end set pos = (select coalesce(max(pos), 0) from journal) \
    where id = 1 and pos < (select coalesce(max(pos), 0) from journal)";

/// How long things take between nodes.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub beat_every: Duration,
    pub look_every: Duration,
    /// Whoever waits for news has one look at once, and then so often.
    pub look_again: Duration,
    /// A beat that was not seen to change for so long has stopped.
    pub dead_after: Duration,
    /// Whoever could not look for longer than this has seen nothing, and begins anew.
    pub gap_max: Duration,
    /// For so long after a beat was sent that was confirmed nobody can have seen the heart stand still for `dead_after`.
    pub lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            beat_every: Duration::from_millis(500),
            look_every: Duration::from_millis(500),
            look_again: Duration::from_millis(10),
            dead_after: Duration::from_millis(4_000),
            gap_max: Duration::from_millis(1_500),
            lease: Duration::from_millis(3_000),
        }
    }
}

/// A session as another node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: i64,
    node: Vec<u8>,
    beat: i64,
    address: Option<String>,
    /// It has said that it goes in a moment.
    leaving: bool,
}

/// What one node has seen of another's heart.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<Seen>,
    since_ns: Option<u64>,
    last_look_ns: Option<u64>,
}

impl Watch {
    /// Notes a look, at a time of our own steady clock; whether what was seen has stopped.
    pub(super) fn look(&mut self, seen: Seen, now_ns: u64, timing: &Timing) -> bool {
        let since = |then: u64| Duration::from_nanos(now_ns.saturating_sub(then));
        let gap = self.last_look_ns.replace(now_ns).is_none_or(|last| since(last) > timing.gap_max);
        if gap || self.seen.as_ref() != Some(&seen) {
            (self.seen, self.since_ns) = (Some(seen), Some(now_ns));
        }
        self.since_ns.is_some_and(|then| since(then) >= timing.dead_after)
    }

    pub(super) fn blind(&mut self) {
        *self = Watch::default();
    }
}

/// How whoever stands by looks at the database.
struct Sight {
    session: Connection,
    /// The last look showed nothing, and that was told.
    is_blind: bool,
}

impl Sight {
    fn is_back(&mut self) {
        if std::mem::take(&mut self.is_blind) {
            tracing::info!("the database answers again: this node sees who leads");
        }
    }
}

/// Who this process is to the others, on which server. Cheap to clone.
#[derive(Clone)]
pub struct Member {
    pub server: Server,
    pub clock: Clock,
    pub timing: Timing,
    pub neighbours: Arc<Neighbours>,
    /// Random, and anew for each try: who comes back after a death is somebody else.
    pub node: [u8; 16],
}

impl Member {
    pub fn new(server: &Server, clock: &Clock, timing: &Timing, neighbours: &Arc<Neighbours>) -> Member {
        let (server, clock, neighbours) = (server.clone(), clock.clone(), neighbours.clone());
        let node = clock.chance().to_be_bytes();
        Member { server, clock, timing: *timing, neighbours, node }
    }

    /// A session of this node's own, beside those of others; says its number. Whoever may own nothing stands by for as long as it is
    /// awaited.
    pub async fn join(&self) -> Result<i64, StoreError> {
        let mut sight = self.sight().await?;
        if !self.neighbours.may_own {
            self.stand_by(&mut sight, None).await?;
        }
        for _ in 0..JOINS_MAX {
            match self.take_place(&mut sight.session).await {
                Ok(number) => {
                    close(sight.session).await;
                    return Ok(number);
                }
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Fenced)
    }

    async fn take_place(&self, session: &mut Connection) -> Result<i64, Error> {
        sql::query(COUNT_PLACES).execute(&mut *session).await?;
        let number: i64 = sql::query_scalar(NEXT).fetch_one(&mut *session).await?;
        let joining = sql::query(JOIN).bind(number).bind(&self.node[..]).bind(-number);
        let joining = joining.bind(self.clock.now().0).bind(self.neighbours.address.as_deref());
        sql::query(FIRST_BEAT).bind(number).execute(&mut *session).await?;
        joining.execute(session).await?;
        Ok(number)
    }

    /// Waits until no other session is the lead, takes over from one that has stopped, and makes this one the lead. Nothing that the
    /// database says ends it: who stands by for days outlasts whatever happens there meanwhile.
    pub async fn lead(&self, number: i64) -> Result<(), StoreError> {
        let mut sight = self.sight().await?;
        loop {
            let died = self.stand_by(&mut sight, Some(number)).await?;
            match self.take_the_lead(&mut sight.session, number).await {
                Ok(true) => {
                    // The very first follows nobody.
                    if number > 1 {
                        telemetry::took_over(if died { "died" } else { "left" });
                    }
                    self.neighbours.active.send_replace(None);
                    close(sight.session).await;
                    return Ok(());
                }
                // Somebody has taken this node for dead.
                Ok(false) => return Err(StoreError::Fenced),
                Err(error) => {
                    self.neighbours.joined.store(false, Ordering::Release);
                    if is_duplicate(&error) {
                        continue;
                    }
                    // If it was taken after all, the next look says so.
                    self.is_blind(&mut sight, error).await?;
                    self.rest(&mut sight.session, false).await;
                }
            }
        }
    }

    /// Whoever is the lead stands by no more; that is written first. Whether this session has lived to be it.
    async fn take_the_lead(&self, session: &mut Connection, number: i64) -> Result<bool, Error> {
        sql::query(I_STAND_BY_NO_MORE).bind(&self.node[..]).execute(&mut *session).await?;
        sql::query(COUNT_PLACES).execute(&mut *session).await?;
        // From here on a row of ours may stand there.
        self.neighbours.joined.store(true, Ordering::Release);
        self.neighbours.has_led.store(true, Ordering::Release);
        let taken = sql::query(TAKE_THE_LEAD).bind(number).bind(-number).execute(session).await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Tells `neighbours` who leads, for as long as it is asked to, and becomes nobody.
    pub async fn follow(&self) -> Result<(), StoreError> {
        let mut sight = self.sight().await?;
        loop {
            match self.glance(&mut sight.session).await {
                Ok(_) => sight.is_back(),
                Err(error) => self.is_blind(&mut sight, error).await?,
            }
            self.rest(&mut sight.session, false).await;
        }
    }

    async fn sight(&self) -> Result<Sight, StoreError> {
        Ok(Sight { session: Connection::MySql(self.server.connect().await?), is_blind: false })
    }

    /// Nothing was seen, whatever the reason. It is told once, and the next look is had over a connection that is fit for it.
    async fn is_blind(&self, sight: &mut Sight, error: Error) -> Result<(), StoreError> {
        let trouble = trouble(&error);
        if trouble == Trouble::Fenced {
            return Err(error.into());
        }
        if !std::mem::replace(&mut sight.is_blind, true) {
            tracing::warn!(%error, "the database does not do what it is asked: this node sees nothing, and stands by");
        }
        // Somebody else's lock is no fault of the connection. Whatever else it is, as a server that only reads since another one
        // writes, may be better at the place that the address names by now.
        if trouble != Trouble::Conflict
            && let Ok(next) = self.server.connect().await
        {
            sight.session = Connection::MySql(next);
        }
        Ok(())
    }

    /// Returns once no session is the lead, or this one is it already, and this node may be; whether it has declared the last one dead.
    /// While the database is away, or somebody's lock is in the way, nothing is seen, and whoever stands by goes on doing so.
    async fn stand_by(&self, sight: &mut Sight, own: Option<i64>) -> Result<bool, StoreError> {
        let (mut watch, mut told, mut died) = (Watch::default(), None, false);
        loop {
            let mut soon = false;
            let has_stopped = match self.look(&mut sight.session).await {
                Ok(None) if self.neighbours.may_own => return Ok(died),
                Ok(None) => Ok(false),
                Ok(Some(other)) if own == Some(other.number) => return Ok(died),
                Ok(Some(other)) => {
                    soon = other.leaving;
                    if told.replace(other.number) != Some(other.number) {
                        tracing::info!(
                            session = other.number,
                            "another node is the lead; this one stands by, and takes over when it stops"
                        );
                    }
                    match watch.look(other.clone(), self.clock.nanos(), &self.timing) {
                        true if self.neighbours.may_own => {
                            take_over(&mut sight.session, &other).await.map(|sealed| {
                                died |= sealed;
                                true
                            })
                        }
                        _ => Ok(false),
                    }
                }
                Err(error) => Err(error),
            };
            match has_stopped {
                Ok(false) => sight.is_back(),
                // What could not be sealed yet has stopped all the same, as long as no look shows a beat.
                Ok(true) => {
                    sight.is_back();
                    continue;
                }
                Err(error) => {
                    watch.blind();
                    self.is_blind(sight, error).await?;
                }
            }
            self.rest(&mut sight.session, soon).await;
        }
    }

    /// Until the next look. When there will be news soon, or somebody waits for them, it is over once there are; to see that one only
    /// reads, so however many wait nothing is written for them, and nobody counts as dead.
    async fn rest(&self, session: &mut Connection, soon: bool) {
        let Timing { look_every, look_again, .. } = self.timing;
        let (began, known) = (self.clock.nanos(), self.neighbours.active.borrow().clone());
        loop {
            tokio::time::sleep(look_again.min(look_every)).await;
            let rested = Duration::from_nanos(self.clock.nanos().saturating_sub(began));
            let Some(left) = look_every.checked_sub(rested).filter(|left| !left.is_zero()) else { return };
            if !soon && tokio::time::timeout(left, self.neighbours.look.notified()).await.is_err() {
                return;
            }
            // What is wrong with the database the next look says.
            let Ok(now) = self.glance(session).await else { return };
            if now.as_ref().map(Seen::active) != known {
                return;
            }
        }
    }

    /// Who leads, for whoever only wants to ask him.
    async fn glance(&self, session: &mut Connection) -> Result<Option<Seen>, Error> {
        let found: Option<Found> = sql::query_as(LEAD).fetch_optional(session).await?;
        let seen = found.map(Seen::from);
        self.tell(seen.as_ref().map(Seen::active));
        Ok(seen)
    }

    /// The session of the lead, if there is one, as it is seen by somebody who can write.
    async fn look(&self, session: &mut Connection) -> Result<Option<Seen>, Error> {
        if sql::query(LOOKED).bind(&self.node[..]).execute(&mut *session).await?.rows_affected() == 0 {
            let standing = sql::query(STAND_BY).bind(&self.node[..]).bind(self.neighbours.address.as_deref());
            standing.bind(i64::from(self.neighbours.may_own)).execute(&mut *session).await?;
        }
        self.glance(session).await
    }

    fn tell(&self, active: Option<Active>) {
        self.neighbours.active.send_if_modified(|known| {
            let news = *known != active;
            *known = active;
            news
        });
    }
}

impl Seen {
    fn active(&self) -> Active {
        Active { session: self.number, address: self.address.clone() }
    }
}

/// A row of `node_sessions`.
type Found = (i64, Vec<u8>, i64, Option<String>, i64);

impl From<Found> for Seen {
    fn from((number, node, beat, address, leaving): Found) -> Seen {
        Seen { number, node, beat, address, leaving: leaving != 0 }
    }
}

/// Ends its writers, and then seals what it has written: whoever reads afterwards reads all of it. Whether it was sealed by this node.
pub(super) async fn take_over(session: &mut Connection, stopped: &Seen) -> Result<bool, Error> {
    let Connection::MySql(writer) = &mut *session else { return Err(Error::PoolClosed) };
    if !mysql::end_writers(writer, stopped.number).await? {
        tracing::warn!(
            session = stopped.number,
            "the writers of a node that has stopped could not be ended yet"
        );
        return Ok(false);
    }
    let sealed = sql::query(DECLARE_DEAD).bind(stopped.number).bind(stopped.beat).execute(session).await?;
    let sealed = sealed.rows_affected() > 0;
    if sealed {
        tracing::warn!(
            session = stopped.number,
            "a node has stopped: its session is ended, and others take over"
        );
    }
    Ok(sealed)
}

/// Ends a session that lives and is not to any more, as the lead whose server it is: its writers first, and then what they are allowed.
/// Whoever has written in between has written before it. Whether it was this that ended it. Who has been declared dead himself, and does
/// not know it yet, ends nobody's writers.
pub async fn end_session(server: &Server, number: i64) -> Result<bool, StoreError> {
    by_itself(server, async |connection| {
        let Connection::MySql(session) = &mut *connection else { return Err(Error::PoolClosed) };
        if !mysql::end_writers(session, number).await? {
            return Ok(false);
        }
        let ended = sql::query(LEAVE).bind(number).execute(connection).await?;
        Ok(ended.rows_affected() == 1)
    })
    .await
}

/// As a session that lives, [`take_over`].
pub(super) async fn take_over_from(server: &Server, stopped: &Seen) -> Result<bool, StoreError> {
    by_itself(server, async |connection| take_over(connection, stopped).await).await
}

/// A transaction over a connection of its own, which holds on to the session of the node whose server it is. If it does not come to its
/// end, the connection is ended at the server: it may be that nobody hears it any more, and it would keep its locks for hours.
pub(super) async fn by_itself<T>(
    server: &Server,
    work: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>,
) -> Result<T, StoreError> {
    let mut session = server.connect().await?;
    let name = session.name();
    let tried = async {
        mysql::begin(&mut session).await?;
        let mut connection = Connection::MySql(session);
        let done = work(&mut connection).await;
        let done = sql::end(&mut connection, done).await;
        close(connection).await;
        done
    };
    let done = tried.await;
    if done.is_err() && !mysql::end_lost(server, name).await {
        tracing::warn!(
            ?name,
            "a connection that was lost could not be ended yet: it may hold up others until the server misses it"
        );
    }
    Ok(done?)
}

/// Whether a node is at work, or was when it stopped and nobody has taken over since.
pub async fn is_occupied(server: &Server) -> Result<bool, StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    let sessions: Vec<Found> = sql::query_as(SESSIONS).fetch_all(&mut session).await?;
    close(session).await;
    Ok(!sessions.is_empty())
}

pub(super) async fn close(session: Connection) {
    if let Connection::MySql(session) = session {
        let _ = session.close().await;
    }
}

pub(super) async fn count_on(
    reader: &mut Connection,
    shared: &Shared,
    now_ns: u64,
) -> Result<Vec<Seen>, Error> {
    let rows: Vec<(Vec<u8>, i64, Option<String>, i64)> =
        sql::query_as(STANDBYS).fetch_all(&mut *reader).await?;
    let rows = rows.into_iter().map(|(node, looks, address, may_own)| Looked {
        node,
        looks,
        address,
        may_own: may_own != 0,
    });
    for gone in shared.roster.note(rows.collect(), now_ns) {
        sql::query(HAS_GONE).bind(gone.node).bind(gone.looks).execute(&mut *reader).await?;
    }
    let sessions: Vec<Found> = sql::query_as(SESSIONS).fetch_all(&mut *reader).await?;
    let seen: Vec<Seen> = sessions.into_iter().map(Seen::from).collect();
    let peers = seen.iter().map(|seen| Peer {
        session: seen.number,
        node: seen.node.clone(),
        address: seen.address.clone(),
        leaving: seen.leaving,
    });
    shared.roster.meet(peers.collect());
    Ok(seen)
}

/// Whoever stands by is told that the session ends in a moment, and looks more often.
pub async fn leaving(server: &Server, number: i64, shared: &Shared, clock: &Clock) -> Result<(), StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    // Somebody may have come since the last beat.
    count_on(&mut session, shared, clock.nanos()).await?;
    sql::query(LEAVING).bind(number).execute(&mut session).await?;
    close(session).await;
    Ok(())
}

/// Who has a session now.
pub async fn sessions(server: &Server, shared: &Shared, clock: &Clock) -> Result<Vec<Peer>, StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    count_on(&mut session, shared, clock.nanos()).await?;
    close(session).await;
    Ok(shared.roster.peers())
}

/// Which session is the lead.
pub async fn lead_of(server: &Server) -> Result<Option<i64>, StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    let lead: Option<Found> = sql::query_as(LEAD).fetch_optional(&mut session).await?;
    close(session).await;
    Ok(lead.map(|(number, ..)| number))
}

/// The session ends by its own will: the next node need not wait.
pub async fn leave(server: &Server, number: i64, shared: &Shared, clock: &Clock) -> Result<(), StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    if let Err(error) = count_on(&mut session, shared, clock.nanos()).await {
        tracing::debug!(%error, "who stands by could not be read");
    }
    sql::query(LEAVE).bind(number).execute(&mut session).await?;
    sql::query(NOR_STANDS_BY).bind(number).execute(&mut session).await?;
    close(session).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(beat: i64) -> Seen {
        Seen { number: 1, node: vec![1; 16], beat, address: None, leaving: false }
    }

    #[test]
    fn a_heart_has_stopped_when_it_was_seen_not_to_beat_for_long_enough() {
        let timing = Timing::default();
        let at = |ms: u64| 7 + ms * 1_000_000;
        let mut watch = Watch::default();
        for look in 0..8 {
            assert!(!watch.look(seen(7), at(look * 500), &timing));
        }
        assert!(watch.look(seen(7), at(4_000), &timing));
    }

    #[test]
    fn a_beat_a_restart_and_a_gap_begin_it_anew() {
        let timing = Timing::default();
        let at = |ms: u64| 7 + ms * 1_000_000;
        let other = Seen { node: vec![2; 16], ..seen(7) };
        for (what, gap) in [(seen(8), 500), (other, 500), (seen(7), 2_000)] {
            let mut watch = Watch::default();
            for look in 0..8 {
                assert!(!watch.look(seen(7), at(look * 500), &timing));
            }
            let then = 3_500 + gap;
            assert!(!watch.look(what.clone(), at(then), &timing), "{what:?}");
            for look in 1..8 {
                assert!(!watch.look(what.clone(), at(then + look * 500), &timing), "{what:?}");
            }
            assert!(watch.look(what.clone(), at(then + 4_000), &timing), "{what:?}");
        }
    }
}
