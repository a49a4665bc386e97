//! What is cleared away: accounts that nobody proved, links and sessions that have lapsed.

use std::time::Duration;

use actix_web::rt;
use tokio::task::JoinHandle;

use super::session::SESSION_LIFE_MS;
use super::{CHORES_MAX, REFRESH_IDLE_MS, Unable, Users, commit};
use crate::domain::stock::Millis;
use crate::persistence::user::UserError;

/// How often somebody looks.
const EVERY: Duration = Duration::from_secs(600);
/// An account that nobody proved is gone after this. Its first link is good for half of it; who asks for another then
/// still can.
const UNPROVED_MS: i64 = 48 * 3_600 * 1_000;
/// A link that has expired is recognised for so long, and answered with a new letter.
const EXPIRED_LINK_MS: i64 = 24 * 3_600 * 1_000;

/// The loop that clears away. Ends with its app.
pub struct Chores(JoinHandle<()>);

impl Chores {
    pub fn start(users: Users) -> Chores {
        Chores(rt::spawn(async move {
            if let Err(error) = users.rekey_all().await {
                tracing::warn!(%error, "not everybody is under the current master key; the next start tries again");
            }
            loop {
                rt::time::sleep(EVERY).await;
                if let Err(error) = users.clear_away().await {
                    tracing::warn!(%error, "what has lapsed could not be cleared away; trying again later");
                }
            }
        }))
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Users {
    /// Clears away what has lapsed by now.
    pub async fn clear_away(&self) -> Result<(), Unable> {
        let now = self.0.clock.now();
        while self.clear_accounts(now).await? || self.clear_sessions(now).await? {}
        let mut writing = self.0.tables.begin().await?;
        writing.forget_tokens(now.plus(-EXPIRED_LINK_MS)).await?;
        writing.forget_revocations(now).await?;
        commit(writing).await
    }

    async fn clear_accounts(&self, now: Millis) -> Result<bool, Unable> {
        let lapsed = self.0.tables.users().lapsed(now.plus(-UNPROVED_MS), CHORES_MAX).await?;
        if lapsed.is_empty() {
            return Ok(false);
        }
        let mut writing = self.0.tables.begin().await?;
        for user in &lapsed {
            match writing.remove_user(user).await {
                // Proved in the last moment.
                Ok(()) | Err(UserError::VersionConflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        commit(writing).await?;
        Ok(lapsed.len() == CHORES_MAX as usize)
    }

    async fn clear_sessions(&self, now: Millis) -> Result<bool, Unable> {
        let (idle, old) = (now.plus(-REFRESH_IDLE_MS), now.plus(-SESSION_LIFE_MS));
        let lapsed = self.0.tables.sessions().lapsed(idle, old, CHORES_MAX).await?;
        if lapsed.is_empty() {
            return Ok(false);
        }
        let mut writing = self.0.tables.begin().await?;
        for session in &lapsed {
            writing.end_session(session.id).await?;
        }
        commit(writing).await?;
        Ok(lapsed.len() == CHORES_MAX as usize)
    }
}
