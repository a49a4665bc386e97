//! The heart of a node: it beats for as long as the node has a session, sees who else is there and whether their hearts beat, and at the
//! lead ends the sessions of those that have stopped.
//!
//! Always true: it waits for nothing but the database; and whoever counts as dead was seen with a beat that did not change, by a heart
//! that beat meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::membership::{Seen, Timing, Watch, close, count_on, take_over_from};
use crate::clock::Clock;
use crate::persistence::StoreError;
use crate::persistence::journal::{NotWritten, Shared};
use crate::persistence::sql::mysql::{self, Server, Session};
use crate::persistence::sql::{self, Connection};

const BEAT: &str = "update node_beats set beat = beat + 1 where number = ?";
/// Asked after the beat. Whoever declares it dead changes the beat too: either he has seen this one, or this sees that he was quicker.
const LIVES: &str = "select number from node_sessions where number = ? and active is not null";

/// Whose heart it is.
pub struct Heart {
    pub server: Server,
    pub number: i64,
    pub timing: Timing,
    pub clock: Clock,
    pub shared: Arc<Shared>,
}

/// Another node's heart.
#[derive(Default)]
struct Watched {
    watch: Watch,
    /// It has stopped, and its session is being ended, since then.
    ending: Option<(JoinHandle<()>, u64)>,
}

impl Watched {
    /// Whether somebody is at it. One that has heard nothing for so long may wait at a connection that is lost, and does not count.
    fn is_ending(&self, now_ns: u64, timing: &Timing) -> bool {
        self.ending.as_ref().is_some_and(|(ending, since_ns)| {
            let lasts = Duration::from_nanos(now_ns.saturating_sub(*since_ns));
            !ending.is_finished() && lasts < timing.dead_after
        })
    }
}

impl Heart {
    /// Beats until it is stopped, or another node has declared it dead: then the journal is fenced. The lead's looks after the others'
    /// as well.
    pub async fn beat(self, mut stop: tokio::sync::oneshot::Receiver<()>) {
        let mut session: Option<Session> = None;
        let mut watches: HashMap<i64, Watched> = HashMap::new();
        loop {
            let sent_ns = self.clock.nanos();
            // Over a connection that is heard no more it would learn long after everybody else that it is dead.
            let beating = beat_once(&self.server, &mut session, self.number);
            match mysql::within(self.timing.gap_max.as_millis() as u64, beating).await {
                Ok(true) => {
                    self.shared.beaten_ns.store(sent_ns, Ordering::Release);
                    let looking = look_around(&mut session, &self.shared, self.clock.nanos());
                    let seen = timeout(self.timing.gap_max, looking).await.unwrap_or_default();
                    self.look_after(&mut watches, seen);
                }
                Ok(false) => return self.shared.fence("another node has taken over"),
                // It is looked for again at the next beat. Without it nobody can take over either.
                Err(error) => {
                    tracing::warn!(%error, "the heart of this node did not beat: the database does not answer");
                    session = None;
                    watches.clear();
                    self.doubt_the_lease();
                }
            }
            tokio::select! {
                _ = &mut stop => break,
                () = tokio::time::sleep(self.timing.beat_every) => {}
            }
        }
    }

    /// Another node may have been told to go on by now. Whoever nobody asks for anything would not notice, and call himself ready.
    fn doubt_the_lease(&self) {
        let beaten_ns = self.shared.beaten_ns.load(Ordering::Acquire);
        if Duration::from_nanos(self.clock.nanos().saturating_sub(beaten_ns)) >= self.timing.lease {
            self.shared
                .refuse(NotWritten::Away, "the database has not answered this node's heart for too long");
            // Whoever writes finds out when it is there again.
            self.shared.inbox.nudge();
        }
    }

