//! The heart of a node: it beats for as long as the node has a session, sees who else is there and whether their hearts beat, and at the
//! lead ends the sessions of those that have stopped.
//!
//! Always true: it waits for nothing but the database; and whoever counts as dead was seen with a beat that did not change, by a heart
//! that beat meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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

impl Heart {
    /// Beats until it is stopped, or another node has declared it dead: then the journal is fenced. The lead's looks after the others'
    /// as well.
    pub async fn beat(self, mut stop: tokio::sync::oneshot::Receiver<()>) {
        let mut session: Option<Session> = None;
        let mut watches: HashMap<i64, Watch> = HashMap::new();
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
    /// for nothing. Whoever becomes the lead knows already for how long they have stood still.
    fn look_after(&self, watches: &mut HashMap<i64, Watch>, seen: Vec<Seen>) {
        let now_ns = self.clock.nanos();
        watches.retain(|number, _| seen.iter().any(|seen| seen.number == *number));
        for other in seen.into_iter().filter(|seen| seen.number != self.number) {
            let watch = watches.entry(other.number).or_default();
            let has_stopped = watch.look(other.clone(), now_ns, &self.timing);
            if !has_stopped || !self.shared.leads.load(Ordering::Acquire) {
                continue;
            }
            watch.blind();
            let (server, clock, shared) = (self.server.clone(), self.clock.clone(), self.shared.clone());
            tokio::spawn(async move {
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
