//! Leaving: for good by one's own wish, or for a while by an administrator's.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::{OFFLINE_LIFE_HOURS_MAX, Unable, Users, commit, sign_out};
use crate::clock::Clock;
use crate::domain::account::{AccountMove, AccountState};
use crate::domain::id::{OrderId, UserId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::persistence::link::Purpose;
use crate::persistence::money::Write;
use crate::persistence::revocation::Revocation;
use crate::persistence::user::User;
use crate::persistence::{Tables, Writing};

/// Orders that are looked through at a time.
const PAGE: u32 = 100;

impl Users {
    /// Erases a person. What sealed their data is destroyed with it; orders keep their amounts under an id that means nobody. A backup
    /// of before has both, the key and what it sealed, until it is removed, and whoever restores it brings the person back.
    pub async fn erase(&self, user: UserId, password: SecretString) -> Result<(), Unable> {
        let confirmed = self.confirm(user, &password).await?;
        let (mut writing, user) = self.begin_by(confirmed, &password).await?;
        let now = self.0.clock.now();
        let (id, state) = (user.id, user.state.after(AccountMove::Delete).ok_or(Unable::NoUser)?);
        let revocation = blank(&mut writing, user, state, now).await?;
        // Whatever is heard of the commit: a look at the WAL that finds nothing costs little.
        self.0.tables.forget_soon();
        let committed = commit(writing).await;
        #[cfg(test)]
        let committed = self.heard(committed);
        if let Err(why) = committed
            && !self.has_left(id).await
        {
            return Err(why);
        }
        self.refuse_from_now(&[revocation]);
        self.let_go(id).await;
        Ok(())
    }

    /// Whether somebody is gone of whose deletion nobody has heard what became of it. By the writer: whatever a lost connection had left
    /// open is ended by then.
    async fn has_left(&self, user: UserId) -> bool {
        let Ok(mut writing) = self.0.tables.begin().await else { return false };
        let row = writing.user(user).await;
        matches!(&row, Ok(Some(row)) if row.state == AccountState::Deleted)
    }

    /// What a commit came to, unless the test wants its word to be lost.
    #[cfg(test)]
    fn heard(&self, committed: Result<(), Unable>) -> Result<(), Unable> {
        let is_lost = self.0.loses_word.swap(false, std::sync::atomic::Ordering::AcqRel);
        committed.and(if is_lost { Err(Unable::Unknown) } else { Ok(()) })
    }

    /// Gives back what they still hold. What cannot be given back now lapses by its own deadline.
    async fn let_go(&self, buyer: UserId) {
        let mut before = None;
        loop {
            let held = Some(OrderStatus::PendingPayment);
            let Ok(page) = self.0.orders.list(buyer, held, before, PAGE).await else { return };
            for order in &page {
                if let Err(error) = self.0.orders.cancel(buyer, order.id, 0).await {
                    tracing::info!(order = %order.id, %error, "{} is left to lapse", order.id);
                }
            }
            before = page.last().map(|order| order.id);
            if page.len() < PAGE as usize {
                return;
            }
        }
    }

    /// Keeps somebody out: every session ends, and none begins. Tokens that were signed offline end as well, also those of an id
    /// without a row, and of an account that cannot be kept out, for it is not in yet, or has left.
    pub async fn suspend(&self, user: UserId, by: UserId) -> Result<Option<AccountState>, Unable> {
        self.switch(user, AccountMove::Suspend, Deed::Suspended, by).await
    }

    /// Lets somebody in again. What was ended stays ended; of an id without a row nothing else was.
    pub async fn reinstate(&self, user: UserId, by: UserId) -> Result<Option<AccountState>, Unable> {
        self.switch(user, AccountMove::Reinstate, Deed::Reinstated, by).await
    }

    /// Says how the account stands now, if there is one.
    async fn switch(
        &self,
        id: UserId,
        what: AccountMove,
        deed: Deed,
        by: UserId,
    ) -> Result<Option<AccountState>, Unable> {
        let now = self.0.clock.now();
        let mut writing = self.0.tables.begin().await?;
        let mut row = writing.user(id).await?;
        if let Some(user) = &mut row {
            user.state = match user.state.after(what) {
                Some(next) => next,
                None if what == AccountMove::Suspend => user.state,
                None => return Err(Unable::IllegalMove),
            };
            user.version += 1;
            user.updated_at = now;
        }
        let mut ended = Vec::new();
        if what == AccountMove::Suspend {
            let (revocation, signed_out_at) = sign_out(&mut writing, id, now, offline_until(now)).await?;
            if let Some(user) = &mut row {
                user.signed_out_at = signed_out_at;
            }
            ended.push(revocation);
        }
        if let Some(user) = &row {
            writing.update_user(user).await?;
        }
        let state = row.map(|user| user.state);
        let record = Record::new(deed, now).by(by).on(id);
        let record = match state {
            Some(AccountState::Verified | AccountState::Suspended) => record,
            nobody => record.word("account", nobody.map_or("none", AccountState::as_str)),
        };
        writing.record(&record).await?;
        commit(writing).await?;
        self.refuse_from_now(&ended);
        Ok(state)
    }
}

/// By then no token is good that was signed offline until now.
fn offline_until(now: Millis) -> Millis {
    now.plus(OFFLINE_LIFE_HOURS_MAX * 3_600 * 1_000)
}

/// Erases people once more who had left a shop, in one that was restored from a backup of before and that nobody serves; says how many of
/// them were there. What they hold lapses by its own deadline. Tokens that were signed offline end for all of them.
pub async fn erase_again(tables: &Tables, clock: &Clock, users: &[UserId]) -> Result<u64, Unable> {
    let mut erased = 0;
    for user in users {
        let now = clock.now();
        let mut writing = tables.begin().await?;
        let row = writing.user(*user).await?;
        let state = row.as_ref().and_then(|row| row.state.after(AccountMove::Delete));
        if let (Some(row), Some(state)) = (row, state) {
            blank(&mut writing, row, state, now).await?;
            erased += 1;
        } else {
            sign_out(&mut writing, *user, now, offline_until(now)).await?;
        }
        commit(writing).await?;
        forget_reasons(tables, *user, now).await?;
    }
    Ok(erased)
}

/// Forgets why somebody has sent lines back.
async fn forget_reasons(tables: &Tables, buyer: UserId, now: Millis) -> Result<(), Unable> {
    let mut before = None;
    loop {
        let page = tables.orders().list(buyer, None, before, PAGE).await?;
        before = page.last().map(|order| order.id);
        let orders: Vec<OrderId> = page.iter().map(|order| order.id).collect();
        let rows = tables.deliveries().of_orders(&orders).await?;
        let told: BTreeSet<OrderId> =
            rows.iter().filter(|row| row.reason.is_some()).map(|row| row.order).collect();
        let writes: Vec<Write> = told.into_iter().map(Write::ForgetReasons).collect();
        if !writes.is_empty() {
            tables.money().write_group(&writes, now).await?;
        }
        if page.len() < PAGE as usize {
            return Ok(());
        }
    }
}

/// What is left of a person is an id.
async fn blank(
    writing: &mut Writing<'_>,
    user: User,
    state: AccountState,
    now: Millis,
) -> Result<Revocation, Unable> {
    if let Some(email) = &user.email {
        writing.free_email(email, user.id).await?;
    }
    if let Some(phone) = &user.phone {
        writing.free_phone(phone, user.id).await?;
    }
    for purpose in [Purpose::Verify, Purpose::Reset, Purpose::ChangeEmail] {
        writing.void_tokens(user.id, purpose).await?;
    }
    let (revocation, signed_out_at) = sign_out(writing, user.id, now, offline_until(now)).await?;
    let blank = User {
        state,
        email: None,
        phone: None,
        wrapped_key: None,
        personal: None,
        password: None,
        signed_out_at,
        version: user.version + 1,
        updated_at: now,
        ..user
    };
    writing.update_user(&blank).await?;
    writing.forget_letters(blank.id).await?;
    writing.forget_shopper(blank.id).await?;
    writing.record(&Record::new(Deed::AccountDeleted, now).by(blank.id).on(blank.id)).await?;
    Ok(revocation)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::actors::stock::Answer;
    use crate::actors::stock::testing::{one_for, product, settings};
    use crate::app::App;
    use crate::config::Config;
    use crate::domain::stock::{Command, Reserve};
    use crate::domain::user::PasswordPolicy;
    use crate::seed::make_admin;

    /// The word of a commit can be lost, and the commit stands.
    #[actix_web::test]
    async fn what_follows_a_deletion_follows_though_nobody_heard_of_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::development(dir.path());
        let password = SecretString::from("four foxes fly far");
        let policy = PasswordPolicy { chars_min: config.people.password_chars_min };
        let (new, email) = (policy.accept(password.clone(), None).unwrap(), "mina@example.com");
        let mina = make_admin(&config, &Clock::start(), email.parse().unwrap(), new).await.unwrap();
        let app = App::build(&config).await.unwrap();
        let (users, owners) = (app.users(), app.directory());
        let create = Command::Create { settings: settings(), stock: 10 };
        assert!(owners.ask(product(1), create).await.is_ok());
        let reserve = Reserve { buyer: mina, ..one_for(1, product(1), true) };
        let held = owners.reserve(product(1), reserve, None).await;
        assert!(matches!(held, Ok(Answer::Reserved(_))), "{held:?}");

        users.0.loses_word.store(true, Ordering::Release);
        assert_eq!(users.erase(mina, password.clone()).await, Ok(()));
        assert_eq!(owners.view(product(1)).await.unwrap().counts.held, 0);
        assert_eq!(users.erase(mina, password).await, Err(Unable::WrongPassword), "they are gone");
        app.stop().await;
    }
}
