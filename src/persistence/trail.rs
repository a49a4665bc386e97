//! The `trail` rows: who did what, written once and never changed, each with a hash that covers the one before it.
//!
//! An entry is appended in the transaction of what it tells about, by the tables' one writer, so entries are numbered without a
//! gap. Always true: a row that was edited, moved or taken out breaks the chain where it stood, and one taken off the end
//! disagrees with the head. Who can write the whole file can write a whole new chain, for no key is in it; against him helps the head that
//! an audit printed earlier, and that a later one is handed as a [`Mark`]. Of what came behind the last mark nobody can tell.

use std::fmt;
use std::str::FromStr;

use futures_util::TryStreamExt;

use super::StoreError;
use super::sql::{self, Connection, Damaged, Row};
use super::store::Store;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;
use crate::domain::trail::Record;
use crate::vault;

const HEAD: &str = "select sequence, hash from trail_head where id = 1";
const MOVE_HEAD: &str = "update trail_head set sequence = ?, hash = ? where id = 1 and sequence = ?";
const INSERT: &str = "insert into trail (sequence, at_ms, kind, actor_id, subject_id, detail, previous_hash, hash) \
    values (?, ?, ?, ?, ?, ?, ?, ?)";
const ALL: &str = "select sequence, at_ms, kind, actor_id, subject_id, detail, previous_hash, hash from trail \
    order by sequence";
const PAGE: &str = "select sequence, at_ms, kind, actor_id, subject_id, detail, previous_hash, hash from trail \
    where sequence < ? order by sequence desc limit ?";

const AT: &str = "select hash from trail where sequence = ?";
const ABOUT: &str = "select sequence, at_ms, kind, actor_id, subject_id, detail, previous_hash, hash from trail \
    where subject_id = ? and sequence < ? order by sequence desc limit ?";

/// Entries about one account that are read at a time.
const ABOUT_AT_A_TIME: i64 = 500;

type Hash = [u8; 32];

/// Digits of a hash that are printed: nobody finds another entry with these.
const DIGITS: usize = 32;
/// The fewest that are taken: so many were printed once.
const DIGITS_MIN: usize = 16;

/// An entry as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1 at first, without a gap.
    pub sequence: i64,
    pub at: Millis,
    pub kind: String,
    pub actor: String,
    pub subject: String,
    pub detail: String,
    previous: Hash,
    hash: Hash,
}

/// Where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub sequence: i64,
    pub hash: Hash,
}

impl fmt::Display for Head {
    /// The number of entries and the beginning of the last one's hash, as a [`Mark`] is read.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:.DIGITS$}", self.sequence, digits(&self.hash))
    }
}

fn digits(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An entry that was the last one once, as an audit printed it then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// 0: there was none yet.
    sequence: i64,
    /// How its hash begins.
    begins: String,
}

/// It is no line that an audit prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the number of an entry and its hash as `stockade audit` printed them, in one pair of quotes"
)]
pub struct NoMark;

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Mark, NoMark> {
        let (number, begins) = text.trim().split_once(' ').ok_or(NoMark)?;
        let begins = begins.trim_start().to_ascii_lowercase();
        let is_hash = begins.len() >= DIGITS_MIN && begins.bytes().all(|digit| digit.is_ascii_hexdigit());
        let sequence = number.parse::<i64>().ok().filter(|number| is_hash && *number >= 0);
        Ok(Mark { sequence: sequence.ok_or(NoMark)?, begins })
    }
}

impl Entry {
    fn expected_hash(&self) -> Hash {
        let text = [&self.kind, &self.actor, &self.subject, &self.detail];
        let mut bytes = Vec::with_capacity(160);
        bytes.extend_from_slice(&self.previous);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.at.0.to_be_bytes());
        for text in text {
            // With its length in front, so that no letter can move from one column to the next.
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        vault::digest(&bytes)
    }

    fn of(row: &Row) -> Result<Entry, StoreError> {
        Ok(Entry {
            sequence: row.try_get(0)?,
            at: Millis(row.try_get(1)?),
            kind: row.try_get(2)?,
            actor: row.try_get(3)?,
            subject: row.try_get(4)?,
            detail: row.try_get(5)?,
            previous: hash(row, 6)?,
            hash: hash(row, 7)?,
        })
    }
}

