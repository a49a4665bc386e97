//! What every home of the journal owes, told over the seam; and what SQLite owes besides.

use std::time::Duration;

use rstest::rstest;
use sqlx::Connection;

use super::snapshot::Progress;
use super::*;
use crate::domain::stock::{Command, FORMAT, Ledger, Restock};
use crate::persistence::sql;
use crate::persistence::sql::sqlite::{Tuning, writer};
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::*;

#[rstest]
#[tokio::test]
async fn what_was_written_is_read_again_after_a_restart(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let (mut ours, mut theirs) = (Owner::stocked(1, 100), Owner::stocked(2, 100));
    let journal = home.journal(&dir).await;
    assert_eq!(append_all(&journal, vec![ours.seal(T0), theirs.seal(T0)]), [Appended::Written; 2]);
    for number in 1..=50 {
        ours.hold(order(number, ours.product), buyer(number), 1, T0);
        assert_eq!(append(&journal, ours.seal(T0.plus(1))), Appended::Written);
    }
    journal.close().await;

    let journal = home.journal(&dir).await;
    assert_eq!(journal.epoch(), Epoch(2));
    let stored = journal.reader().load(ours.product).await.unwrap();
    assert!(stored.snapshot.is_none());
    let mut replayed = Ledger::default();
    stored.entries.iter().for_each(|entry| replayed.replay(entry).unwrap());
    assert_eq!(replayed.digest(), ours.ledger.digest());
    let heads = journal.reader().heads().await.unwrap();
    let head = |owner: &Owner| (owner.product, owner.ledger.sequence());
    assert_eq!(heads, [head(&ours), head(&theirs)].into());
    assert_eq!(journal.head().pos, 52);
    journal.close().await;
}

#[rstest]
#[tokio::test]
async fn entries_are_read_from_the_middle_and_in_order_of_writing(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let journal = home.journal(&dir).await;
    let (mut ours, mut theirs) = (Owner::stocked(1, 100), Owner::stocked(2, 100));
    ours.hold(order(1, ours.product), buyer(1), 1, T0);
    append_all(&journal, vec![ours.seal(T0), theirs.seal(T0)]);
    ours.hold(order(2, ours.product), buyer(2), 1, T0);
    append(&journal, ours.seal(T0));

    let reader = journal.reader();
    let firsts = |entries: Vec<Entry>| entries.iter().map(|entry| entry.first.0).collect::<Vec<_>>();
    assert_eq!(firsts(reader.read(ours.product, Sequence(2), 10).await.unwrap()), [1, 3]);
    assert_eq!(firsts(reader.read(ours.product, Sequence(3), 10).await.unwrap()), [3]);
    let after = |pos, most| async move {
        let found = reader.after(pos, most).await.unwrap();
        found.into_iter().map(|(pos, _)| pos).collect::<Vec<_>>()
    };
    let places = [1, 2, 3];
    assert_eq!(after(0, 100).await, places);
    assert_eq!(after(0, 1).await, places[..1], "whole entries, until there are enough events");
    assert_eq!(after(places[1], 100).await, places[2..]);
    assert_eq!(reader.products_after(places[0]).await.unwrap().len(), 2);
    assert_eq!(reader.backlog(places[0]).await.unwrap().0, 2);
    journal.close().await;
}

#[rstest]
#[tokio::test]
async fn a_gap_or_a_fork_is_refused_and_spoils_nobody_else(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let journal = home.journal(&dir).await;
    let mut ours = Owner::stocked(1, 100);
    let first = ours.seal(T0);
    assert_eq!(append(&journal, first.clone()), Appended::Written);
    let mut others: Vec<_> = (2..10).map(|number| Owner::stocked(number, 1).seal(T0)).collect();
    others.insert(3, first);
    let answers = append_all(&journal, others);
    let refused = |outcome: &&Appended| **outcome == Appended::NotWritten(NotWritten::Failed);
    assert_eq!(answers.iter().filter(refused).count(), 1);
    assert_eq!(answers[3], Appended::NotWritten(NotWritten::Failed));
    assert_eq!(journal.health(), Health::Healthy);
    assert_eq!(journal.reader().last_pos().await.unwrap(), 9);
    journal.close().await;
}

#[tokio::test]
async fn two_openings_of_one_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let second = Journal::open(config(&dir)).await;
    assert!(matches!(second.err(), Some(OpenError::Locked { .. })));
    journal.close().await;
    open(&dir).await.close().await;
}

/// How far the archive has come.
async fn archived(janitor: &mut sqlx::sqlite::SqliteConnection) -> i64 {
    sqlx::query_scalar("select coalesce(max(pos), 0) from journal").fetch_one(janitor).await.unwrap()
}

