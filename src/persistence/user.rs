//! The `users` rows: who has an account, and who has not proved one in time.
//!
//! What identifies a person is never readable here: addresses and numbers are keyed hashes to find them by, the rest
//! is sealed by whoever hands it in. Always true: a row moves from version to version, one change each.

use std::sync::LazyLock;

use super::outbox::{self, Mail};
use super::proof::Blinds;
use super::sql::{self, Damaged, Listed, Pool, Query, Row, signed, sixteen, thirty_two, time, unsigned};
use super::{StoreError, Tables, Writing, trail};
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;
use crate::domain::trail::Record;
use crate::domain::user::Role;
use crate::vault::{Sealed, WrappedKey};

/// A keyed hash to find an address, a number or a token by.
pub type Blind = [u8; 32];

/// An account as its row keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub state: AccountState,
    pub role: Role,
    pub email: Option<Blind>,
    pub phone: Option<Blind>,
    /// What opens `personal`; without it that is noise.
    pub wrapped_key: Option<Vec<u8>>,
    pub personal: Option<Vec<u8>>,
    /// A hash that says how it was made.
    pub password: Option<String>,
    /// Sessions that began at this time or before are dead.
    pub signed_out_at: Millis,
    /// 1 at first, one more for each change.
    pub version: u64,
    pub verified_at: Option<Millis>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl User {
    /// What opens what is sealed of this person; `None` once that was destroyed.
    pub fn key(&self) -> Result<Option<WrappedKey>, Sealed> {
        self.wrapped_key.as_deref().map(WrappedKey::from_bytes).transpose()
    }
}

/// Accounts looked at in one call.
const LOOKED_AT_MAX: u32 = 4_096;

/// What a list of accounts is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    pub state: Option<AccountState>,
    pub role: Option<Role>,
    pub email: Option<Blinds>,
}

/// Accounts that fit, newest first, and where the look-up goes on.
pub struct UsersFound {
    pub users: Vec<User>,
    /// Everything from here on has been looked at; `None`: there is nothing more.
    pub next: Option<UserId>,
}

/// An account that has lapsed.
pub struct Lapsed {
    /// When it was made, and its id: a look at others goes on behind it.
    pub place: (Millis, UserId),
    /// Or why it cannot be read.
    pub user: Result<User, StoreError>,
}

/// Why a change of an account was not written.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("the account is not at the version the change was made upon")]
    VersionConflict,
    #[error("somebody else has proved this address")]
    EmailTaken,
    #[error("somebody else has proved this number")]
    PhoneTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sql::Error> for UserError {
    fn from(error: sql::Error) -> UserError {
        UserError::Store(error.into())
    }
}

macro_rules! users {
    ($rest:literal) => {
        concat!(
            "select u.id, u.state, u.role, u.email_blind, u.phone_blind, u.wrapped_key, u.personal, u.password, \
             u.signed_out_at_ms, u.version, u.verified_at_ms, u.created_at_ms, u.updated_at_ms from users u ",
            $rest
        )
    };
}
pub(super) use users;

const FIND: &str = users!("where u.id = ?");
const PAGE: &str = users!("where u.id < ? order by u.id desc limit ?");
const KEYS: &str = "select wrapped_key from users where verified_at_ms is not null and wrapped_key is not null order by id desc limit ?";
const LOOKED_UP_TO: &str = "select id from users where id < ? order by id desc limit 1 offset ?";
const FITTING: &str = users!(
    "where u.id < ? and u.id >= ? and (? = 0 or u.state = ?) and (? = 0 or u.role = ?) order by u.id desc limit ?"
);
const LAPSED: &str = users!(
    "where u.state = 'unverified' and u.created_at_ms >= ? and u.created_at_ms <= ? and (u.created_at_ms > ? or u.id > ?) \
     and not exists (select 1 from one_time_tokens t where t.user_id = u.id and t.purpose = 'verify' \
     and t.expires_at_ms > ?) order by u.created_at_ms, u.id limit ?"
);
const INSERT: &str = "insert into users (state, role, email_blind, phone_blind, wrapped_key, personal, password, \
    signed_out_at_ms, version, verified_at_ms, created_at_ms, updated_at_ms, id) \
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const UPDATE: &str = "update users set state = ?, role = ?, email_blind = ?, phone_blind = ?, wrapped_key = ?, \
    personal = ?, password = ?, signed_out_at_ms = ?, version = ?, verified_at_ms = ?, created_at_ms = ?, \
    updated_at_ms = ? where id = ? and version = ?";
