//! The `outbox` rows: mails on their way, each written in the transaction of what it tells about.
//!
//! A mail is sent at least once. Whoever claims a row moves its next time into the future and its version by one: until then
//! nobody else sees it, and afterwards only he may say what became of it. If he dies, the time comes, and the mail is claimed
//! again. Always true: address and letter are sealed under a key of the row's own, and both go when the mail has gone.

use std::sync::LazyLock;

use super::StoreError;
use super::sql::{self, Connection, Damaged, Listed, Row, signed, sixteen, unsigned};
use super::store::Store;
use crate::domain::id::{MailId, UserId};
use crate::domain::postage::LetterClass;
use crate::domain::stock::Millis;
use crate::domain::user::Locale;
use crate::vault::WrappedKey;

macro_rules! columns {
    () => {
        "id, kind, locale, subject_id, wrapped_key, recipient, letter, created_at_ms, tries, version, class"
    };
}

const INSERT: &str = "insert into outbox (id, kind, class, locale, subject_id, wrapped_key, recipient, letter, \
    created_at_ms, tries, version, next_at_ms, state) values (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 1, ?, 'waiting')";
static INSERT_MANY: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into outbox (id, kind, class, locale, subject_id, wrapped_key, recipient, letter, \
        created_at_ms, next_at_ms, tries, version, state) values ";
    Listed::new(head, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 1, 'waiting')", "")
});
const DUE: &str = concat!(
    "select ",
    columns!(),
    " from outbox where state = 'waiting' and class = ? and next_at_ms <= ? order by next_at_ms, id limit ?"
);
const DUE_NEWEST: &str = concat!(
    "select ",
    columns!(),
    " from outbox where state = 'waiting' and class = ? and next_at_ms <= ? order by next_at_ms desc, id desc limit ?"
);
/// Rows that are looked at when some are claimed, at the least: of those that cannot be read none is claimed.
const LOOKED_AT_MIN: usize = 16;
const CLAIM: &str = "update outbox set next_at_ms = ?, tries = tries + 1, version = version + 1 \
    where id = ? and version = ?";
const DONE: &str = "delete from outbox where id = ? and version = ?";
const LATER: &str = "update outbox set next_at_ms = ?, version = version + 1 where id = ? and version = ?";
const BURY: &str = "update outbox set state = 'dead', wrapped_key = ?, recipient = ?, letter = ?, version = version + 1 \
    where id = ? and version = ?";
const SWEEP: &str = "delete from outbox where state = 'dead' and next_at_ms < ?";
const NEXT: &str = "select min(next_at_ms) from outbox where state = 'waiting' and class = ?";
const OVERDUE: &str = "select count(*) from outbox where state = 'waiting' and class = ? and next_at_ms <= ?";
const WAITING: &str = "select count(*) from outbox where state = 'waiting'";
const FORGET: &str = "delete from outbox where subject_id = ?";

/// A mail as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub id: MailId,
    /// The letter's word, for whoever counts.
    pub kind: String,
    /// Whose room it takes among those that leave in an hour.
    pub class: LetterClass,
    pub locale: Locale,
    /// Whom it is about; who is forgotten gets no more mail.
    pub subject: Option<UserId>,
    pub key: WrappedKey,
    /// Sealed under `key`.
    pub recipient: Vec<u8>,
    /// Sealed under `key`.
    pub letter: Vec<u8>,
    pub created_at: Millis,
}

/// A mail that is ours to send until the lease runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub mail: Mail,
    /// 1 at the first try.
    pub tries: u32,
    version: u64,
}