fn hash(row: &Row, column: usize) -> Result<Hash, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map_err(|_| Damaged { what: "hash of the trail" })?)
}

/// Appends to the trail in the caller's transaction.
pub async fn append(connection: &mut Connection, record: &Record) -> Result<(), StoreError> {
    let head = sql::query(HEAD).fetch_one(&mut *connection).await?;
    let last: i64 = head.try_get(0)?;
    let mut entry = Entry {
        sequence: last + 1,
        at: record.at,
        kind: record.deed.as_str().to_owned(),
        actor: record.actor.clone(),
        subject: record.subject.clone(),
        detail: record.detail.clone(),
        previous: hash(&head, 1)?,
        hash: Hash::default(),
    };
    entry.hash = entry.expected_hash();
    sql::query(INSERT)
        .bind(entry.sequence)
        .bind(entry.at.0)
        .bind(&entry.kind)
        .bind(&entry.actor)
        .bind(&entry.subject)
        .bind(&entry.detail)
        .bind(&entry.previous[..])
        .bind(&entry.hash[..])
        .execute(&mut *connection)
        .await?;
    let moved = sql::query(MOVE_HEAD).bind(entry.sequence).bind(&entry.hash[..]).bind(last);
    match moved.execute(connection).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(Damaged { what: "head of the trail" }.into()),
    }
}

/// The trail as a whole. Cheap to clone.
#[derive(Clone)]
pub struct Trail {
    pub(super) store: Store,
}

impl Trail {
    /// Appends what tells about nothing else that is written; synced before it returns.
    pub async fn append(&self, record: &Record) -> Result<(), StoreError> {
        let mut transaction = self.store.begin_synced().await?;
        let appended = append(&mut transaction, record).await;
        transaction.end(appended).await
    }

    /// Up to `most` entries before `sequence`, the newest first.
    pub async fn before(&self, sequence: i64, most: i64) -> Result<Vec<Entry>, StoreError> {
        let rows = sql::query(PAGE).bind(sequence).bind(most).fetch_all(&self.store.readers()).await?;
        rows.iter().map(Entry::of).collect()
    }

    /// The same, of what was done to one account.
    pub async fn about(&self, user: UserId, sequence: i64, most: i64) -> Result<Vec<Entry>, StoreError> {
        let query = sql::query(ABOUT).bind(user.to_string()).bind(sequence).bind(most);
        query.fetch_all(&self.store.readers()).await?.iter().map(Entry::of).collect()
    }

    /// The newest `most` of these, and whether there are no others.
    pub async fn newest_about(&self, user: UserId, most: usize) -> Result<(Vec<Entry>, bool), StoreError> {
        let (mut newest, mut before) = (Vec::new(), i64::MAX);
        loop {
            let page = self.about(user, before, ABOUT_AT_A_TIME).await?;
            let Some(last) = page.last() else { return Ok((newest, true)) };
            before = last.sequence;
            newest.extend(page);
            if newest.len() > most {
                newest.truncate(most);
                return Ok((newest, false));
            }
        }
    }

    pub async fn head(&self) -> Result<Head, StoreError> {
        let row = sql::query(HEAD).fetch_one(&self.store.readers()).await?;
        Ok(Head { sequence: row.try_get(0)?, hash: hash(&row, 1)? })
    }

    /// Which of the entries that were kept are not there as they were; each is a line to print. Whether what is there is a chain,
    /// [`Trail::verify`] says.
    pub async fn compare(&self, kept: &[Mark]) -> Result<Vec<String>, StoreError> {
        let mut told = Vec::new();
        for Mark { sequence, begins } in kept {
            let row = sql::query(AT).bind(*sequence).fetch_optional(&self.store.readers()).await?;
            let found = match (*sequence, row) {
                (0, _) => Some(Hash::default()),
                (_, row) => row.map(|row| hash(&row, 0)).transpose()?,
            };
            match found.map(|hash| digits(&hash)) {
                Some(found) if found.starts_with(begins) => {}
                Some(found) => told.push(format!("trail: {sequence} was {begins}, it is {found:.DIGITS$}")),
                None => told.push(format!("trail: {sequence} was {begins}, it is missing")),
            }
        }
        Ok(told)
    }