/// A new link leaves the version as it is, so it is looked for once more.
const REMOVE: &str = "delete from users where id = ? and version = ? and not exists (select 1 from one_time_tokens t \
    where t.user_id = users.id and t.purpose = 'verify' and t.expires_at_ms > ?)";

static REACHABLE: LazyLock<Listed> = LazyLock::new(|| {
    let head =
        "select id from users where verified_at_ms is not null and wrapped_key is not null and id in (";
    Listed::new(head, "?", ")")
});
static FIND_MANY: LazyLock<Listed> = LazyLock::new(|| Listed::new(users!("where u.id in ("), "?", ")"));
static BY_EMAIL: LazyLock<Listed> = LazyLock::new(|| {
    let tail = ") order by u.verified_at_ms is null, u.created_at_ms desc, u.id desc limit 1";
    Listed::new(users!("where u.email_blind in ("), "?", tail)
});
/// Those with one address: a handful, however many there are in all.
static FITTING_BY_EMAIL: LazyLock<Listed> = LazyLock::new(|| {
    let tail =
        ") and u.id < ? and (? = 0 or u.state = ?) and (? = 0 or u.role = ?) order by u.id desc limit ?";
    Listed::new(users!("where u.email_blind in ("), "?", tail)
});

/// Reads accounts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UserReader {
    pub(super) pool: Pool,
}