/// Adds a mail to the caller's transaction.
pub async fn insert(connection: &mut Connection, mail: &Mail) -> Result<(), StoreError> {
    sql::query(INSERT)
        .bind(&mail.id.as_bytes()[..])
        .bind(&mail.kind)
        .bind(mail.class.as_str())
        .bind(mail.locale.as_str())
        .bind(mail.subject.as_ref().map(|user| &user.as_bytes()[..]))
        .bind(mail.key.as_bytes())
        .bind(&mail.recipient)
        .bind(&mail.letter)
        .bind(mail.created_at.0)
        .bind(mail.created_at.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds several, in a few statements.
pub(super) async fn insert_many(connection: &mut Connection, mails: &[Mail]) -> Result<(), StoreError> {
    for (sql, piece) in INSERT_MANY.cut(mails) {
        let query = piece.iter().fold(sql::query(sql), |query, mail| {
            query
                .bind(mail.id.as_bytes().to_vec())
                .bind(mail.kind.clone())
                .bind(mail.class.as_str())
                .bind(mail.locale.as_str())
                .bind(mail.subject.map(|user| user.as_bytes().to_vec()))
                .bind(mail.key.as_bytes().to_vec())
                .bind(mail.recipient.clone())
                .bind(mail.letter.clone())
                .bind(mail.created_at.0)
                .bind(mail.created_at.0)
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Takes back, in the caller's transaction, everything that waits to be sent about somebody.
pub async fn forget(connection: &mut Connection, subject: UserId) -> Result<u64, StoreError> {
    Ok(sql::query(FORGET).bind(&subject.as_bytes()[..]).execute(connection).await?.rows_affected())
}

/// The rows as their dispatcher sees them. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    pub(super) store: Store,
}

impl Outbox {
    /// Adds mails that tell about nothing else that is written.
    pub async fn add(&self, mails: &[Mail]) -> Result<(), StoreError> {
        let mut transaction = self.store.begin_synced().await?;
        let mut added = Ok(());
        for mail in mails {
            added = insert(&mut transaction, mail).await;
            if added.is_err() {
                break;
            }
        }
        transaction.end(added).await
    }

    /// Up to `most` mails of a class that are due at `now`, the oldest first, ours until `until`. Of those to unproved addresses the
    /// newest: their links are good for so long and no longer, and where more are written than may leave the oldest would be too late
    /// when their turn came, each of them, for ever.
    pub async fn claim(
        &self,
        class: LetterClass,
        now: Millis,
        until: Millis,
        most: usize,
    ) -> Result<Vec<Claimed>, StoreError> {
        let looked_at = signed(most.max(LOOKED_AT_MIN) as u64);
        let due = match class {
            LetterClass::Unproved => DUE_NEWEST,
            LetterClass::Account | LetterClass::Order => DUE,
        };
        let due = sql::query(due).bind(class.as_str()).bind(now.0).bind(looked_at);
        let rows = due.fetch_all(&self.store.readers()).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.store.begin().await?;
        let claimed = claim_each(&mut transaction, &rows, until, most).await;
        transaction.end(claimed).await
    }

    /// It was taken: the row goes. `false`: it was somebody else's by now.
    pub async fn done(&self, claimed: &Claimed) -> Result<bool, StoreError> {
        let done = sql::query(DONE).bind(&claimed.mail.id.as_bytes()[..]).bind(signed(claimed.version));
        Ok(self.store.write_synced(done).await? == 1)
    }

    /// It was not taken: another try at `at`.
    pub async fn later(&self, claimed: &Claimed, at: Millis) -> Result<bool, StoreError> {
        let later =
            sql::query(LATER).bind(at.0).bind(&claimed.mail.id.as_bytes()[..]).bind(signed(claimed.version));
        Ok(self.store.write_synced(later).await? == 1)
    }

    /// It will not be tried again. What it said, and to whom, goes; that there was one stays.
    pub async fn bury(&self, claimed: &Claimed) -> Result<bool, StoreError> {
        let nothing: &[u8] = &[];
        let bury = sql::query(BURY)
            .bind(nothing)
            .bind(nothing)
            .bind(nothing)
            .bind(&claimed.mail.id.as_bytes()[..])
            .bind(signed(claimed.version));
        Ok(self.store.write_synced(bury).await? == 1)
    }

    /// Forgets that there were mails which were given up before `before`.
    pub async fn sweep(&self, before: Millis) -> Result<u64, StoreError> {
        self.store.write_synced(sql::query(SWEEP).bind(before.0)).await
    }

    /// When the next mail of a class is due.
    pub async fn next_due(&self, class: LetterClass) -> Result<Option<Millis>, StoreError> {
        let next = sql::query_scalar(NEXT).bind(class.as_str());
        let at: Option<i64> = next.fetch_one(&self.store.readers()).await?;
        Ok(at.map(Millis))
    }

    /// How many of a class are due and nobody's.
    pub async fn overdue(&self, class: LetterClass, now: Millis) -> Result<u64, StoreError> {
        let overdue = sql::query_scalar(OVERDUE).bind(class.as_str()).bind(now.0);
        let overdue: i64 = overdue.fetch_one(&self.store.readers()).await?;
        Ok(overdue.unsigned_abs())
    }

    /// How many wait, claimed ones included.
    pub async fn waiting(&self) -> Result<u64, StoreError> {
        let waiting: i64 = sql::query_scalar(WAITING).fetch_one(&self.store.readers()).await?;
        Ok(waiting.unsigned_abs())
    }
}

async fn claim_each(
    writer: &mut Connection,
    rows: &[Row],
    until: Millis,
    most: usize,
) -> Result<Vec<Claimed>, StoreError> {
    let mut claimed = Vec::with_capacity(most);
    for row in rows {
        if claimed.len() >= most {
            break;
        }
        let seen = match claimed_of(row) {
            Err(StoreError::Damaged(damaged)) => {
                // It holds up nobody, and stays for whoever looks into it.
                tracing::error!(%damaged, "a mail in the outbox cannot be read");
                continue;
            }
            seen => seen?,
        };
        let moved = sql::query(CLAIM)
            .bind(until.0)
            .bind(&seen.mail.id.as_bytes()[..])
            .bind(signed(seen.version))
            .execute(&mut *writer)
            .await?;
        if moved.rows_affected() == 1 {
            claimed.push(Claimed { tries: seen.tries + 1, version: seen.version + 1, ..seen });
        }
    }
    Ok(claimed)
}

fn claimed_of(row: &Row) -> Result<Claimed, StoreError> {
    let locale: &str = row.try_get(2)?;
    let subject: Option<&[u8]> = row.try_get(3)?;
    let subject = subject.map(|bytes| {
        bytes.try_into().map(UserId::from_bytes).map_err(|_| Damaged { what: "user of a mail" })
    });
    let key: &[u8] = row.try_get(4)?;
    let mail = Mail {
        id: MailId::from_bytes(sixteen(row, 0)?),
        kind: row.try_get(1)?,
        class: LetterClass::from_word(row.try_get(10)?).ok_or(Damaged { what: "class of a mail" })?,
        locale: Locale::from_word(locale).ok_or(Damaged { what: "language of a mail" })?,
        subject: subject.transpose()?,
        key: WrappedKey::from_bytes(key).map_err(|_| Damaged { what: "key of a mail" })?,
        recipient: row.try_get(5)?,
        letter: row.try_get(6)?,
        created_at: Millis(row.try_get(7)?),
    };
    Ok(Claimed { mail, tries: unsigned(row, 8)?, version: unsigned(row, 9)? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::LetterClass::{Account, Order, Unproved};
    use super::*;
    use crate::clock::Clock;
    use crate::config::MasterKeys;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer};
    use crate::vault::Vault;

    fn mail(number: u128, at: Millis, subject: Option<UserId>) -> Mail {
        let vault = Vault::new(&MasterKeys::one([7; 32]), &Clock::start()).unwrap();
        Mail {
            id: MailId::new(at, number),
            kind: "verify_address".to_owned(),
            class: Unproved,
            locale: Locale::Ko,
            subject,
            key: vault.new_key().unwrap(),
            recipient: b"sealed address".to_vec(),
            letter: b"sealed letter".to_vec(),
            created_at: at,
        }
    }

    async fn outbox(home: Home) -> (tempfile::TempDir, Outbox) {
        let (dir, tables) = home.tables().await;
        (dir, tables.outbox())
    }

    const LEASE: i64 = 1_000;

    #[rstest]
    #[tokio::test]
    async fn a_mail_is_claimed_by_one_until_the_lease_runs_out(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        let (first, second) = (mail(1, T0, Some(buyer(1))), mail(2, T0.plus(10), None));
        outbox.add(&[first.clone(), second.clone()]).await.unwrap();
        assert_eq!(outbox.claim(Unproved, T0.plus(-1), T0.plus(LEASE), 10).await.unwrap(), []);
        let claimed = outbox.claim(Unproved, T0.plus(10), T0.plus(LEASE), 10).await.unwrap();
        assert_eq!(
            claimed.iter().map(|c| (&c.mail, c.tries)).collect::<Vec<_>>(),
            [(&second, 1), (&first, 1)]
        );
        assert_eq!(outbox.claim(Unproved, T0.plus(10), T0.plus(LEASE), 10).await.unwrap(), []);
        assert_eq!(outbox.next_due(Unproved).await.unwrap(), Some(T0.plus(LEASE)));

        let again = outbox.claim(Unproved, T0.plus(LEASE), T0.plus(2 * LEASE), 1).await.unwrap();
        assert_eq!(again[0].tries, 2);
        let late = claimed.iter().find(|c| c.mail.id == again[0].mail.id).unwrap();
        assert!(!outbox.done(late).await.unwrap(), "it is somebody else's by now");
        assert!(outbox.done(&again[0]).await.unwrap());
        assert_eq!(outbox.waiting().await.unwrap(), 1);
    }

    #[rstest]
    #[tokio::test]
    async fn each_class_has_its_own_oldest_and_strangers_their_newest(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        let of = |class, number, at| Mail { class, ..mail(number, at, None) };
        let orders = [of(Order, 1, T0.plus(2)), of(Order, 2, T0), of(Order, 3, T0.plus(1))];
        let reset = of(Account, 4, T0.plus(9));
        let mut writing = outbox.store.begin_synced().await.unwrap();
        let added = insert_many(&mut writing, &orders).await;
        writing.end(added).await.unwrap();
        outbox.add(std::slice::from_ref(&reset)).await.unwrap();
        assert_eq!(outbox.next_due(Order).await.unwrap(), Some(T0));
        assert_eq!(outbox.next_due(Account).await.unwrap(), Some(T0.plus(9)));
        assert_eq!(outbox.next_due(Unproved).await.unwrap(), None);
        let overdue = async |class| outbox.overdue(class, T0.plus(8)).await.unwrap();
        assert_eq!((overdue(Order).await, overdue(Account).await), (3, 0));

        let claimed = outbox.claim(Order, T0.plus(9), T0.plus(LEASE), 2).await.unwrap();
        assert_eq!(claimed.iter().map(|claimed| &claimed.mail).collect::<Vec<_>>(), [&orders[1], &orders[2]]);
        assert_eq!(overdue(Order).await, 1, "the others are somebody's");
        let claimed = outbox.claim(Account, T0.plus(9), T0.plus(LEASE), 2).await.unwrap();
        assert_eq!(claimed.iter().map(|claimed| &claimed.mail).collect::<Vec<_>>(), [&reset]);

        let strangers = [of(Unproved, 5, T0.plus(1)), of(Unproved, 6, T0.plus(2)), of(Unproved, 7, T0)];
        outbox.add(&strangers).await.unwrap();
        let claimed = outbox.claim(Unproved, T0.plus(9), T0.plus(LEASE), 2).await.unwrap();
        assert_eq!(
            claimed.iter().map(|claimed| &claimed.mail).collect::<Vec<_>>(),
            [&strangers[1], &strangers[0]]
        );
    }

    #[rstest]
    #[tokio::test]
    async fn a_mail_is_tried_again_later_or_buried(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        outbox.add(&[mail(1, T0, None)]).await.unwrap();
        let claimed = outbox.claim(Unproved, T0, T0.plus(LEASE), 1).await.unwrap();
        assert!(outbox.later(&claimed[0], T0.plus(50)).await.unwrap());
        assert_eq!(outbox.next_due(Unproved).await.unwrap(), Some(T0.plus(50)));
        let claimed = outbox.claim(Unproved, T0.plus(50), T0.plus(LEASE), 1).await.unwrap();
        assert!(outbox.bury(&claimed[0]).await.unwrap());
        assert_eq!((outbox.waiting().await.unwrap(), outbox.next_due(Unproved).await.unwrap()), (0, None));
        let mut writer = outbox.store.writer().await.unwrap();
        let left: i64 =
            sql::query_scalar("select length(letter) + length(recipient) + length(wrapped_key) from outbox")
                .fetch_one(&mut *writer)
                .await
                .unwrap();
        assert_eq!(left, 0, "nothing personal stays");
        drop(writer);
        assert_eq!(outbox.sweep(T0.plus(LEASE)).await.unwrap(), 0);
        assert_eq!(outbox.sweep(T0.plus(LEASE + 1)).await.unwrap(), 1);
    }

    #[rstest]
    #[tokio::test]
    async fn a_row_that_cannot_be_read_holds_up_nobody(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        outbox.add(&[mail(1, T0, None), mail(2, T0, Some(buyer(1)))]).await.unwrap();
        let damage = sql::query("update outbox set wrapped_key = x'00' where subject_id is not null");
        assert_eq!(outbox.store.write_synced(damage).await.unwrap(), 1);
        // Not even where there is room for one alone.
        assert_eq!(outbox.claim(Unproved, T0, T0.plus(LEASE), 1).await.unwrap().len(), 1);
    }

    #[rstest]
    #[tokio::test]
    async fn a_mail_stands_or_falls_with_what_it_tells_about(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        let mut transaction = outbox.store.begin_synced().await.unwrap();
        insert(&mut transaction, &mail(1, T0, None)).await.unwrap();
        transaction.end::<(), _>(Err(StoreError::Closed)).await.unwrap_err();
        assert_eq!(outbox.waiting().await.unwrap(), 0);
    }

    #[rstest]
    #[tokio::test]
    async fn who_is_forgotten_gets_no_more_mail(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, outbox) = outbox(home).await;
        let mails = [mail(1, T0, Some(buyer(1))), mail(2, T0, Some(buyer(2))), mail(3, T0, None)];
        outbox.add(&mails).await.unwrap();
        let mut transaction = outbox.store.begin_synced().await.unwrap();
        let forgotten = forget(&mut transaction, buyer(1)).await;
        assert_eq!(transaction.end(forgotten).await.unwrap(), 1);
        assert_eq!(outbox.waiting().await.unwrap(), 2);
    }
}
