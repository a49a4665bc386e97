//! Which node of many is the one that writes: its row among `node_sessions`, the beat of its heart, and how another takes over.
//!
//! Always true: at most one session is active, and its row is locked by every transaction of its writers; a session is declared dead
//! only by somebody who saw its beat unchanged for [`Timing::dead_after`] on his own clock, while he could write to the database and
//! read it at least every [`Timing::gap_max`]; and before that its writers' connections are ended, with whatever they had left
//! open. No clock of another machine is believed, and nobody is dead because nobody could read or write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::nodes::{Active, Looked, Neighbours};
use crate::clock::Clock;
use crate::persistence::StoreError;
use crate::persistence::journal::Shared;
use crate::persistence::sql::mysql::{self, Server, Session};
use crate::persistence::sql::{self, Connection, Error, Trouble, is_duplicate, trouble};
use crate::telemetry;

/// Without a number two starts at once would take the same: the key says which of them was first.
const JOINS_MAX: usize = 16;

const ACTIVE: &str = "select number, node_id, beat, address, leaving from node_sessions where active = 1";
/// A database that reads and does not write makes every heart stand still: whoever looks writes first.
const LOOKED: &str = "update node_standbys set looks = looks + 1 where node_id = ?";
const STAND_BY: &str = "insert into node_standbys (node_id, looks, address, may_own) values (?, 1, ?, ?)";
const STANDBYS: &str = "select node_id, looks, address, may_own from node_standbys limit 256";
const HAS_GONE: &str = "delete from node_standbys where node_id = ? and looks = ?";
const I_STAND_BY_NO_MORE: &str = "delete from node_standbys where node_id = ?";
const NEXT: &str = "select coalesce(max(number), 0) + 1 from node_sessions";
const JOIN: &str = "insert into node_sessions (number, node_id, active, beat, started_at_ms, address) values (?, ?, 1, 0, ?, ?)";
const BEAT: &str = "update node_sessions set beat = beat + 1 where number = ? and active = 1";
const DECLARE_DEAD: &str =
    "update node_sessions set active = null where number = ? and beat = ? and active = 1";
const LEAVING: &str = "update node_sessions set leaving = 1 where number = ? and active = 1";
const LEAVE: &str = "update node_sessions set active = null where number = ? and active = 1";

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
            beat_every: Duration::from_millis(1_000),
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
struct Seen {
    number: i64,
    node: Vec<u8>,
    beat: i64,
    address: Option<String>,
    /// It has said that it goes in a moment.
    leaving: bool,
}

/// What one node has seen of another's heart.
#[derive(Debug, Default)]
struct Watch {
    seen: Option<Seen>,
    since_ns: Option<u64>,
    last_look_ns: Option<u64>,
}

impl Watch {
    /// Notes a look, at a time of our own steady clock; whether what was seen has stopped.
    fn look(&mut self, seen: Seen, now_ns: u64, timing: &Timing) -> bool {
        let since = |then: u64| Duration::from_nanos(now_ns.saturating_sub(then));
        let gap = self.last_look_ns.replace(now_ns).is_none_or(|last| since(last) > timing.gap_max);
        if gap || self.seen.as_ref() != Some(&seen) {
            (self.seen, self.since_ns) = (Some(seen), Some(now_ns));
        }
        self.since_ns.is_some_and(|then| since(then) >= timing.dead_after)
    }

    fn blind(&mut self) {
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
            tracing::info!("the database answers again: this node sees who is active");
        }
    }
}

/// Who this process is to the others, on which server.
pub struct Member<'m> {
    pub server: &'m Server,
    pub clock: &'m Clock,
    pub timing: &'m Timing,
    pub neighbours: &'m Neighbours,
    /// Random, and anew for each try: who comes back after a death is somebody else.
    pub node: [u8; 16],
}

