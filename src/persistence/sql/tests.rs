//! What is particular to a server: its connections are lost, its transactions meet those of others, its nodes start together.

use std::time::Duration;

use super::error::{Trouble, trouble};
use super::mysql::{Server, freeze};
use super::*;
use crate::persistence::Tables;
use crate::persistence::store::Store;
use crate::persistence::testing::{Home, new_database};

const MOVE: &str = "update flush_checkpoint set pos = pos + 1 where id = 1";
const TRAIL: &str = "update trail_head set sequence = sequence + 1 where id = 1";

async fn pos(store: &Store) -> i64 {
    let pos = query_scalar("select pos from flush_checkpoint where id = 1");
    pos.fetch_one(&store.readers()).await.unwrap()
}

async fn id(connection: &mut Connection) -> i64 {
    query_scalar("select cast(connection_id() as signed)").fetch_one(connection).await.unwrap()
}

async fn kill(store: &Store, id: i64) {
    query("kill ?").bind(id).execute(&store.readers()).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_was_lost_is_replaced_and_its_transaction_undone() {
    let (_dir, tables) = Home::MySql.tables().await;
    let store = tables.jobs().store;
    let lost = id(&mut store.writer().await.unwrap()).await;
    kill(&store, lost).await;
    assert_eq!(store.write_synced(query(MOVE)).await.unwrap(), 1);
    assert_eq!(pos(&store).await, 1);

    let mut transaction = store.begin_synced().await.unwrap();
    query(MOVE).execute(&mut *transaction).await.unwrap();
    let lost = id(&mut transaction).await;
    kill(&store, lost).await;
    let error = transaction.end::<(), Error>(Ok(())).await.unwrap_err();
    assert_eq!(trouble(&error), Trouble::Lost, "{error}");
    assert_eq!(pos(&store).await, 1);
    assert_eq!(store.write_synced(query(MOVE)).await.unwrap(), 1);
    assert_eq!(pos(&store).await, 2);
}

#[tokio::test]
async fn of_two_transactions_that_wait_for_each_other_one_may_be_tried_again() {
    let url = new_database().await;
    let tables = Tables::connect(&url).await.unwrap();
    let server = Server::at(&url).unwrap();
    let mut one = Connection::MySql(server.connect().await.unwrap());
    let mut other = Connection::MySql(server.connect().await.unwrap());
    for (session, sql) in [(&mut one, MOVE), (&mut other, TRAIL)] {
        begin(session).await.unwrap();
        query(sql).execute(session).await.unwrap();
    }
    let (first, second) = tokio::join!(query(TRAIL).execute(&mut one), query(MOVE).execute(&mut other));
    let troubles = [first, second].map(|done| done.err().map(|error| trouble(&error)));
    assert!(troubles.contains(&None) && troubles.contains(&Some(Trouble::Conflict)), "{troubles:?}");
    tables.close().await.unwrap();
}

#[tokio::test]
async fn nodes_that_start_at_once_find_one_set_of_tables() {
    let url = new_database().await;
    let (one, other, third) =
        tokio::join!(Tables::connect(&url), Tables::connect(&url), Tables::connect(&url));
    for tables in [one, other, third] {
        let tables = tables.unwrap();
        assert_eq!(tables.flushed_pos().await.unwrap(), 0);
        tables.close().await.unwrap();
    }
}

/// Says that a file of a folder was begun and no more; what stands behind that takes its work back, or what came later.
const INTERRUPTED: [&[&str]; 8] = [
    &["update migrations_of_people set success = false where version = 26"],
    &["update migrations_of_people set success = false where version = 27"],
    &["update migrations_of_money set success = false where version = 12"],
    &["update migrations_of_nodes set success = false where version = 13"],
    &[
        "update migrations_of_tables set success = false where version = 24",
        "drop table notices",
        "delete from migrations_of_money where version = 11",
    ],
    &[
        "update migrations_of_people set success = false where version = 27",
        "drop index hold_reminders_due on hold_reminders",
    ],
    &[
        "update migrations_of_money set success = false where version = 12",
        "alter table refunds drop column body_hash",
    ],
    &[
        "update migrations_of_nodes set success = false where version = 13",
        "alter table node_sessions add column leaving bigint not null default 0",
    ],
];
const BEGUN: &str = "select cast(count(*) as signed) from (select success from migrations_of_tables \
    union all select success from migrations_of_people union all select success from migrations_of_money \
    union all select success from migrations_of_nodes) all_of_them where success = 0";
/// What the files make that were interrupted.
const MADE: [&str; 4] = [
    "select due_at_ms from hold_reminders force index (hold_reminders_due) limit 1",
    "select body_hash from refunds limit 1",
    "select count(*) from notice_slices",
    "select count(*) from notices",
];

/// A process that was killed between a change of a table, which MySQL commits by itself, and the word that it was made.
#[tokio::test]
async fn a_migration_that_was_interrupted_is_finished_by_the_next_start() {
    let url = new_database().await;
    Tables::connect(&url).await.unwrap().close().await.unwrap();
    let mut clerk = Connection::MySql(Server::at(&url).unwrap().connect().await.unwrap());
    for left in INTERRUPTED {
        for sql in left {
            query(sql).execute(&mut clerk).await.unwrap();
        }
        let tables = Tables::connect(&url).await.unwrap_or_else(|error| panic!("{left:?}: {error}"));
        tables.close().await.unwrap();
        let begun: i64 = query_scalar(BEGUN).fetch_one(&mut clerk).await.unwrap();
        assert_eq!(begun, 0, "{left:?}");
    }
    for made in MADE {
        assert!(query(made).fetch_optional(&mut clerk).await.is_ok(), "{made}");
    }
    assert!(query("select leaving from node_sessions").fetch_optional(&mut clerk).await.is_err());
}

#[tokio::test]
async fn a_migration_that_fails_again_is_not_done() {
    let url = new_database().await;
    Tables::connect(&url).await.unwrap().close().await.unwrap();
    let mut clerk = Connection::MySql(Server::at(&url).unwrap().connect().await.unwrap());
    for sql in [INTERRUPTED[1][0], "rename table hold_reminders to away"] {
        query(sql).execute(&mut clerk).await.unwrap();
    }
    for _ in 0..2 {
        let failed = Tables::connect(&url).await.map(drop).unwrap_err().to_string();
        assert!(failed.contains("migration 27"), "{failed}");
    }
    query("rename table away to hold_reminders").execute(&mut clerk).await.unwrap();
    Tables::connect(&url).await.unwrap().close().await.unwrap();
}

/// Takes a change of the outbox back, as if it were a newer version's.
const BEHIND: [&str; 2] =
    ["delete from migrations_of_people where version = 31", "drop index outbox_by_subject on outbox"];
const WAITING: &str = "select cast(count(*) as signed) from information_schema.processlist \
    where db = database() and state = 'Waiting for table metadata lock'";
const LETTER: &str = "insert into outbox (id, kind, locale, wrapped_key, recipient, letter, state, tries, next_at_ms, \
    created_at_ms, version) values (?, 'none', 'en', x'00', x'00', x'00', 'dead', 0, 0, 0, 1)";

/// Returns when somebody waits for a table of this database that others use.
async fn somebody_waits(clerk: &mut Connection) {
    loop {
        let waiting: i64 = query_scalar(WAITING).fetch_one(&mut *clerk).await.unwrap();
        if waiting > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// As a backup does, which has read one table and goes on reading others.
#[tokio::test]
async fn a_migration_waits_for_whoever_reads_in_tries_between_which_others_write() {
    let url = new_database().await;
    Tables::connect(&url).await.unwrap().close().await.unwrap();
    let server = Server::at(&url).unwrap();
    let mut clerk = Connection::MySql(server.connect().await.unwrap());
    for sql in BEHIND {
        query(sql).execute(&mut clerk).await.unwrap();
    }
    let mut backup = server.connect().await.unwrap();
    freeze(&mut backup).await.unwrap();
    let mut backup = Connection::MySql(backup);
    query("select id from outbox").fetch_optional(&mut backup).await.unwrap();
    let selling = async {
        for id in [1_u8, 2] {
            somebody_waits(&mut clerk).await;
            let added = query(LETTER).bind(vec![id]).execute(&mut clerk).await;
            assert_eq!(added.unwrap().rows_affected(), 1);
        }
        query("commit").execute(&mut backup).await.unwrap();
    };
    let both = async { tokio::join!(Tables::connect(&url), selling) };
    let (tables, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it goes on waiting");
    tables.unwrap().close().await.unwrap();
    let made = query("select id from outbox force index (outbox_by_subject) where subject_id is null");
    assert_eq!(made.fetch_all(&mut clerk).await.unwrap().len(), 2);
    let begun: i64 = query_scalar(BEGUN).fetch_one(&mut clerk).await.unwrap();
    assert_eq!(begun, 0);
}

/// It waits for no day, as the server would have it, and what it was to write is certainly not written.
#[tokio::test]
async fn a_table_that_somebody_has_for_himself_is_not_waited_for_without_end() {
    let url = new_database().await;
    let tables = Tables::connect(&url).await.unwrap();
    let store = tables.jobs().store;
    let mut clerk = Connection::MySql(Server::at(&url).unwrap().connect().await.unwrap());
    query("lock tables flush_checkpoint write").execute(&mut clerk).await.unwrap();
    let Err(StoreError::Sql(error)) = store.write_synced(query(MOVE)).await else { panic!("it is written") };
    assert_eq!(trouble(&error), Trouble::Conflict, "{error}");
    query("unlock tables").execute(&mut clerk).await.unwrap();
    assert_eq!(store.write_synced(query(MOVE)).await.unwrap(), 1);
    assert_eq!(pos(&store).await, 1);
    tables.close().await.unwrap();
}

#[tokio::test]
async fn a_word_that_is_too_long_is_refused_and_not_cut() {
    let (_dir, tables) = Home::MySql.tables().await;
    let name = "n".repeat(65);
    let insert = query("insert into jobs (name, finished_at_ms, version) values (?, 1, 1)").bind(name);
    assert!(tables.jobs().store.write_synced(insert).await.is_err());
}

#[rstest::rstest]
#[tokio::test]
async fn a_row_that_is_there_already_is_told_apart(#[values(Home::Sqlite, Home::MySql)] home: Home) {
    let (_dir, tables) = home.tables().await;
    let mut writer = tables.writer().await.unwrap();
    let again = query("insert into flush_checkpoint (id, pos) values (1, 0)").execute(&mut *writer).await;
    assert!(is_duplicate(&again.unwrap_err()));
}