    /// Watches the others' hearts, and at the lead ends the sessions of those that have stopped, in tasks of their own: this heart waits
    /// for nothing. Whoever becomes the lead knows already for how long they have stood still; and whose session could not be ended has
    /// stopped all the same, as long as no look shows a beat.
    fn look_after(&self, watches: &mut HashMap<i64, Watched>, seen: Vec<Seen>) {
        let now_ns = self.clock.nanos();
        watches.retain(|number, _| seen.iter().any(|seen| seen.number == *number));
        for other in seen.into_iter().filter(|seen| seen.number != self.number) {
            let watched = watches.entry(other.number).or_default();
            let has_stopped = watched.watch.look(other.clone(), now_ns, &self.timing);
            let is_due = has_stopped && !watched.is_ending(now_ns, &self.timing);
            if !is_due || !self.shared.leads.load(Ordering::Acquire) {
                continue;
            }
            let (server, clock, shared) = (self.server.clone(), self.clock.clone(), self.shared.clone());
            let ending = tokio::spawn(async move {
                let ended = async {
                    let ended = take_over_from(&server, &other).await;
                    // Whoever waits for that one hears at once that it has gone.
                    let mut session = Connection::MySql(server.connect().await?);
                    let counted = count_on(&mut session, &shared, clock.nanos()).await;
                    close(session).await;
                    counted?;
                    ended
                };
                if let Err(error) = ended.await {
                    tracing::warn!(%error, session = other.number, "the session of a node that has stopped could not be ended yet");
                }
            });
            watched.ending = Some((ending, now_ns));
        }
    }
}

/// Whether the session still lives.
async fn beat_once(server: &Server, session: &mut Option<Session>, number: i64) -> Result<bool, StoreError> {
    let writer = match session.take() {
        Some(session) => session,
        None => server.connect().await?,
    };
    let mut writer = Connection::MySql(writer);
    sql::query(BEAT).bind(number).execute(&mut writer).await?;
    let lives: Option<i64> = sql::query_scalar(LIVES).bind(number).fetch_optional(&mut writer).await?;
    if let Connection::MySql(writer) = writer {
        *session = Some(writer);
    }
    Ok(lives.is_some())
}

/// Notes who is there. What cannot be read now is read at the next beat.
async fn look_around(session: &mut Option<Session>, shared: &Shared, now_ns: u64) -> Vec<Seen> {
    let Some(reader) = session.take() else { return Vec::new() };
    let mut reader = Connection::MySql(reader);
    let counted = count_on(&mut reader, shared, now_ns).await;
    match (reader, counted) {
        (Connection::MySql(reader), Ok(seen)) => {
            *session = Some(reader);
            seen
        }
        (_, Err(error)) => {
            tracing::debug!(%error, "who is there could not be read");
            Vec::new()
        }
        (_, Ok(seen)) => seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four seconds more would be four seconds in which nobody sells what it owned.
    #[tokio::test]
    async fn whose_session_could_not_be_ended_has_stopped_all_the_same() {
        let (timing, clock) = (Timing::default(), Clock::start());
        let timing = Timing { gap_max: 2 * timing.dead_after, ..timing };
        let shared = Shared::new(1, 1, &Arc::default(), None);
        shared.leads.store(true, Ordering::Release);
        // Nobody listens there.
        let server = Server::at("mysql://nobody@127.0.0.1:1/shop").unwrap();
        let heart = Heart { server, number: 1, timing, clock: clock.clone(), shared };
        let seen = || Seen::from((2, vec![2; 16], 7, None, 0));
        let mut watches = HashMap::from([(2, Watched::default())]);
        let long_ago = clock.nanos() - timing.dead_after.as_nanos() as u64;
        assert!(!watches.get_mut(&2).unwrap().watch.look(seen(), long_ago, &timing));
        for _ in 0..3 {
            heart.look_after(&mut watches, vec![seen()]);
            let (ending, since_ns) =
                watches.get_mut(&2).unwrap().ending.take().expect("its session is to be ended");
            assert!(since_ns > long_ago);
            ending.await.unwrap();
        }
        // One at a time.
        heart.look_after(&mut watches, vec![seen()]);
        let watched = watches.get_mut(&2).unwrap();
        let (now_ns, after) = (watched.ending.as_ref().unwrap().1, timing.dead_after.as_nanos() as u64);
        assert!(watched.is_ending(now_ns, &timing) && !watched.is_ending(now_ns + after, &timing));
        // A beat that moves begins it anew.
        watched.ending = None;
        heart.look_after(&mut watches, vec![Seen::from((2, vec![2; 16], 8, None, 0))]);
        assert!(watches[&2].ending.is_none());
    }
}
