//! All that is kept about one person, put together for that person.

use super::{Personal, Unable, Users, recover};
use crate::domain::cart::Cart;
use crate::domain::id::UserId;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::Email;
use crate::domain::wish::Wish;
use crate::persistence::link::{OneTimeToken, Purpose};
use crate::persistence::session::Session;
use crate::persistence::trail::Entry;
use crate::persistence::user::User;

/// Entries of the trail in one export, at most: some ten years of a log-in a day.
const TRAIL_MAX: usize = 5_000;

/// What the tables of people hold about somebody. Their orders stand in the shop's.
pub struct Kept {
    pub user: User,
    pub personal: Personal,
    /// An address that is not proved yet.
    pub new_email: Option<Email>,
    /// Newest first, like the trail.
    pub sessions: Vec<Session>,
    pub trail: Vec<Entry>,
    /// Or there are older ones than these.
    pub trail_is_whole: bool,
    /// Newest first.
    pub wishes: Vec<Wish>,
    pub cart: Cart,
}

impl Users {
    /// Everything about somebody. That it was asked for stands in the trail before it is read.
    pub async fn export(&self, user: UserId) -> Result<Kept, Unable> {
        // The link first: an address that is proved in this moment stands there, or is theirs by then.
        let link = self.0.tables.users().token_of(user, Purpose::ChangeEmail).await?;
        let (user, personal) = self.find(user).await?;
        let record = Record::new(Deed::DataExported, self.0.clock.now()).by(user.id).on(user.id);
        self.0.tables.trail().append(&record).await?;
        let new_email = self.new_email_in(link, &user)?;
        let sessions = self.sessions(user.id).await?;
        let (trail, trail_is_whole) = self.0.tables.trail().newest_about(user.id, TRAIL_MAX).await?;
        let wishes = self.0.tables.wishes().of_user(user.id).await?;
        let cart = self.0.tables.carts().of_user(user.id).await?;
        Ok(Kept { user, personal, new_email, sessions, trail, trail_is_whole, wishes, cart })
    }

    fn new_email_in(&self, link: Option<OneTimeToken>, user: &User) -> Result<Option<Email>, Unable> {
        let Some(sealed) = link.and_then(|link| link.sealed) else { return Ok(None) };
        let plain = self.0.vault.open(&self.key_of(user)?, &recover::new_email(user.id), &sealed)?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| Unable::Internal)
    }
}
