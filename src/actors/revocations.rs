//! Whose access tokens are refused before they expire: a set in memory, small or empty, asked at every request.
//!
//! The truth is a table. What this node revokes it knows at once; what another node revoked it reads within
//! [`POLL_EVERY`], and at once where Redis carries word of it. Always true: asking touches no database, and while nothing is revoked it is one load of a number.
//! Where the table could not be read for [`KNOWN_FOR`] nobody knows any more whom others have sent away, and no token is believed until it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::rt;
use dashmap::{DashMap, Entry};
use tokio::sync::Notify;

use super::turns::{Loop, turn};
use crate::clock::Clock;
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;
use crate::persistence::StoreError;
use crate::persistence::revocation::{Revocation, RevocationReader, Subject};

/// How old what is known about other nodes may be.
pub const POLL_EVERY: Duration = Duration::from_secs(2);
/// After so long without having read the table: what another node has ended is refused here by then.
pub const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Between two looks: whoever hears of a thousand log-outs reads them together.
const LOOKS_APART: Duration = Duration::from_millis(50);
/// How much earlier than the last look the next one begins: clocks of nodes differ, and a transaction takes a while.
const OVERLAP_MS: i64 = 60_000;

/// The sessions and users whose tokens are refused. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Never less than what the two tables hold.
    entries: AtomicUsize,
    /// Until when each is remembered.
    sessions: DashMap<SessionId, Millis>,
    /// Up to which beginning a user's sessions are dead, and until when that is remembered.
    users: DashMap<UserId, (Millis, Millis)>,
    /// When what is known is too old, on the clock that nobody sets; 0: no table is followed.
    known_until_ns: AtomicU64,
    /// This node has written into the table.
    written: Notify,
    /// Another one says that it has.
    heard: Notify,
}

impl Revocations {
    /// Must a token of this session of this user be refused?
    #[inline]
    pub fn cover(&self, user: UserId, session: SessionId) -> bool {
        self.0.entries.load(Ordering::Acquire) != 0 && self.look_up(user, session)
    }

    fn look_up(&self, user: UserId, session: SessionId) -> bool {
        self.0.sessions.contains_key(&session) || self.have_ended(user, session.made_at())
    }

    /// Has everything of this user been ended that had begun by then? What no token can outlive is forgotten.
    pub fn have_ended(&self, user: UserId, begun: Millis) -> bool {
        self.0.users.get(&user).is_some_and(|entry| begun <= entry.0)
    }

    /// Is it too long ago that the table was read? Then somebody may have been sent away of whom nobody here knows.
    #[inline]
    pub fn are_too_old(&self, now_ns: u64) -> bool {
        let until_ns = self.0.known_until_ns.load(Ordering::Acquire);
        until_ns != 0 && now_ns >= until_ns
    }

    /// All that the table held then is known.
    pub fn are_known_of(&self, read_ns: u64) {
        let known_for_ns = u64::try_from(KNOWN_FOR.as_nanos()).unwrap_or(u64::MAX);
        self.0.known_until_ns.store(read_ns.saturating_add(known_for_ns), Ordering::Release);
    }