impl<'m> Member<'m> {
    pub fn new(
        server: &'m Server,
        clock: &'m Clock,
        timing: &'m Timing,
        neighbours: &'m Neighbours,
    ) -> Member<'m> {
        Member { server, clock, timing, neighbours, node: clock.chance().to_be_bytes() }
    }

    /// Waits until no other session is active, takes over from one that has stopped, and becomes the active one. Says its number. Once
    /// there was a connection nothing that the database says ends it: who stands by for days outlasts whatever happens there meanwhile.
    pub async fn join(&self) -> Result<i64, StoreError> {
        let (mut sight, mut overtaken) = (self.sight().await?, 0);
        while overtaken < JOINS_MAX {
            let died = self.stand_by(&mut sight).await?;
            match self.take_place(&mut sight.session).await {
                Ok(number) => {
                    // The very first follows nobody.
                    if number > 1 {
                        telemetry::took_over(if died { "died" } else { "left" });
                    }
                    self.neighbours.active.send_replace(None);
                    close(sight.session).await;
                    return Ok(number);
                }
                Err(error) => {
                    self.neighbours.joined.store(false, Ordering::Release);
                    if is_duplicate(&error) {
                        overtaken += 1;
                        continue;
                    }
                    // If it is taken after all, and nobody has heard of it, no heart beats there: it is taken over from.
                    self.is_blind(&mut sight, error).await?;
                    self.rest(&mut sight.session, false).await;
                }
            }
        }
        Err(StoreError::Fenced)
    }

    /// The place of the active session. Whoever has it stands by no more; that is written first, because from then on a heart beats.
    async fn take_place(&self, session: &mut Connection) -> Result<i64, Error> {
        sql::query(I_STAND_BY_NO_MORE).bind(&self.node[..]).execute(&mut *session).await?;
        let number: i64 = sql::query_scalar(NEXT).fetch_one(&mut *session).await?;
        // From here on a row of ours may stand there.
        self.neighbours.joined.store(true, Ordering::Release);
        let joining = sql::query(JOIN).bind(number).bind(&self.node[..]).bind(self.clock.now().0);
        joining.bind(self.neighbours.address.as_deref()).execute(session).await?;
        Ok(number)
    }

    /// Tells `neighbours` who is active, for as long as it is asked to, and becomes nobody.
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

    /// Returns once no session is active, and this one may be; whether it has declared the last one dead. While the database is away, or somebody's lock is in the way, nothing is
    /// seen, and whoever stands by goes on doing so.
    async fn stand_by(&self, sight: &mut Sight) -> Result<bool, StoreError> {
        let (mut watch, mut told, mut died) = (Watch::default(), None, false);
        loop {
            let mut soon = false;
            let has_stopped = match self.look(&mut sight.session).await {
                Ok(None) if self.neighbours.may_own => return Ok(died),
                Ok(None) => Ok(false),
                Ok(Some(other)) => {
                    soon = other.leaving;
                    if told.replace(other.number) != Some(other.number) {
                        tracing::info!(
                            session = other.number,
                            "another node is active; this one stands by, and takes over when it stops"
                        );
                    }
                    match watch.look(other.clone(), self.clock.nanos(), self.timing) {
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
                Ok(true) => {
                    sight.is_back();
                    watch.blind();
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
        let Timing { look_every, look_again, .. } = *self.timing;
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

    /// Who is active, for whoever only wants to ask him.
    async fn glance(&self, session: &mut Connection) -> Result<Option<Seen>, Error> {
        let found: Option<Found> = sql::query_as(ACTIVE).fetch_optional(session).await?;
        let seen = found.map(Seen::from);
        self.tell(seen.as_ref().map(Seen::active));
        Ok(seen)
    }

    /// The session that is active, if one is, as it is seen by somebody who can write.
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
async fn take_over(session: &mut Connection, stopped: &Seen) -> Result<bool, Error> {
    let Connection::MySql(writer) = &mut *session else { return Err(Error::PoolClosed) };
    if !mysql::end_writers(writer, stopped.number).await? {
        tracing::warn!(
            session = stopped.number,
            "the writers of a node that has stopped could not be ended yet"
        );
        return Ok(false);
    }
    let sealed = sql::query(DECLARE_DEAD).bind(stopped.number).bind(stopped.beat).execute(session).await?;
    let sealed = sealed.rows_affected() == 1;
    if sealed {
        tracing::warn!(session = stopped.number, "a node has stopped: this one takes over");
    }
    Ok(sealed)
}

/// Whether a node is at work, or was when it stopped and nobody has taken over since.
pub async fn is_occupied(server: &Server) -> Result<bool, StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    let active: Option<Found> = sql::query_as(ACTIVE).fetch_optional(&mut session).await?;
    close(session).await;
    Ok(active.is_some())
}

async fn close(session: Connection) {
    if let Connection::MySql(session) = session {
        let _ = session.close().await;
    }
}

/// Beats until it is stopped, or another node has taken over: then the journal is fenced.
pub async fn beat(
    server: Server,
    number: i64,
    timing: Timing,
    clock: Clock,
    shared: Arc<Shared>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let mut session: Option<Session> = None;
    loop {
        let sent_ns = clock.nanos();
        match beat_once(&server, &mut session, number).await {
            Ok(true) => {
                shared.beaten_ns.store(sent_ns, Ordering::Release);
                count(&mut session, &shared, clock.nanos()).await;
            }
            Ok(false) => return shared.fence("another node has taken over"),
            // It is looked for again at the next beat. Without it nobody can take over either.
            Err(error) => {
                tracing::warn!(%error, "the heart of this node did not beat: the database does not answer");
                session = None;
            }
        }
        tokio::select! {
            _ = &mut stop => break,
            () = tokio::time::sleep(timing.beat_every) => {}
        }
    }
}

/// Whether the session is still active.
async fn beat_once(server: &Server, session: &mut Option<Session>, number: i64) -> Result<bool, StoreError> {
    let writer = match session.take() {
        Some(session) => session,
        None => server.connect().await?,
    };
    let mut writer = Connection::MySql(writer);
    let beaten = sql::query(BEAT).bind(number).execute(&mut writer).await?;
    if let Connection::MySql(writer) = writer {
        *session = Some(writer);
    }
    Ok(beaten.rows_affected() == 1)
}

/// Notes who stands by. What cannot be read now is read at the next beat.
async fn count(session: &mut Option<Session>, shared: &Shared, now_ns: u64) {
    let Some(reader) = session.take() else { return };
    let mut reader = Connection::MySql(reader);
    let counted = count_on(&mut reader, shared, now_ns).await;
    match (reader, counted) {
        (Connection::MySql(reader), Ok(())) => *session = Some(reader),
        (_, Err(error)) => tracing::debug!(%error, "who stands by could not be read"),
        (_, Ok(())) => {}
    }
}

async fn count_on(reader: &mut Connection, shared: &Shared, now_ns: u64) -> Result<(), Error> {
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
    Ok(())
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

/// The session ends by its own will: the next node need not wait.
pub async fn leave(server: &Server, number: i64, shared: &Shared, clock: &Clock) -> Result<(), StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    if let Err(error) = count_on(&mut session, shared, clock.nanos()).await {
        tracing::debug!(%error, "who stands by could not be read");
    }
    sql::query(LEAVE).bind(number).execute(&mut session).await?;
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