/// A writer of a test's own, behind the lock's back.
async fn intruder(dir: &tempfile::TempDir) -> sqlx::sqlite::SqliteConnection {
    let tuning = Tuning { cache_kib: 1024, ..reader::tuning() };
    writer(&dir.path().join("journal.db"), &tuning).await.unwrap()
}

#[tokio::test]
async fn a_sealed_log_fences_the_older_opening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    // What another process does first, should the lock ever fail to keep it out.
    segment::left_in(dir.path()).unwrap().iter().for_each(|file| file.seal(Epoch(2)).unwrap());

    owner.does(&Command::Pause, T0);
    let mut fatal = journal.fatal();
    assert_eq!(append(&journal, owner.seal(T0)), Appended::NotWritten(NotWritten::Fenced));
    assert!(fatal.wait_for(|over| *over).await.is_ok());
    assert_eq!(journal.health(), Health::Fenced);
    assert_eq!(journal.reader().last_pos().await.unwrap(), 1);
    let next = Owner::stocked(2, 1).seal(T0);
    assert_eq!(append(&journal, next), Appended::NotWritten(NotWritten::Fenced), "and stays so");
    journal.close().await;
    let journal = open(&dir).await;
    assert_eq!((journal.head().pos, journal.epoch()), (1, Epoch(2)));
    journal.close().await;
}

#[tokio::test]
async fn what_only_the_log_has_is_read_beside_the_file_and_brought_in_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 1_000_000);
    append(&journal, owner.seal(T0));
    // Several files of the log, some of them used again.
    let restock = Command::Restock(Restock { delta: 1, reason: "x".repeat(60_000), key: None });
    for _ in 0..600 {
        owner.does(&restock, T0);
        assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    }
    let history = journal.reader().history_with_pos(owner.product).await.unwrap();
    assert!(history.iter().map(|(pos, _)| *pos).eq(1..=601), "as if it were one");

    let copy = killed(&dir);
    assert!(!segment::left_in(copy.path()).unwrap().is_empty());
    let stopped = JournalReader::of_stopped(copy.path()).await.unwrap();
    assert_eq!(stopped.history_with_pos(owner.product).await.unwrap(), history);
    stopped.close().await;
    let again = open(&copy).await;
    assert_eq!(again.head().pos, 601);
    assert_eq!(again.reader().history_with_pos(owner.product).await.unwrap(), history);
    owner.does(&restock, T0);
    assert_eq!(append(&again, owner.seal(T0)), Appended::Written);
    again.close().await;
    assert_eq!(segment::left_in(copy.path()).unwrap(), [], "at rest there is the file alone");
    journal.close().await;
}

#[tokio::test]
async fn a_log_with_a_hole_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    for number in 1..=3 {
        append(&journal, Owner::stocked(number, 1).seal(T0));
    }
    let copy = killed(&dir);
    journal.close().await;
    let file = &segment::left_in(copy.path()).unwrap()[0].path;
    let mut bytes = std::fs::read(file).unwrap();
    bytes[2 * segment::PAGE_BYTES + 50] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let refused = Journal::open(config(&copy)).await.err().unwrap();
    assert!(refused.to_string().contains("damaged"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_definite_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig { pages_max: Some(1_024), ..config(&dir) }).await.unwrap();
    let mut owner = Owner::stocked(1, 1_000);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    // Something big that can be taken away again.
    journal.save_snapshot(product(9), Sequence(1), vec![1; 3_000_000]).await.unwrap();
    let restock = Command::Restock(Restock { delta: 1, reason: "x".repeat(40_000), key: None });
    let mut janitor = intruder(&dir).await;
    let mut written = 1;
    let refused = loop {
        owner.does(&restock, T0);
        match append(&journal, owner.seal(T0)) {
            Appended::Written => written += 1,
            outcome => break outcome,
        }
        // What waits in the log must find room once the big thing is gone: the archive is not left far behind.
        while written % 8 == 0
            && journal.health() == Health::Healthy
            && archived(&mut janitor).await < written
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(refused, Appended::NotWritten(NotWritten::DiskFull));
    assert!(matches!(journal.health(), Health::Refusing { why: NotWritten::DiskFull, .. }));
    let small = Owner::stocked(2, 1).seal(T0);
    assert_eq!(append(&journal, small.clone()), Appended::NotWritten(NotWritten::DiskFull), "at once");
    assert_eq!(journal.reader().last_pos().await.unwrap(), written);

    sqlx::query("delete from snapshots").execute(&mut janitor).await.unwrap();
    janitor.close().await.unwrap();
    // It looks for room by itself, also while it is turning others away.
    let mut outcome = append(&journal, small.clone());
    while outcome == Appended::NotWritten(NotWritten::DiskFull) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        outcome = append(&journal, small.clone());
    }
    assert_eq!((outcome, journal.health()), (Appended::Written, Health::Healthy));
    journal.close().await;
}