    /// Refuses from now on.
    pub fn note(&self, revocation: &Revocation) {
        let Inner { entries, sessions, users, .. } = &*self.0;
        entries.fetch_add(1, Ordering::AcqRel);
        let was_there = match revocation.subject {
            Subject::Session(session) => sessions.insert(session, revocation.until).is_some(),
            Subject::User(user, epoch) => match users.entry(user) {
                Entry::Vacant(place) => {
                    place.insert((epoch, revocation.until));
                    false
                }
                Entry::Occupied(mut place) => {
                    let (known, until) = *place.get();
                    place.insert((known.max(epoch), until.max(revocation.until)));
                    true
                }
            },
        };
        if was_there {
            entries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// What this node revoked is in the table by now: other nodes may look.
    pub fn tell(&self) {
        self.0.written.notify_one();
    }

    /// Waits until this node has written something that others should look at.
    pub async fn told(&self) {
        self.0.written.notified().await;
    }

    /// Somebody says that there is something new in the table: it is read now.
    pub fn look(&self) {
        self.0.heard.notify_one();
    }

    /// Forgets whatever no token can outlive.
    pub fn forget(&self, now: Millis) {
        let Inner { entries, sessions, users, .. } = &*self.0;
        let mut gone = 0;
        sessions.retain(|_, until| keep(*until > now, &mut gone));
        users.retain(|_, (_, until)| keep(*until > now, &mut gone));
        entries.fetch_sub(gone, Ordering::AcqRel);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what was revoked before this start, and then every other second what others have revoked.
    pub async fn follow(&self, reader: RevocationReader, clock: Clock) -> Result<Loop, StoreError> {
        let mut since = Millis(0);
        self.catch_up(&reader, &mut since, &clock).await?;
        let revocations = self.clone();
        Ok(Loop::start(async move {
            loop {
                // Whichever comes first: it is time, or somebody says that there is something.
                let _ = rt::time::timeout(POLL_EVERY - LOOKS_APART, revocations.0.heard.notified()).await;
                let caught_up =
                    turn("the reader of revocations", revocations.catch_up(&reader, &mut since, &clock));
                if let Some(Err(error)) = caught_up.await {
                    tracing::warn!(%error, "what other nodes revoked could not be read; trying again");
                }
                rt::time::sleep(LOOKS_APART).await;
            }
        }))
    }

    async fn catch_up(
        &self,
        reader: &RevocationReader,
        since: &mut Millis,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let (now, read_ns) = (clock.now(), clock.nanos());
        for revocation in reader.since(*since, now).await? {
            self.note(&revocation);
        }
        self.are_known_of(read_ns);
        self.forget(now);
        *since = now.plus(-OVERLAP_MS);
        Ok(())
    }
}

fn keep(it_counts: bool, gone: &mut usize) -> bool {
    *gone += usize::from(!it_counts);
    it_counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn user(number: u128) -> UserId {
        UserId::new(Millis(1), number)
    }

    fn session(at: i64) -> SessionId {
        SessionId::new(NOW.plus(at), 7)
    }

    #[test]
    fn what_was_not_read_for_ten_seconds_is_too_old_until_it_is_read() {
        let at = |seconds: u64| 7 + seconds * 1_000_000_000;
        let revocations = Revocations::default();
        assert!(!revocations.are_too_old(u64::MAX), "nothing is followed");
        revocations.are_known_of(at(0));
        assert!(!revocations.are_too_old(at(10) - 1) && revocations.are_too_old(at(10)));
        assert!(revocations.clone().are_too_old(at(60)));
        revocations.are_known_of(at(60));
        assert!(!revocations.are_too_old(at(69)));
    }

    fn noted(subject: Subject) -> Revocations {
        let revocations = Revocations::default();
        revocations.note(&Revocation { subject, until: NOW.plus(1_000) });
        revocations
    }

    #[test]
    fn a_session_that_ended_is_refused_and_its_neighbours_are_not() {
        let revocations = noted(Subject::Session(session(0)));
        assert!(revocations.cover(user(1), session(0)));
        assert!(!revocations.cover(user(1), session(1)));
    }

    #[test]
    fn everywhere_means_what_began_before_and_a_new_log_in_counts() {
        let revocations = noted(Subject::User(user(1), NOW));
        assert!(revocations.cover(user(1), session(-5)) && revocations.cover(user(1), session(0)));
        assert!(!revocations.cover(user(1), session(1)));
        assert!(!revocations.cover(user(2), session(-5)));
        assert!(revocations.have_ended(user(1), NOW) && !revocations.have_ended(user(1), NOW.plus(1)));
        assert!(!revocations.have_ended(user(2), NOW));
        // Word of an older one may come later.
        revocations.note(&Revocation { subject: Subject::User(user(1), NOW.plus(-9)), until: NOW });
        assert!(revocations.cover(user(1), session(0)));
    }

    #[test]
    fn it_is_empty_again_when_the_tokens_are_dead() {
        let revocations = noted(Subject::User(user(1), NOW));
        for _ in 0..3 {
            revocations.note(&Revocation { subject: Subject::Session(session(0)), until: NOW.plus(1_000) });
        }
        assert_eq!(revocations.len(), 2);
        revocations.forget(NOW.plus(999));
        assert_eq!(revocations.len(), 2);
        revocations.forget(NOW.plus(1_000));
        assert!(revocations.is_empty() && !revocations.cover(user(1), session(0)));
    }
}
