//! What is done without anybody asking: at a start everybody is brought under the current master key, and at night what has lapsed
//! is cleared away: accounts that nobody proved, links and sessions.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::session::SESSION_LIFE_MS;
use super::{CHORES_MAX, REFRESH_IDLE_MS, Unable, Users, commit};
use crate::actors::scheduler::{Due, Job, NotRun, Tally};
use crate::actors::turns::Loop;
use crate::domain::stock::Millis;
use crate::persistence::user::User;
use crate::persistence::user::UserError;

/// When that is, on the calendar's clocks: few people are there then.
pub const CLEARING_AT: &str = "30 3 * * *";
/// An account that nobody proved may be cleared away after this, once no link is good any more that would prove it. Its first link
/// is good for half of it; who asks for another then still can.
const UNPROVED_MS: i64 = 48 * 3_600 * 1_000;
/// A link that has expired is recognised for so long, and answered with a new letter.
const EXPIRED_LINK_MS: i64 = 24 * 3_600 * 1_000;

/// When whoever could not go on tries again.
const AGAIN_IN: Duration = Duration::from_secs(60);

/// The job that clears away.
pub struct Clearing(pub Users);

impl Job for Clearing {
    fn name(&self) -> &'static str {
        "clearing"
    }

    fn run(&self, due: Due) -> BoxFuture<'_, Result<Tally, NotRun>> {
        async move {
            if due.dry {
                let lapsed = self.0.lapsed(due.now).await.map_err(|why| NotRun(why.to_string()))?;
                return Ok(Tally { seen: lapsed, moved: lapsed, ..Tally::default() });
            }
            Ok(self.0.clear_away(due.now).await)
        }
        .boxed()
    }
}

impl Users {
    /// Brings everybody under the current master key, so that the former ones can go.
    pub fn rekeying(&self) -> Loop {
        let users = self.clone();
        Loop::start(async move {
            while let Err(error) = users.rekey_all().await {
                tracing::warn!(%error, "not everybody is under the current master key yet: in a minute once more");
                sleep(AGAIN_IN).await;
            }
        })
    }

    /// Clears away the accounts and sessions that have lapsed by then, with links and revocations. What cannot be cleared is told,
    /// and keeps nothing else from it.
    pub async fn clear_away(&self, now: Millis) -> Tally {
        let mut tally = Tally::default();
        while self.clear_accounts(now, &mut tally).await >= CHORES_MAX {}
        loop {
            let cleared = self.clear_sessions(now).await;
            let cleared = cleared.unwrap_or_else(|why| {
                tally.fail(format!("sessions: {why}"));
                0
            });
            (tally.seen, tally.moved) = (tally.seen + u64::from(cleared), tally.moved + u64::from(cleared));
            if cleared < CHORES_MAX {
                break;
            }
        }
        if let Err(why) = self.clear_links(now).await {
            tally.fail(format!("links and revocations: {why}"));
        }
        // Whatever the day has erased, letters that were sent among it.
        self.0.tables.forget_soon();
        tally
    }

    async fn clear_links(&self, now: Millis) -> Result<(), Unable> {
        let mut writing = self.0.tables.begin().await?;
        writing.forget_tokens(now.plus(-EXPIRED_LINK_MS)).await?;
        writing.forget_revocations(now).await?;
        commit(writing).await
    }

    /// How many accounts and sessions that would be; no further than one page of each.
    async fn lapsed(&self, now: Millis) -> Result<u64, Unable> {
        let accounts = self.0.tables.users().lapsed(now.plus(-UNPROVED_MS), now, CHORES_MAX).await?;
        let (idle, old) = (now.plus(-REFRESH_IDLE_MS), now.plus(-SESSION_LIFE_MS));
        let sessions = self.0.tables.sessions().lapsed(idle, old, CHORES_MAX).await?;
        Ok((accounts.len() + sessions.len()) as u64)
    }

    /// A page of accounts; how many have gone.
    async fn clear_accounts(&self, now: Millis, tally: &mut Tally) -> u32 {
        let lapsed = match self.0.tables.users().lapsed(now.plus(-UNPROVED_MS), now, CHORES_MAX).await {
            Ok(lapsed) => lapsed,
            Err(why) => {
                tally.fail(format!("accounts: {why}"));
                return 0;
            }
        };
        tally.seen += lapsed.len() as u64;
        let mut legible = Vec::with_capacity(lapsed.len());
        for user in lapsed {
            match user {
                Ok(user) => legible.push(user),
                Err(why) => tally.fail(format!("an account cannot be read: {why}")),
            }
        }
        match self.remove_all(&legible, now).await {
            Ok(removed) => {
                tally.moved += u64::from(removed);
                removed
            }
            Err(why) => {
                tally.fail(format!("accounts: {why}"));
                0
            }
        }
    }

    async fn remove_all(&self, lapsed: &[User], now: Millis) -> Result<u32, Unable> {
        if lapsed.is_empty() {
            return Ok(0);
        }
        let mut writing = self.0.tables.begin().await?;
        for user in lapsed {
            match writing.remove_user(user, now).await {
                // Proved in the last moment, or sent another link.
                Ok(()) | Err(UserError::VersionConflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        commit(writing).await?;
        Ok(lapsed.len() as u32)
    }

    async fn clear_sessions(&self, now: Millis) -> Result<u32, Unable> {
        let (idle, old) = (now.plus(-REFRESH_IDLE_MS), now.plus(-SESSION_LIFE_MS));
        let lapsed = self.0.tables.sessions().lapsed(idle, old, CHORES_MAX).await?;
        if lapsed.is_empty() {
            return Ok(0);
        }
        let mut writing = self.0.tables.begin().await?;
        for session in &lapsed {
            writing.end_session(session.id).await?;
        }
        commit(writing).await?;
        Ok(lapsed.len() as u32)
    }
}
