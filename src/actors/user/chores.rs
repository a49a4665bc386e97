//! What is done without anybody asking: at a start everybody is brought under the current master key; every few minutes accounts are
//! taken away that nobody proved in time; and at night whatever else has lapsed, sessions and links, and accounts once more.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::letter::VERIFY_MS;
use super::session::SESSION_LIFE_MS;
use super::{CHORES_MAX, REFRESH_IDLE_MS, Unable, Users, commit};
use crate::actors::scheduler::{Due, Job, NotRun, Tally};
use crate::actors::turns::{Loop, turn};
use crate::domain::id::UserId;
use crate::domain::stock::Millis;
use crate::persistence::StoreError;
use crate::persistence::user::{Lapsed, User, UserError};

/// When that is, on the calendar's clocks: few people are there then.
pub const CLEARING_AT: &str = "30 3 * * *";
/// How often somebody looks for accounts that have lapsed: none is there for much longer than that.
const LAPSED_EVERY: Duration = Duration::from_secs(5 * 60);
/// Accounts that go in one transaction: whoever signs up, logs in or orders to another address waits for it …
const GOING_MAX: usize = 20;
/// … and comes before the next one.
const GOING_PAUSE: Duration = Duration::from_millis(50);
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

    /// Accounts lapse a day after their last links: looks for them again and again, beginning at once.
    pub fn lapsing(&self) -> Loop {
        let users = self.clone();
        Loop::start(async move {
            loop {
                let now = users.0.clock.now();
                let lapsed = turn("the look for accounts that have lapsed", users.let_lapse(now)).await;
                if let Some(Tally { failed: 1.., problems, .. }) = lapsed {
                    tracing::warn!(?problems, "accounts that have lapsed are left: trying again later");
                }
                sleep(LAPSED_EVERY).await;
            }
        })
    }

    /// Takes away the accounts that nobody has proved and whose last link has expired so long ago that it brings no other. With the row goes the person's key;
    /// links and letters that wait go with it, and sessions there are none. Whoever is proving one at this moment was first, or finds
    /// neither link nor account.
    pub async fn let_lapse(&self, now: Millis) -> Tally {
        let mut tally = Tally::default();
        if let Err(why) = self.remove_lapsed(now, &mut tally).await {
            tally.fail(format!("accounts: {why}"));
        }
        if tally.moved > 0 {
            self.0.tables.forget_soon();
            tracing::info!("{} accounts have lapsed that nobody has proved", tally.moved);
        }
        tally
    }

    /// Clears away the accounts and sessions that have lapsed by then, with links and revocations. What cannot be cleared is told,
    /// and keeps nothing else from it.
    pub async fn clear_away(&self, now: Millis) -> Tally {
        let mut tally = self.let_lapse(now).await;
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
        writing.forget_tokens(now.plus(-EXPIRED_LINK_MS), now).await?;
        writing.forget_revocations(now).await?;
        commit(writing).await
    }

    /// How many accounts and sessions that would be; no further than one page of each.
    async fn lapsed(&self, now: Millis) -> Result<u64, Unable> {
        let accounts = self.lapsed_accounts(now, None).await?;
        let (idle, old) = (now.plus(-REFRESH_IDLE_MS), now.plus(-SESSION_LIFE_MS));
        let sessions = self.0.tables.sessions().lapsed(idle, old, CHORES_MAX).await?;
        Ok((accounts.len() + sessions.len()) as u64)
    }

    /// A page of accounts that have lapsed, behind a place. Of one that is younger than a link lives none has expired.
    async fn lapsed_accounts(
        &self,
        now: Millis,
        after: Option<(Millis, UserId)>,
    ) -> Result<Vec<Lapsed>, StoreError> {
        let expired = now.plus(-EXPIRED_LINK_MS);
        self.0.tables.users().lapsed(expired.plus(-VERIFY_MS), expired, after, CHORES_MAX).await
    }

    async fn remove_lapsed(&self, now: Millis, tally: &mut Tally) -> Result<(), Unable> {
        let mut after = None;
        loop {
            let page = self.lapsed_accounts(now, after).await?;
            after = page.last().map(|lapsed| lapsed.place);
            let is_last = page.len() < CHORES_MAX as usize;
            tally.seen += page.len() as u64;
            let mut legible = Vec::with_capacity(page.len());
            for lapsed in page {
                match lapsed.user {
                    Ok(user) => legible.push(user),
                    Err(why) => tally.fail(format!("an account cannot be read: {why}")),
                }
            }
            for few in legible.chunks(GOING_MAX) {
                tally.moved += self.remove_all(few, now).await?;
                sleep(GOING_PAUSE).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// How many have gone.
    async fn remove_all(&self, lapsed: &[User], now: Millis) -> Result<u64, Unable> {
        let mut gone = 0;
        let mut writing = self.0.tables.begin().await?;
        for user in lapsed {
            match writing.remove_user(user, now.plus(-EXPIRED_LINK_MS)).await {
                Ok(()) => gone += 1,
                // Proved in the last moment, or sent another link.
                Err(UserError::VersionConflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        commit(writing).await?;
        Ok(gone)
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