#[tokio::test]
async fn a_log_that_is_too_far_ahead_is_told_to_everybody_until_the_archive_has_followed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig { tail_bytes_max: 1, ..config(&dir) }).await.unwrap();
    // Whoever holds the file keeps the archive from it.
    let mut held = intruder(&dir).await;
    sqlx::query("begin immediate").execute(&mut held).await.unwrap();
    assert_eq!(append(&journal, Owner::stocked(1, 1).seal(T0)), Appended::Written);
    assert!(journal.is_writable());
    let next = Owner::stocked(2, 1).seal(T0);
    assert_eq!(append(&journal, next.clone()), Appended::NotWritten(NotWritten::Behind));
    assert_eq!(journal.health(), Health::Refusing { why: NotWritten::Behind });
    assert!(!journal.is_writable(), "nobody decides what would not be written");

    sqlx::query("rollback").execute(&mut held).await.unwrap();
    held.close().await.unwrap();
    let mut outcome = append(&journal, next.clone());
    while outcome == Appended::NotWritten(NotWritten::Behind) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        outcome = append(&journal, next.clone());
    }
    assert_eq!((outcome, journal.head().pos), (Appended::Written, 2));
    journal.close().await;
}

#[tokio::test]
async fn a_snapshot_counts_when_it_is_whole_and_replaces_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10);
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    append(&journal, owner.seal(T0));
    let at = owner.ledger.sequence();
    owner.hold(order(2, owner.product), buyer(2), 1, T0);
    append(&journal, owner.seal(T0));

    let body: Vec<u8> = (0..700_000_u32).map(|byte| byte as u8).collect();
    journal.save_snapshot(owner.product, Sequence(1), vec![0; 600_000]).await.unwrap();
    journal.save_snapshot(owner.product, at, body.clone()).await.unwrap();
    let stored = journal.reader().load(owner.product).await.unwrap();
    assert_eq!(stored.snapshot.as_ref(), Some(&body));
    assert_eq!(stored.entries.len(), 1, "only what came after it");

    let mut vandal = intruder(&dir).await;
    let parts: i64 =
        sqlx::query_scalar("select count(*) from snapshots").fetch_one(&mut vandal).await.unwrap();
    assert_eq!(parts, 3, "the older one is gone");
    sqlx::query("delete from snapshots where part = 1").execute(&mut vandal).await.unwrap();
    vandal.close().await.unwrap();
    let stored = journal.reader().load(owner.product).await.unwrap();
    assert_eq!((stored.snapshot, stored.entries.len()), (None, 2), "with a hole it is none");
    journal.save_snapshot(owner.product, at, body.clone()).await.unwrap();
    assert_eq!(
        journal.reader().load(owner.product).await.unwrap().snapshot,
        Some(body),
        "and can be written again"
    );
    journal.close().await;
}

/// Stores a snapshot at the second event of the product 9, slice by slice. How many slices it took, and after how many nobody had one.
async fn slices<W>(journal: &Journal, writer: &mut W, body: &[u8]) -> (usize, usize)
where
    for<'w> sql::On<'w>: From<&'w mut W>,
{
    let (saved, outcome) = oneshot::channel();
    let mut saving = Box::new(Saving::new(product(9), Sequence(2), body.to_vec(), saved));
    let (mut many, mut without) = (0, 0);
    loop {
        let slice = saving.slice(&mut *writer).await;
        many += 1;
        without += usize::from(journal.reader().load(product(9)).await.unwrap().snapshot.is_none());
        saving = match slice {
            Ok(Progress::More(rest)) => rest,
            Ok(Progress::Done) => break,
            Err((_, error)) => panic!("{error}"),
        };
    }
    outcome.await.unwrap().unwrap();
    (many, without)
}