    /// Walks the chain from its beginning. Each break is a line to print; the head is what the walk came to.
    pub async fn verify(&self) -> Result<(Head, Vec<String>), StoreError> {
        let mut breaks = Vec::new();
        let mut at = Head::default();
        let mut rows = sql::query(ALL).fetch(&self.store.readers());
        while let Some(row) = rows.try_next().await? {
            let entry = Entry::of(&row)?;
            let place = entry.sequence;
            if place != at.sequence + 1 {
                breaks.push(format!("trail: {} to {} are missing", at.sequence + 1, place - 1));
            } else if entry.previous != at.hash {
                breaks.push(format!("trail: {place} does not follow the one before it"));
            }
            if entry.hash != entry.expected_hash() {
                breaks.push(format!("trail: {place} was changed"));
            }
            at = Head { sequence: place, hash: entry.hash };
        }
        drop(rows);
        let head = self.head().await?;
        if head != at {
            breaks.push(format!("trail: it ends at {}, its head says {}", at.sequence, head.sequence));
        }
        Ok((at, breaks))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::trail::Deed;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer};

    async fn trail(home: Home, entries: i64) -> (tempfile::TempDir, Trail) {
        let dir = tempfile::tempdir().unwrap();
        let trail = home.open(&dir).await.trail();
        for number in 0..entries {
            let record = Record::new(Deed::LoggedIn, T0.plus(number)).by(buyer(1)).number("try", number);
            trail.append(&record).await.unwrap();
        }
        (dir, trail)
    }

    async fn tamper(trail: &Trail, sql: &'static str) {
        let mut writer = trail.store.writer().await.unwrap();
        sql::query(sql).execute(&mut *writer).await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_was_done_stands_in_order(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, trail) = trail(home, 3).await;
        let (head, breaks) = trail.verify().await.unwrap();
        assert_eq!((head.sequence, breaks), (3, Vec::<String>::new()));
        let newest = trail.before(i64::MAX, 2).await.unwrap();
        assert_eq!(
            newest.iter().map(|e| (e.sequence, &*e.detail)).collect::<Vec<_>>(),
            [(3, "try=2"), (2, "try=1")]
        );
        assert_eq!((&*newest[0].kind, &newest[0].actor), ("logged_in", &buyer(1).to_string()));
    }