impl UserReader {
    pub async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.first([sql::query(FIND).bind(&id.as_bytes()[..])]).await
    }

    /// Those of `ids` that are accounts with a proved address, suspended ones among them.
    pub async fn reachable(&self, ids: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let mut found = Vec::new();
        for query in REACHABLE.named(ids) {
            for row in query.fetch_all(&self.pool).await? {
                found.push(UserId::from_bytes(sixteen(&row, 0)?));
            }
        }
        Ok(found)
    }

    /// The account that has proved this address, else the newest that claims it.
    pub async fn by_email(&self, email: &Blinds) -> Result<Option<User>, StoreError> {
        self.first(email.named(&BY_EMAIL)).await
    }

    /// Whoever one of these questions finds first.
    pub(super) async fn first(
        &self,
        queries: impl IntoIterator<Item = Query<'_>>,
    ) -> Result<Option<User>, StoreError> {
        for query in queries {
            if let Some(row) = query.fetch_optional(&self.pool).await? {
                return user(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// The wrapped keys of the newest accounts that are proved.
    pub async fn newest_keys(&self, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = sql::query(KEYS).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Accounts made before `before`, newest first. One that cannot be read is told of in its place.
    pub async fn list(
        &self,
        before: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<(UserId, Result<User, StoreError>)>, StoreError> {
        let before = before.unwrap_or(UserId::from_bytes([0xff; 16]));
        let rows =
            sql::query(PAGE).bind(before.as_bytes().to_vec()).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((UserId::from_bytes(sixteen(row, 0)?), user(row)))).collect()
    }

    /// The same of those that fit, of as many as one call looks at.
    pub async fn look_up(
        &self,
        filter: &UserFilter,
        before: Option<UserId>,
        limit: usize,
    ) -> Result<UsersFound, StoreError> {
        let before = before.map_or(vec![0xff; 16], |before| before.as_bytes().to_vec());
        let (query, looked_up_to) = match &filter.email {
            Some(email) => {
                let Some(query) = email.named(&FITTING_BY_EMAIL).next() else {
                    return Ok(UsersFound { users: Vec::new(), next: None });
                };
                (query.bind(before), None)
            }
            None => {
                let query = sql::query(LOOKED_UP_TO).bind(before.clone()).bind(LOOKED_AT_MAX - 1);
                let last: Option<Vec<u8>> =
                    query.fetch_optional(&self.pool).await?.map(|row| row.try_get(0)).transpose()?;
                (sql::query(FITTING).bind(before).bind(last.clone().unwrap_or_default()), last)
            }
        };
        let most = limit + 1;
        let rows = query
            .bind(i64::from(filter.state.is_some()))
            .bind(filter.state.map_or("", AccountState::as_str))
            .bind(i64::from(filter.role.is_some()))
            .bind(filter.role.map_or("", Role::as_str))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let mut users: Vec<User> = rows.iter().map(user).collect::<Result<_, _>>()?;
        let next = if users.len() == most {
            users.truncate(limit);
            users.last().map(|user| user.id)
        } else {
            let id = looked_up_to.map(<[u8; 16]>::try_from).transpose();
            id.map_err(|_| Damaged { what: "id" })?.map(UserId::from_bytes)
        };
        Ok(UsersFound { users, next })
    }

    /// Accounts that were made at `before` or earlier, that nobody proved, and that no link can prove any more by `now`: those behind
    /// a place, oldest first. One that cannot be read is told of in its place.
    pub async fn lapsed(
        &self,
        before: Millis,
        now: Millis,
        after: Option<(Millis, UserId)>,
        limit: u32,
    ) -> Result<Vec<Lapsed>, StoreError> {
        let (at, id) = after.unwrap_or((Millis(i64::MIN), UserId::from_bytes([0; 16])));
        let rows = sql::query(LAPSED)
            .bind(at.0)
            .bind(before.0)
            .bind(at.0)
            .bind(id.as_bytes().to_vec())
            .bind(now.0)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(lapsed).collect()
    }
}

impl Tables {
    /// Begins a change of what somebody keeps. `None`: they have left, and leave nothing behind, not even what was on its way.
    pub async fn begin_for(&self, user: UserId) -> Result<Option<Writing<'_>>, StoreError> {
        let mut writing = self.begin().await?;
        let known = writing.user(user).await?;
        Ok(known.is_none_or(|known| known.state != AccountState::Deleted).then_some(writing))
    }
}

impl Writing<'_> {
    /// The account as this transaction sees it.
    pub async fn user(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(self.on()).await?;
        row.as_ref().map(user).transpose()
    }

    /// Those of `ids` that have rows, each of them named once.
    pub async fn users(&mut self, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for query in FIND_MANY.named(ids) {
            for row in query.fetch_all(self.on()).await? {
                found.push(user(&row)?);
            }
        }
        Ok(found)
    }

    pub async fn insert_user(&mut self, user: &User) -> Result<(), UserError> {
        bind_user(INSERT, user).execute(self.on()).await?;
        Ok(())
    }

    /// Replaces the row if it still stands at the version before `user`'s.
    pub async fn update_user(&mut self, user: &User) -> Result<(), UserError> {
        let query = bind_user(UPDATE, user).bind(signed(user.version.saturating_sub(1)));
        matched(query.execute(self.on()).await?.rows_affected())
    }

    /// Takes an account away that nobody has proved, if its row still is what was read and no link is good by `now` that would
    /// prove it; and with it its links, and whatever waits to be sent to it.
    pub async fn remove_user(&mut self, user: &User, now: Millis) -> Result<(), UserError> {
        let query =
            sql::query(REMOVE).bind(user.id.as_bytes().to_vec()).bind(signed(user.version)).bind(now.0);
        matched(query.execute(self.on()).await?.rows_affected())?;
        self.forget_links(user.id).await?;
        Ok(self.forget_letters(user.id).await?)
    }

    /// Adds a letter, to be sent once this transaction stands.
    pub async fn post(&mut self, mail: &Mail) -> Result<(), StoreError> {
        outbox::insert(self.on(), mail).await
    }

    /// Takes back whatever waits to be sent to somebody.
    pub async fn forget_letters(&mut self, user: UserId) -> Result<(), StoreError> {
        outbox::forget(self.on(), user).await.map(drop)
    }

    /// Adds to the trail of who did what.
    pub async fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        trail::append(self.on(), record).await
    }
}

fn bind_user<'q>(sql: &'static str, user: &User) -> Query<'q> {
    sql::query(sql)
        .bind(user.state.as_str())
        .bind(user.role.as_str())
        .bind(user.email.map(|blind| blind.to_vec()))
        .bind(user.phone.map(|blind| blind.to_vec()))
        .bind(user.wrapped_key.clone())
        .bind(user.personal.clone())
        .bind(user.password.clone())
        .bind(user.signed_out_at.0)
        .bind(signed(user.version))
        .bind(user.verified_at.map(|at| at.0))
        .bind(user.created_at.0)
        .bind(user.updated_at.0)
        .bind(user.id.as_bytes().to_vec())
}

fn matched(rows: u64) -> Result<(), UserError> {
    if rows == 1 { Ok(()) } else { Err(UserError::VersionConflict) }
}

pub(super) fn user(row: &Row) -> Result<User, StoreError> {
    let damaged = |what| Damaged { what };
    Ok(User {
        id: UserId::from_bytes(sixteen(row, 0)?),
        state: AccountState::from_word(row.try_get(1)?).ok_or(damaged("account state"))?,
        role: Role::from_word(row.try_get(2)?).ok_or(damaged("role"))?,
        email: maybe(row, 3)?,
        phone: maybe(row, 4)?,
        wrapped_key: row.try_get(5)?,
        personal: row.try_get(6)?,
        password: row.try_get(7)?,
        signed_out_at: Millis(row.try_get(8)?),
        version: unsigned(row, 9)?,
        verified_at: time(row, 10)?,
        created_at: Millis(row.try_get(11)?),
        updated_at: Millis(row.try_get(12)?),
    })
}