/// Several of one sequence, one after the other.
async fn each_of_one_sequence<W>(journal: &Journal, writer: &mut W)
where
    for<'w> sql::On<'w>: From<&'w mut W>,
{
    let stands = async || journal.reader().snapshots(product(9)).await;
    let body = async || journal.reader().load(product(9)).await.unwrap().snapshot.unwrap();
    let whole = |letter: u8, many: usize| {
        let mut body = vec![letter; many];
        let sum = xxhash_rust::xxh3::xxh3_64(&body);
        body.extend(sum.to_le_bytes());
        body
    };
    // Damaged, of three parts twice, then of four: each is replaced.
    assert_eq!(slices(journal, writer, &[1; 600_000]).await, (4, 2));
    assert_eq!(slices(journal, writer, &[2; 600_000]).await, (4, 0));
    slices(journal, writer, &[3; 900_000]).await;
    assert_eq!(stands().await, [(2, 4, 4)]);
    // One of two parts leaves nothing of it: without its third part it is none any more, and could not be read before.
    let first = whole(4, 300_000);
    assert_eq!(slices(journal, writer, &first).await, (5, 1));
    assert_eq!((stands().await, body().await == first), (vec![(2, 2, 2)], true));
    // It stays, whatever comes of the same sequence.
    assert_eq!(slices(journal, writer, &whole(5, 600_000)).await, (1, 0));
    assert_eq!((stands().await, body().await == first), (vec![(2, 2, 2)], true));
}

#[rstest]
#[tokio::test]
async fn a_snapshot_that_stands_is_not_taken_away_for_another_of_its_sequence(
    #[values(Sqlite, MySql)] home: Home,
) {
    let dir = tempfile::tempdir().unwrap();
    let journal = home.journal(&dir).await;
    match home {
        Sqlite => each_of_one_sequence(&journal, &mut intruder(&dir).await).await,
        MySql => {
            let url = std::fs::read_to_string(dir.path().join("database")).unwrap();
            let clerk = sql::mysql::Server::at(&url).unwrap().connect().await.unwrap();
            each_of_one_sequence(&journal, &mut sql::Connection::MySql(clerk)).await;
        }
    }
    journal.close().await;
}

#[rstest]
#[tokio::test]
async fn a_snapshot_that_comes_late_takes_no_place(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let journal = home.journal(&dir).await;
    let mut owner = Owner::stocked(1, 10);
    let mut ends = Vec::new();
    for number in 1..=3 {
        assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
        ends.push(owner.ledger.sequence());
        owner.hold(order(number, owner.product), buyer(number), 1, T0);
    }
    // Each in several parts.
    let body = |at: Sequence| vec![at.0 as u8; 600_000];
    let (reader, product) = (journal.reader(), owner.product);
    for (at, stands) in [(ends[1], ends[1]), (ends[0], ends[1]), (ends[2], ends[2]), (ends[1], ends[2])] {
        journal.save_snapshot(product, at, body(at)).await.unwrap();
        assert_eq!(reader.snapshots(product).await, [(stands.0 as i64, 3, 3)], "and nothing else is left");
        let stored = reader.load(product).await.unwrap();
        assert!(stored.snapshot == Some(body(stands)));
        let behind = ends.iter().copied().filter(|end| *end > stands);
        assert!(stored.entries.iter().map(|entry| entry.last).eq(behind));
    }
    journal.close().await;
}

#[rstest]
#[tokio::test]
async fn whoever_reads_aside_sees_what_was_in_order_and_all_of_it_in_the_end(
    #[values(Sqlite, MySql)] home: Home,
) {
    let dir = tempfile::tempdir().unwrap();
    let journal = home.journal(&dir).await;
    let (mut owner, mut read) = (Owner::stocked(1, 1_000), Ledger::default());
    for number in 1..=200 {
        assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
        // A gap, or half an entry, would not be replayed.
        for entry in journal.reader().entries_aside(owner.product, read.sequence(), 3).await.unwrap() {
            read.replay(&entry).unwrap();
        }
        assert!(read.sequence() <= owner.ledger.sequence());
        owner.hold(order(number, owner.product), buyer(number), 1, T0);
    }
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    let following = async {
        while read.sequence() < owner.ledger.sequence() {
            for entry in journal.reader().entries_aside(owner.product, read.sequence(), 3).await.unwrap() {
                read.replay(&entry).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), following).await.expect("it never comes");
    assert_eq!(read.digest(), owner.ledger.digest());
    assert!(journal.reader().snapshot_aside(owner.product).await.unwrap().is_none());
    journal.close().await;
}

#[tokio::test]
async fn a_full_inbox_hands_the_append_back_and_a_closed_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig { inbox_max: 1, ..config(&dir) }).await.unwrap();
    journal.brake().store(200_000, std::sync::atomic::Ordering::Relaxed);
    let entry = |number| Append { entry: Owner::stocked(number, 1).seal(T0), reply: Box::new(|_| {}) };
    let taken = (1..=4).map(|number| journal.submit(entry(number)).is_ok()).filter(|taken| *taken).count();
    assert!((1..=2).contains(&taken), "one waits, and one may be on its way: {taken}");
    journal.close().await;
    assert!(journal.submit(entry(9)).is_err());
    let journal = open(&dir).await;
    assert_eq!(journal.head().pos, taken as i64, "what was taken was written");
    journal.close().await;
}