    #[rstest]
    #[tokio::test]
    async fn what_is_about_one_account_is_read_page_by_page(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, trail) = trail(home, 2).await;
        for number in 0..5 {
            let record = Record::new(Deed::LoggedIn, T0).by(buyer(9)).on(buyer(number % 2));
            trail.append(&record).await.unwrap();
        }
        let about = async |before, most| {
            let page = trail.about(buyer(0), before, most).await.unwrap();
            page.into_iter().map(|entry| entry.sequence).collect::<Vec<_>>()
        };
        assert_eq!(about(i64::MAX, 2).await, [7, 5]);
        assert_eq!(about(5, 2).await, [3]);
        assert!(about(3, 2).await.is_empty());
        for (most, told, whole) in
            [(2, vec![7, 5], false), (3, vec![7, 5, 3], true), (9, vec![7, 5, 3], true)]
        {
            let (newest, is_whole) = trail.newest_about(buyer(0), most).await.unwrap();
            let newest: Vec<i64> = newest.into_iter().map(|entry| entry.sequence).collect();
            assert_eq!((newest, is_whole), (told, whole), "{most}");
        }
    }

    #[rstest]
    #[tokio::test]
    async fn an_entry_falls_with_what_it_tells_about(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, trail) = trail(home, 1).await;
        let mut transaction = trail.store.begin_synced().await.unwrap();
        append(&mut transaction, &Record::new(Deed::LoggedOut, T0)).await.unwrap();
        transaction.end::<(), _>(Err(StoreError::Closed)).await.unwrap_err();
        trail.append(&Record::new(Deed::LoggedOut, T0)).await.unwrap();
        let (head, breaks) = trail.verify().await.unwrap();
        assert_eq!((head.sequence, breaks), (2, Vec::<String>::new()));
    }

    /// As somebody does who may write every row: another word, and the whole chain anew behind it.
    async fn write_anew(trail: &Trail, from: i64) {
        let mut entries = trail.before(i64::MAX, 100).await.unwrap();
        entries.reverse();
        let mut writer = trail.store.writer().await.unwrap();
        let mut last = Hash::default();
        for entry in &mut entries {
            if entry.sequence == from {
                entry.detail = "try=9".to_owned();
            }
            entry.previous = last;
            entry.hash = entry.expected_hash();
            last = entry.hash;
            sql::query("update trail set detail = ?, previous_hash = ?, hash = ? where sequence = ?")
                .bind(&entry.detail)
                .bind(&entry.previous[..])
                .bind(&entry.hash[..])
                .bind(entry.sequence)
                .execute(&mut *writer)
                .await
                .unwrap();
        }
        sql::query("update trail_head set hash = ?").bind(&last[..]).execute(&mut *writer).await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn a_chain_that_was_written_anew_is_told_to_whoever_kept_its_end(
        #[values(Sqlite, MySql)] home: Home,
    ) {
        let (_dir, trail) = trail(home, 2).await;
        let mark = async || trail.head().await.unwrap().to_string().parse::<Mark>().unwrap();
        let mut kept = vec![Head::default().to_string().parse::<Mark>().unwrap(), mark().await];
        for number in 2..4 {
            trail.append(&Record::new(Deed::LoggedIn, T0.plus(number)).by(buyer(1))).await.unwrap();
            kept.push(mark().await);
        }
        assert_eq!(trail.compare(&kept).await.unwrap(), [""; 0]);
        write_anew(&trail, 3).await;
        let (head, breaks) = trail.verify().await.unwrap();
        assert_eq!((head.sequence, breaks), (4, Vec::new()), "it is a chain again");
        let told = trail.compare(&kept).await.unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("trail: 3 was ") && told[1].starts_with("trail: 4 was "), "{told:?}");
        tamper(&trail, "delete from trail where sequence = 4").await;
        let told = trail.compare(&kept[3..]).await.unwrap();
        assert!(told[0].ends_with(", it is missing"), "{told:?}");
    }

    #[test]
    fn a_mark_is_what_an_audit_has_printed() {
        let head = Head { sequence: 12, hash: [0xab; 32] };
        let mark = Mark { sequence: 12, begins: "ab".repeat(16) };
        assert_eq!(head.to_string().parse::<Mark>(), Ok(mark));
        // As it was printed once, and as somebody may write it.
        let former = Mark { sequence: 12, begins: "ab".repeat(8) };
        assert_eq!(format!(" 12  {} ", "AB".repeat(8)).parse::<Mark>(), Ok(former));
        for no in [
            "",
            "12",
            "abababababababab",
            "12 abab",
            "x abababababababab",
            "-1 abababababababab",
            "12 ababababababab…",
        ] {
            assert_eq!(no.parse::<Mark>(), Err(NoMark), "{no}");
        }
    }

    #[rstest]
    #[tokio::test]
    async fn an_edit_a_removal_and_a_swap_are_found_where_they_are(#[values(Sqlite, MySql)] home: Home) {
        for (sql, told) in [
            ("update trail set detail = 'try=9' where sequence = 2", "trail: 2 was changed"),
            ("update trail set at_ms = at_ms + 1 where sequence = 1", "trail: 1 was changed"),
            (
                "update trail set actor_id = '', subject_id = actor_id where sequence = 3",
                "trail: 3 was changed",
            ),
            ("delete from trail where sequence = 2", "trail: 2 to 2 are missing"),
            ("delete from trail where sequence = 1", "trail: 1 to 1 are missing"),
            ("delete from trail where sequence = 4", "trail: it ends at 3, its head says 4"),
            ("delete from trail", "trail: it ends at 0, its head says 4"),
            ("update trail_head set sequence = 3", "trail: it ends at 4, its head says 3"),
            (
                "update trail set hash = x'0000000000000000000000000000000000000000000000000000000000000000' where sequence = 2",
                "trail: 3 does not follow the one before it",
            ),
        ] {
            let (_dir, trail) = trail(home, 4).await;
            tamper(&trail, sql).await;
            let (_, breaks) = trail.verify().await.unwrap();
            assert!(breaks.iter().any(|line| line == told), "{sql}: {breaks:?}");
        }
    }
}