fn maybe(row: &Row, column: usize) -> Result<Option<Blind>, StoreError> {
    let there: Option<&[u8]> = row.try_get(column)?;
    there.map(|_| thirty_two(row, column)).transpose()
}

fn lapsed(row: &Row) -> Result<Lapsed, StoreError> {
    let place = (Millis(row.try_get(11)?), UserId::from_bytes(sixteen(row, 0)?));
    Ok(Lapsed { place, user: user(row) })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::clock::Clock;
    use crate::config::MasterKeys;
    use crate::domain::id::MailId;
    use crate::domain::postage::LetterClass;
    use crate::domain::user::Locale;
    use crate::persistence::Tables;
    use crate::persistence::link::{OneTimeToken, Purpose};
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer, plan, somebody, tables_with};
    use crate::vault::Vault;

    fn link(number: u8, purpose: Purpose, user: UserId, expires_at: Millis) -> OneTimeToken {
        let (email, sealed, used_at) = ([1; 32], None, None);
        OneTimeToken { hash: [number; 32], purpose, user, email, sealed, expires_at, used_at }
    }

    fn letter(number: u128, subject: UserId) -> Mail {
        let vault = Vault::new(&MasterKeys::one([7; 32]), &Clock::start()).unwrap();
        Mail {
            id: MailId::new(T0, number),
            kind: "verify_address".to_owned(),
            class: LetterClass::Unproved,
            locale: Locale::En,
            subject: Some(subject),
            key: vault.new_key().unwrap(),
            recipient: vec![5],
            letter: vec![6],
            created_at: T0,
        }
    }

    #[rstest]
    #[tokio::test]
    async fn a_change_is_made_upon_the_version_that_was_read(#[values(Sqlite, MySql)] home: Home) {
        let user = somebody(1);
        let (_dir, tables) = tables_with(home, std::slice::from_ref(&user)).await;
        let mut writing = tables.begin().await.unwrap();
        let changed =
            User { version: 2, state: AccountState::Verified, verified_at: Some(T0), ..user.clone() };
        writing.update_user(&changed).await.unwrap();
        assert!(matches!(writing.update_user(&changed).await, Err(UserError::VersionConflict)));
        assert!(matches!(writing.remove_user(&user, T0).await, Err(UserError::VersionConflict)));
        assert!(writing.user(user.id).await.unwrap() == Some(changed.clone()));
        writing.commit().await.unwrap();
        let all = tables.users().list(None, 10).await.unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].0 == changed.id && *all[0].1.as_ref().unwrap() == changed);
        let found = async |filter: UserFilter| tables.users().look_up(&filter, None, 10).await.unwrap().users;
        let shoppers = UserFilter {
            role: Some(Role::Shopper),
            email: Some(Blinds::one([1; 32])),
            ..UserFilter::default()
        };
        assert!(found(shoppers).await == [changed]);
        for nobody in [
            UserFilter { state: Some(AccountState::Unverified), ..UserFilter::default() },
            UserFilter { role: Some(Role::Admin), ..UserFilter::default() },
            UserFilter { email: Some(Blinds::one([2; 32])), ..UserFilter::default() },
        ] {
            assert!(found(nobody).await.is_empty());
        }
        assert!(tables.users().lapsed(T0.plus(99), T0, None, 10).await.unwrap().is_empty());
    }

    /// A call looks at so many rows of one walk, or at those of one address.
    #[tokio::test]
    async fn no_filter_of_administrators_looks_at_all_accounts() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut writing = tables.begin().await.unwrap();
        for (sql, key) in [(LOOKED_UP_TO, "id<?"), (FITTING, "id>? AND id<?")] {
            let plan = plan(writing.on(), sql).await;
            assert_eq!(plan.len(), 1, "{plan:?}");
            assert!(plan[0].starts_with("SEARCH"), "{plan:?}");
            assert!(plan[0].ends_with(&format!("USING PRIMARY KEY ({key})")), "{plan:?}");
        }
        let keys = [[1_u8; 32], [2; 32]];
        let (sql, _) = FITTING_BY_EMAIL.filled(&keys).next().unwrap();
        let plan = plan(writing.on(), sql).await;
        assert!(plan[0].starts_with("SEARCH u USING INDEX users_by_email (email_blind=?"), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("SCAN")), "{plan:?}");
    }

    /// Looked at every few minutes: along those that nobody has proved, in their order, and into the links of each.
    #[tokio::test]
    async fn a_look_at_what_has_lapsed_passes_by_whoever_is_proved() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut writing = tables.begin().await.unwrap();
        let plan = plan(writing.on(), LAPSED).await;
        assert!(
            plan[0].starts_with("SEARCH u USING INDEX users_by_state (state=? AND created_at_ms>?"),
            "{plan:?}"
        );
        let links = "USING INDEX one_time_tokens_by_user (user_id=? AND purpose=?)";
        assert!(plan.iter().any(|step| step.contains(links)), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("SCAN") || step.contains("B-TREE")), "{plan:?}");
    }

    /// Whoever was listed and has had a new link since stays as well.
    #[rstest]
    #[tokio::test]
    async fn an_account_lapses_with_its_last_link(#[values(Sqlite, MySql)] home: Home) {
        let (mina, jun) = (somebody(1), somebody(2));
        let (_dir, tables) = tables_with(home, &[mina.clone(), jun.clone()]).await;
        let lapsed = async |now: Millis| {
            let found = tables.users().lapsed(T0.plus(9), now, None, 10).await.unwrap();
            found.into_iter().map(|lapsed| lapsed.user.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(lapsed(T0.plus(9)).await, [mina.id, jun.id]);
        let mut writing = tables.begin().await.unwrap();
        // A link of another kind proves nobody.
        for (number, purpose, user) in [(1, Purpose::Verify, mina.id), (2, Purpose::Reset, jun.id)] {
            writing.insert_token(&link(number, purpose, user, T0.plus(10))).await.unwrap();
        }
        writing.commit().await.unwrap();
        assert_eq!(lapsed(T0.plus(9)).await, [jun.id]);
        assert_eq!(lapsed(T0.plus(10)).await, [mina.id, jun.id]);
        let mut writing = tables.begin().await.unwrap();
        let kept = writing.remove_user(&mina, T0.plus(9)).await;
        assert!(matches!(kept, Err(UserError::VersionConflict)));
        writing.remove_user(&jun, T0.plus(9)).await.unwrap();
        writing.remove_user(&mina, T0.plus(10)).await.unwrap();
        writing.commit().await.unwrap();
        assert!(tables.users().list(None, 10).await.unwrap().is_empty());
    }

    /// Of others nothing goes, and of whoever is not taken away.
    #[rstest]
    #[tokio::test]
    async fn an_account_goes_with_its_links_and_letters(#[values(Sqlite, MySql)] home: Home) {
        let (mina, jun) = (somebody(1), somebody(2));
        let (_dir, tables) = tables_with(home, &[mina.clone(), jun.clone()]).await;
        let mut writing = tables.begin().await.unwrap();
        for (number, user, until) in [(1, &mina, T0), (2, &mina, T0.plus(5)), (3, &jun, T0.plus(20))] {
            writing.insert_token(&link(number, Purpose::Verify, user.id, until)).await.unwrap();
            writing.post(&letter(u128::from(number), user.id)).await.unwrap();
        }
        writing.commit().await.unwrap();
        let mut writing = tables.begin().await.unwrap();
        writing.remove_user(&mina, T0.plus(10)).await.unwrap();
        let kept = writing.remove_user(&jun, T0.plus(10)).await;
        assert!(matches!(kept, Err(UserError::VersionConflict)));
        writing.commit().await.unwrap();
        for (number, is_there) in [(1, false), (2, false), (3, true)] {
            assert_eq!(tables.users().token(&[number; 32]).await.unwrap().is_some(), is_there, "{number}");
        }
        assert_eq!(tables.outbox().waiting().await.unwrap(), 1);
    }

    /// A row that cannot be read is told of, and those behind it are found.
    #[rstest]
    #[tokio::test]
    async fn a_look_at_what_has_lapsed_goes_on_behind_its_last_page(#[values(Sqlite, MySql)] home: Home) {
        let at_once = User { created_at: T0.plus(2), ..somebody(3) };
        let people = [somebody(1), somebody(2), at_once, somebody(4)];
        let (_dir, tables) = tables_with(home, &people).await;
        let mut writing = tables.begin().await.unwrap();
        let damage = sql::query("update users set role = 'nobody' where created_at_ms = ?").bind(T0.0 + 1);
        damage.execute(writing.on()).await.unwrap();
        writing.commit().await.unwrap();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = tables.users().lapsed(T0.plus(3), T0.plus(9), after, 1).await.unwrap();
            let Some(Lapsed { place, user }) = page.into_iter().next() else { break };
            after = Some(place);
            seen.push((place.1, user.is_ok()));
        }
        assert_eq!(seen, [(buyer(1), false), (buyer(2), true), (buyer(3), true)]);
    }
}