#[tokio::test]
async fn after_an_io_error_the_next_opening_writes_everything_back_first() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    append(&journal, Owner::stocked(1, 1).seal(T0));
    let file = |dir: &tempfile::TempDir| dir.path().join("journal.db");
    let mark = |dir: &tempfile::TempDir| UncleanMark::of(&file(dir));
    let unclean = || {
        let copy = killed(&dir);
        assert!(std::fs::metadata(copy.path().join("journal.db-wal")).unwrap().len() > 0);
        mark(&copy).set();
        copy
    };
    let (read, quiet) = (unclean(), unclean());
    journal.close().await;

    // Whoever reads what the WAL has keeps it from being emptied.
    let mut reader = intruder(&read).await;
    sqlx::query("begin").execute(&mut reader).await.unwrap();
    sqlx::query("select epoch from journal_meta").fetch_one(&mut reader).await.unwrap();
    let refused = Journal::open(config(&read)).await.err().unwrap();
    assert!(matches!(refused, OpenError::Store(StoreError::StillRead { .. })), "{refused}");
    assert!(mark(&read).stands());
    reader.close().await.unwrap();

    let journal = open(&quiet).await;
    assert!(!mark(&quiet).stands());
    assert_eq!((journal.head().pos, journal.epoch()), (1, Epoch(2)));
    // The file without its WAL: all that was there before this opening, and nothing that it has added.
    let alone = without_wal(&file(&quiet));
    let mut looking = intruder(&alone).await;
    let epoch = sqlx::query_scalar("select epoch from journal_meta where id = 1");
    let epoch: i64 = epoch.fetch_one(&mut looking).await.unwrap();
    assert_eq!(epoch, 1);
    looking.close().await.unwrap();
    journal.close().await;
}

#[tokio::test]
async fn an_opening_that_is_over_waits_for_nobody_who_reads() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    append(&journal, Owner::stocked(1, 1).seal(T0));
    let mut reader = intruder(&dir).await;
    sqlx::query("begin").execute(&mut reader).await.unwrap();
    sqlx::query("select epoch from journal_meta").fetch_one(&mut reader).await.unwrap();
    tokio::time::timeout(Duration::from_secs(4), journal.abandon()).await.expect("it waits");
    let journal = open(&dir).await;
    assert_eq!(journal.head().pos, 1);
    sqlx::query("rollback").execute(&mut reader).await.unwrap();
    reader.close().await.unwrap();
    journal.close().await;
}

const SAY_FORMAT: &str = "update journal_meta set format_number = ? where id = 1";

/// A program of the version before meets a number that it does not know.
#[tokio::test]
async fn a_journal_of_a_newer_version_is_neither_opened_nor_read() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.close().await;
    let mut vandal = intruder(&dir).await;
    // One that stood there before there was a number is as known as ours, and has ours from then on.
    for (before, after) in [(0, FORMAT), (FORMAT, FORMAT)] {
        sql::query(SAY_FORMAT).bind(before).execute(&mut vandal).await.unwrap();
        open(&dir).await.close().await;
        assert_eq!(format_of(&mut vandal).await.unwrap(), after);
    }
    sql::query(SAY_FORMAT).bind(FORMAT + 1).execute(&mut vandal).await.unwrap();
    let refused = Journal::open(config(&dir)).await.err().unwrap().to_string();
    assert!(refused.contains("written by a newer version"), "{refused}");
    let unread = JournalReader::of_stopped(dir.path()).await.err().unwrap();
    assert!(matches!(unread, StoreError::Newer { .. }), "{unread}");
    let found = sqlx::query_as("select epoch, format_number from journal_meta").fetch_one(&mut vandal);
    let found: (i64, i64) = found.await.unwrap();
    assert_eq!(found, (3, FORMAT + 1), "nothing is changed");
    vandal.close().await.unwrap();
}

/// A disk that has room for all but another file says so at the start, and not that something could not be read.
#[test]
fn a_start_without_room_for_a_file_says_what_there_is_no_room_for() {
    for (errno, said) in [
        (rustix::io::Errno::NOSPC, "the disk is full"),
        (rustix::io::Errno::MFILE, "too many files are open"),
        (rustix::io::Errno::IO, "os error 5"),
    ] {
        let refused = OpenError::NoFile { dir: "/data".into(), error: errno.into() }.to_string();
        assert!(refused.starts_with("another file of the log cannot be made in /data: "), "{refused}");
        assert!(refused.contains(said), "{refused}");
    }
}
