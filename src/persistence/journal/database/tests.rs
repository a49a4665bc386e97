//! What the home in a database owes besides: one node writes, another takes over, and a connection that is lost loses nothing.

use std::sync::atomic::AtomicBool;

use sqlx::Executor;

use super::*;
use crate::clock::Clock;
use crate::domain::id::{ProductId, SHARDS};
use crate::domain::stock::{Entry, FORMAT, Ledger, Sequence};
use crate::persistence::journal::{Append, AppendTo, Appended, Journal, of_idle};
use crate::persistence::testing::*;

/// A heart that beats so seldom that it seems to stand still.
const STOPPED: Timing = Timing {
    beat_every: Duration::from_secs(3_600),
    look_every: Duration::from_millis(20),
    look_again: Duration::from_millis(20),
    dead_after: Duration::from_secs(2),
    gap_max: Duration::from_millis(1_500),
    lease: Duration::from_millis(150),
};
const BEATING: Timing =
    Timing { beat_every: Duration::from_millis(50), lease: Duration::from_secs(60), ..STOPPED };

async fn node(url: &str, timing: Timing) -> Journal {
    let config = DatabaseConfig { timing, ..DatabaseConfig::new(url, Clock::start()) };
    Journal::connect(config).await.unwrap().0
}

/// One that owns what it is given.
async fn beside(url: &str, timing: Timing) -> Journal {
    let config = DatabaseConfig { timing, ..DatabaseConfig::new(url, Clock::start()) };
    Journal::join(config).await.unwrap().0
}

async fn clerk(url: &str) -> mysql::Session {
    Server::at(url).unwrap().connect().await.unwrap()
}

/// The product's ledger as the journal has it.
async fn read_again(journal: &Journal, owner: &Owner) -> Ledger {
    let stored = journal.reader().load(owner.product).await.unwrap();
    let mut ledger = Ledger::default();
    stored.entries.iter().for_each(|entry| ledger.replay(entry).unwrap());
    ledger
}

#[tokio::test]
async fn a_node_that_leaves_makes_room_at_once() {
    let url = new_database().await;
    let mut owner = Owner::stocked(1, 10);
    let first = node(&url, BEATING).await;
    assert_eq!(append(&first, owner.seal(T0)), Appended::Written);
    first.close().await;
    let patient = Timing { dead_after: Duration::from_secs(3_600), ..BEATING };
    let second = tokio::time::timeout(Duration::from_secs(30), node(&url, patient)).await.unwrap();
    assert_eq!((first.epoch(), second.epoch()), (Epoch(1), Epoch(2)));
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    assert_eq!(append(&second, owner.seal(T0)), Appended::Written);
    assert_eq!(read_again(&second, &owner).await.digest(), owner.ledger.digest());
    second.close().await;
}

/// Whoever opens on it asks when its session has ended already.
#[tokio::test]
async fn a_node_that_has_led_is_known_to_have() {
    let (url, neighbours) = (new_database().await, Arc::new(Neighbours::new(None, true)));
    let config = DatabaseConfig { timing: BEATING, ..DatabaseConfig::new(&url, Clock::start()) };
    let node = Journal::connect(DatabaseConfig { neighbours: neighbours.clone(), ..config }).await.unwrap().0;
    node.close().await;
    let [leads, has_led] = [&neighbours.joined, &neighbours.has_led].map(|flag| flag.load(Ordering::Acquire));
    assert!(!leads && has_led);
}

#[tokio::test]
async fn whoever_stands_by_waits_for_as_long_as_the_other_one_beats() {
    let url = new_database().await;
    let first = node(&url, BEATING).await;
    let waiting = tokio::time::timeout(2 * BEATING.dead_after, node(&url, BEATING)).await;
    assert!(waiting.is_err(), "two nodes write");
    assert_eq!(append(&first, Owner::stocked(1, 10).seal(T0)), Appended::Written);
    first.close().await;
}

/// Whoever writes for long, as the flush may, holds on to the row of its session.
#[tokio::test]
async fn a_heart_waits_for_no_writer_and_no_writer_for_a_heart() {
    let url = new_database().await;
    let node = node(&url, BEATING).await;
    let (mut writer, mut owner) = (clerk(&url).await, Owner::stocked(1, 10));
    writer.connection().execute("start transaction").await.unwrap();
    let hold =
        "select number from node_sessions where number = 1 and coalesce(active, 0) <> 0 lock in share mode";
    assert!(writer.connection().fetch_optional(hold).await.unwrap().is_some());
    let mut clerk = Connection::MySql(clerk(&url).await);
    let mut beat = async || -> i64 {
        let beat = sql::query_scalar("select beat from node_beats where number = 1");
        beat.fetch_one(&mut clerk).await.unwrap()
    };
    let before = beat().await;
    let beating = async {
        while beat().await < before + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), beating).await.expect("the heart waits for the writer");
    assert_eq!(append(&node, owner.seal(T0)), Appended::Written);
    writer.connection().execute("rollback").await.unwrap();
    node.close().await;
}

/// A database that answers and does not write makes the healthiest heart stand still.
#[tokio::test]
async fn whoever_cannot_write_declares_nobody_dead() {
    let url = new_database().await;
    let stopped = node(&url, STOPPED).await;
    let mut clerk = clerk(&url).await;
    clerk.connection().execute("lock tables node_standbys write").await.unwrap();
    let waiting = tokio::time::timeout(2 * BEATING.dead_after, node(&url, BEATING)).await;
    assert!(waiting.is_err(), "it believed its eyes");
    assert_eq!(append(&stopped, Owner::stocked(1, 10).seal(T0)), Appended::Written);
    clerk.connection().execute("unlock tables").await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(30), node(&url, BEATING)).await.unwrap();
    assert_eq!(append(&next, Owner::stocked(2, 10).seal(T0)), Appended::Written);
    stopped.close().await;
    next.close().await;
}

/// Somebody else's lock, for longer than it is waited for, and a table that is away for a while.
#[tokio::test]
async fn whoever_stands_by_outlasts_whatever_the_database_says() {
    tokio::task::LocalSet::new().run_until(locked_and_away()).await;
}

async fn locked_and_away() {
    let url = new_database().await;
    let first = node(&url, BEATING).await;
    let mut clerk = clerk(&url).await;
    let second = tokio::task::spawn_local({
        let url = url.clone();
        async move { node(&url, BEATING).await }
    });
    let looking = async {
        while clerk.connection().fetch_optional("select node_id from node_standbys").await.unwrap().is_none()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it stands by");
    clerk.connection().execute("begin").await.unwrap();
    clerk.connection().fetch_all("select node_id from node_standbys for update").await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    clerk.connection().execute("commit").await.unwrap();
    assert!(!second.is_finished(), "a lock has ended it");
    clerk.connection().execute("rename table node_standbys to away").await.unwrap();
    tokio::time::sleep(BEATING.dead_after + Duration::from_secs(1)).await;
    // Nobody is there to be seen, and it sees nothing.
    first.close().await;
    tokio::time::sleep(BEATING.dead_after + Duration::from_secs(1)).await;
    assert!(!second.is_finished(), "a table that was away has ended it");
    clerk.connection().execute("rename table away to node_standbys").await.unwrap();
    let second = tokio::time::timeout(Duration::from_secs(20), second).await.unwrap().unwrap();
    assert_eq!(
        (append(&second, Owner::stocked(1, 10).seal(T0)), second.epoch()),
        (Appended::Written, Epoch(2))
    );
    second.close().await;
}

/// Both were started at the same moment: one of them is the lead, whichever that is.
#[tokio::test]
async fn of_two_that_start_at_once_one_leads() {
    let url = new_database().await;
    let journal = tokio::select! {
        first = node(&url, BEATING) => first,
        second = node(&url, BEATING) => second,
    };
    assert!(journal.leads() && journal.is_led_by(journal.epoch().0).await.unwrap());
    journal.close().await;
}

#[tokio::test]
async fn a_node_whose_heart_has_stopped_is_replaced_and_writes_nothing_more() {
    let url = new_database().await;
    let (mut owner, mut other) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    let stopped = node(&url, STOPPED).await;
    assert_eq!(append(&stopped, owner.seal(T0)), Appended::Written);
    let next = node(&url, BEATING).await;
    assert_eq!(read_again(&next, &owner).await.digest(), owner.ledger.digest());
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    assert_eq!(append(&next, owner.seal(T0)), Appended::Written);
    // Whoever has only slept does not even say *sold out* any more.
    assert!(!stopped.is_writable() && !stopped.is_the_only_one());
    assert!(next.is_writable() && next.is_the_only_one());
    // It wakes up, with one product and with two: none of it is in the journal, and it knows that it is over.
    let fenced = Appended::NotWritten(NotWritten::Fenced);
    let both = vec![other.seal(T0), Owner::stocked(3, 1).seal(T0)];
    assert_eq!(append_all(&stopped, both), [fenced, fenced]);
    assert_eq!(stopped.health(), Health::Fenced);
    assert!(*stopped.fatal().borrow());
    assert!(read_again(&next, &other).await.sequence().0 == 0);
    assert_eq!(append(&next, Owner::stocked(4, 1).seal(T0)), Appended::Written);
    stopped.close().await;
    next.close().await;
}

/// It was cut off, comes back, and takes its successor for a node that it cannot reach.
#[tokio::test]
async fn whoever_was_replaced_ends_nobody() {
    let url = new_database().await;
    let replaced = node(&url, STOPPED).await;
    let lead = node(&url, BEATING).await;
    let mut owner = Owner::stocked(1, 10);
    assert_eq!(append(&lead, owner.seal(T0)), Appended::Written);
    let mut clerk = clerk(&url).await;
    let writers = mysql::writers(&mut clerk, 2).await;
    assert!(replaced.end_session(2).await.is_err(), "it is dead");
    assert!(!writers.is_empty() && mysql::writers(&mut clerk, 2).await == writers, "they were ended");
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    assert_eq!(append(&lead, owner.seal(T0)), Appended::Written);
    lead.close().await;
    replaced.close().await;
}

#[tokio::test]
async fn whoever_has_another_time_does_not_join() {
    let url = new_database().await;
    let clock = Clock::start();
    clock.advance(3_600_000);
    let told = Journal::join(DatabaseConfig::new(&url, clock)).await.map(drop).unwrap_err().to_string();
    assert!(told.contains("3600 seconds ahead") || told.contains("3599 seconds ahead"), "{told}");
    node(&url, BEATING).await.close().await;
}

#[tokio::test]
async fn a_clock_that_goes_wrong_later_is_seen() {
    let (url, clock) = (new_database().await, Clock::start());
    let (node, _) = Journal::connect(DatabaseConfig::new(&url, clock.clone())).await.unwrap();
    for (moved_ms, apart) in [(0, -500..=500), (60_000, 59_000..=60_500), (-120_000, -60_500..=-59_000)] {
        clock.advance(moved_ms);
        let ahead_ms = node.ahead_ms().await.unwrap().unwrap();
        assert!(apart.contains(&ahead_ms), "{ahead_ms} after {moved_ms}");
    }
    node.close().await;
}

/// Somebody else's lock, for longer than any group takes.
#[tokio::test]
async fn a_database_is_silent_until_it_says_what_became_of_a_group() {
    let url = new_database().await;
    let node = node(&url, BEATING).await;
    let mut owner = Owner::stocked(1, 10);
    assert_eq!((append(&node, owner.seal(T0)), node.is_silent()), (Appended::Written, false));
    let mut clerk = clerk(&url).await;
    clerk.connection().execute("begin").await.unwrap();
    clerk.connection().fetch_all("select pos from journal_end for update").await.unwrap();
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    let silent = async {
        while !node.is_silent() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clerk.connection().execute("rollback").await.unwrap();
    };
    let silent = tokio::time::timeout(Duration::from_secs(30), silent);
    let (silent, told) = tokio::join!(silent, told(&node, owner.seal(T0)));
    silent.expect("nobody notices");
    assert_eq!((told, node.is_silent()), (Appended::Written, false));
    node.close().await;
}

/// A replica that had not received everything has become the database.
#[tokio::test]
async fn behind_what_was_forgotten_nothing_is_written() {
    let url = new_database().await;
    let journal = node(&url, Timing::default()).await;
    let (mut owner, mut other) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    assert_eq!(append_all(&journal, vec![other.seal(T0), owner.seal(T0)]), [Appended::Written; 2]);
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    let mut clerk = clerk(&url).await;
    cut(&mut clerk).await;
    owner.hold(order(2, owner.product), buyer(2), 1, T0);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written, "a connection that was lost and no more");
    for forgotten in ["delete from journal where pos = 4", "update journal_end set pos = 3"] {
        clerk.connection().execute(forgotten).await.unwrap();
    }
    cut(&mut clerk).await;
    other.hold(order(3, other.product), buyer(3), 1, T0);
    assert_eq!(append(&journal, other.seal(T0)), Appended::NotWritten(NotWritten::Fenced));
    assert!(*journal.fatal().borrow());
    journal.close().await;
}

/// The same, and what is gone is others': the lead has seen where the journal ended.
#[rstest::rstest]
#[tokio::test]
async fn whoever_has_seen_what_was_forgotten_is_over(#[values(true, false)] looks: bool) {
    let url = new_database().await;
    let lead = node(&url, BEATING).await;
    let beside = beside(&url, BEATING).await;
    let (mut own, mut others) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    assert_eq!(append(&lead, own.seal(T0)), Appended::Written);
    assert_eq!(append(&beside, others.seal(T0)), Appended::Written);
    assert_eq!(lead.look_at_end().await.unwrap().pos, 2);
    let mut clerk = clerk(&url).await;
    for forgotten in ["delete from journal where pos = 2", "update journal_end set pos = 1"] {
        clerk.connection().execute(forgotten).await.unwrap();
    }
    if looks {
        assert!(matches!(lead.look_at_end().await, Err(StoreError::Forgotten)));
    } else {
        cut(&mut clerk).await;
        own.hold(order(1, own.product), buyer(1), 1, T0);
        assert_eq!(append(&lead, own.seal(T0)), Appended::NotWritten(NotWritten::Fenced));
    }
    assert!(*lead.fatal().borrow() && lead.health() == Health::Fenced);
    lead.close().await;
    beside.close().await;
}

/// A transaction that a stopped process has left open is undone before anybody reads.
#[tokio::test]
async fn what_a_stopped_node_has_left_open_is_undone() {
    let url = new_database().await;
    let stopped = node(&url, STOPPED).await;
    let number = i64::try_from(stopped.epoch().0).unwrap();
    let mut hung = Server::at(&url).unwrap().of_node(number).connect().await.unwrap();
    mysql::begin(&mut hung).await.unwrap();
    let next = node(&url, BEATING).await;
    assert_eq!(append(&next, Owner::stocked(1, 1).seal(T0)), Appended::Written);
    assert!(hung.connection().execute("commit").await.is_err(), "it was ended");
    next.close().await;
    stopped.close().await;
}

/// Its connections are cut again and again while it writes: what it says is true, and nothing is written twice.
#[tokio::test]
async fn a_writer_that_loses_its_connection_tells_the_truth() {
    let url = new_database().await;
    let journal = node(&url, Timing::default()).await;
    let mut owner = Owner::stocked(1, 1_000_000);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    let over = Arc::new(AtomicBool::new(false));
    let cutting = tokio::spawn(cut_again_and_again(url, over.clone()));
    for number in 1..=1_000 {
        owner.hold(order(number, owner.product), buyer(number), 1, T0);
        let entry = owner.seal(T0);
        loop {
            let told = told(&journal, entry.clone()).await;
            if told == Appended::Written {
                break;
            }
            while journal.health() != Health::Healthy {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Of what it did not find out in time anything may be so. What it denies is not.
            let stands = read_again(&journal, &owner).await.sequence() == entry.last;
            assert!(!stands || told == Appended::Unknown, "{told:?}, and it stands");
            if stands {
                break;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    assert!(cutting.await.unwrap() > 3);
    assert_eq!(read_again(&journal, &owner).await.digest(), owner.ledger.digest());
    assert_eq!(journal.health(), Health::Healthy);
    journal.close().await;
}

async fn told(journal: &Journal, entry: Entry) -> Appended {
    let (answer, answered) = oneshot::channel();
    let reply = Box::new(move |outcome| answer.send(outcome).unwrap());
    assert!(journal.submit(Append { entry, reply }).is_ok());
    tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap().unwrap()
}

/// Ends whatever connection bears the node's marks, at odd moments. Says how many.
async fn cut_again_and_again(url: String, over: Arc<AtomicBool>) -> usize {
    let mut clerk = clerk(&url).await;
    let mut many = 0;
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(23)).await;
        many += cut(&mut clerk).await;
    }
    many
}

/// Cuts the connections of the first node's writers.
async fn cut(clerk: &mut mysql::Session) -> usize {
    let mut many = 0;
    for place in 0..4 {
        many += usize::from(mysql::cut_writer(clerk, 1, place).await);
    }
    many
}

/// As of an owner whose product has moved: whoever has it now was quicker.
#[tokio::test]
async fn a_snapshot_that_is_overtaken_on_its_way_takes_itself_away() {
    let url = new_database().await;
    let node = node(&url, BEATING).await;
    let mut writer = Connection::MySql(clerk(&url).await);
    let (saved, outcome) = oneshot::channel();
    let mut late = Box::new(Saving::new(product(1), Sequence(1), vec![1; 600_000], saved));
    let mut slices = 0;
    loop {
        late = match late.slice(&mut writer).await {
            Ok(Progress::More(rest)) => rest,
            Ok(Progress::Done) => break,
            Err((_, error)) => panic!("{error}"),
        };
        slices += 1;
        if slices == 1 {
            node.save_snapshot(product(1), Sequence(2), vec![2; 600_000]).await.unwrap();
        }
    }
    assert!(slices > 3 && outcome.await.unwrap().is_ok(), "there is a better one");
    assert_eq!(node.reader().snapshots(product(1)).await, [(2, 3, 3)]);
    assert_eq!(node.reader().load(product(1)).await.unwrap().snapshot.unwrap()[0], 2);
    node.close().await;
}

/// Places follow each other without a gap, over all nodes, and whoever reads in their order misses nothing.
#[tokio::test]
async fn several_nodes_write_one_journal() {
    const ENTRIES: u64 = 60;
    let url = new_database().await;
    let lead = node(&url, BEATING).await;
    let others = [beside(&url, BEATING).await, beside(&url, BEATING).await];
    let writing = [&lead, &others[0], &others[1]].into_iter().zip(1..).map(|(journal, number)| async move {
        let mut owner = Owner::stocked(number, 10_000);
        for held in 0..ENTRIES {
            assert_eq!(append(journal, owner.seal(T0)), Appended::Written);
            owner.hold(order(u128::from(held) + 1, owner.product), buyer(1), 1, T0);
            tokio::task::yield_now().await;
        }
        owner
    });
    let owners = futures_util::future::join_all(writing).await;
    let (mut pos, mut read) = (0, 0);
    loop {
        let found = lead.reader().after(pos, 7).await.unwrap();
        let Some((last, _)) = found.last() else { break };
        assert!(found.iter().zip(pos + 1..).all(|((at, _), expected)| *at == expected));
        (pos, read) = (*last, read + found.len());
    }
    assert_eq!((pos, read), (180, 180));
    let end = lead.look_at_end().await.unwrap();
    assert_eq!((end.pos, end.events, lead.seen_end()), (180, end.events, end));
    for owner in &owners {
        // The last hold is not sealed.
        assert_eq!(read_again(&others[0], owner).await.sequence().0 + 1, owner.ledger.sequence().0);
    }
    for journal in others {
        journal.close().await;
    }
    lead.close().await;
}

#[tokio::test]
async fn a_node_knows_whether_another_is_there_that_may_own() {
    let url = new_database().await;
    let lead = node(&url, BEATING).await;
    assert!(!lead.has_peers());
    let other = beside(&url, BEATING).await;
    let mut peers = lead.peers();
    let come = peers.wait_for(|peers| peers.len() == 2);
    tokio::time::timeout(Duration::from_secs(30), come).await.unwrap().unwrap();
    assert!(lead.has_peers());
    other.close().await;
    let gone = peers.wait_for(|peers| peers.len() == 1);
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap().unwrap();
    assert!(!lead.has_peers());
    lead.close().await;
}

/// Whoever stops in the middle of its group holds up nobody: the server has all of it, or nothing.
#[tokio::test]
async fn an_owner_whose_heart_has_stopped_is_ended_by_the_lead() {
    let url = new_database().await;
    let lead = node(&url, BEATING).await;
    let stopped = beside(&url, STOPPED).await;
    let own = stopped.epoch().0.cast_signed();
    lead.give(&[5, 6], lead.epoch().0.cast_signed(), own).await.unwrap();
    assert_eq!(append(&stopped, Owner::stocked(1, 10).seal(T0)), Appended::Written);
    let mut peers = lead.peers();
    let come = peers.wait_for(|peers| peers.iter().any(|peer| peer.session == own));
    tokio::time::timeout(Duration::from_secs(30), come).await.unwrap().unwrap();
    let ended = peers.wait_for(|peers| !peers.is_empty() && peers.iter().all(|peer| peer.session != own));
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    let fenced = Appended::NotWritten(NotWritten::Fenced);
    assert_eq!(append(&stopped, Owner::stocked(2, 10).seal(T0)), fenced);
    let two = vec![Owner::stocked(3, 1).seal(T0), Owner::stocked(4, 1).seal(T0)];
    assert_eq!(append_all(&stopped, two), [fenced, fenced]);
    assert_eq!(append(&lead, Owner::stocked(5, 10).seal(T0)), Appended::Written);
    assert_eq!(lead.look_at_end().await.unwrap().pos, 2, "what was not written has left no gap");
    stopped.close().await;
    lead.close().await;
}

#[tokio::test]
async fn a_shard_s_epoch_grows_with_each_move_and_the_lead_s_term_never_falls() {
    let url = new_database().await;
    let patient = Timing { dead_after: Duration::from_secs(3_600), ..BEATING };
    let second = beside(&url, patient).await;
    let first = node(&url, patient).await;
    let (own, other) = (first.epoch().0.cast_signed(), second.epoch().0.cast_signed());
    let row = |rows: &[Owned], shard: u16| *rows.iter().find(|row| row.shard == shard).unwrap();
    let all = first.look_at_shards().await.unwrap();
    assert!(all.len() == usize::from(SHARDS) && all.iter().all(|row| (row.session, row.epoch) == (own, own)));
    let mut before = row(&all, 7).epoch;
    for (from, to) in [(own, other), (other, own), (own, other), (other, own), (own, other)] {
        first.give(&[7], from, to).await.unwrap();
        let all = second.look_at_shards().await.unwrap();
        assert!(row(&all, 7).session == to && row(&all, 7).epoch > before);
        before = row(&all, 7).epoch;
    }
    // What is somebody else's by now is not given away.
    first.give(&[7], own, own).await.unwrap();
    assert_eq!(row(&first.shards().await.unwrap(), 7).session, other);
    let product =
        (1..).map(|number| ProductId::new(T0, number)).find(|product| product.shard() == 7).unwrap();
    assert_eq!(second.epoch_of(product).0, before.unsigned_abs());
    let term = first.term();
    assert!(first.is_led_by(first.epoch().0).await.unwrap());
    first.close().await;
    second.lead().await.unwrap();
    assert!(second.is_led_by(second.epoch().0).await.unwrap() && second.term() >= term);
    let all = second.look_at_shards().await.unwrap();
    assert!(all.iter().all(|row| row.session == other));
    assert_eq!(row(&all, 7).epoch, before, "what it had it keeps");
    // Whoever has left gives nothing away.
    assert!(first.give(&[7], other, own).await.is_err());
    second.close().await;
}

/// Several may join at once. One that owns nothing writes nothing, so it raises nothing.
#[tokio::test]
async fn a_node_does_not_join_where_a_newer_one_has_written() {
    let url = new_database().await;
    let member = |may_own| DatabaseConfig {
        neighbours: Arc::new(Neighbours::new(None, may_own)),
        ..DatabaseConfig::new(&url, Clock::start())
    };
    let (one, other) = tokio::join!(Journal::join(member(true)), Journal::join(member(true)));
    let (one, other) = (one.unwrap().0, other.unwrap().0);
    let mut writer = Connection::MySql(clerk(&url).await);
    assert_eq!(format::format_of(&mut writer).await.unwrap(), FORMAT);
    let say = "update journal_meta set format_number = ? where id = 1";
    sql::query(say).bind(0_i64).execute(&mut writer).await.unwrap();
    let gateway = tokio::time::timeout(Duration::from_secs(2), Journal::join(member(false))).await;
    assert!(gateway.is_err(), "it stands by for as long as it is awaited");
    assert_eq!(format::format_of(&mut writer).await.unwrap(), 0);
    sql::query(say).bind(FORMAT + 1).execute(&mut writer).await.unwrap();
    for may_own in [true, false] {
        let refused = Journal::join(member(may_own)).await.map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Store(StoreError::Newer { .. })), "{refused}");
    }
    one.close().await;
    other.close().await;
    let unread = of_idle(&url).await.map(drop).unwrap_err();
    assert!(matches!(unread, OpenError::Store(StoreError::Newer { .. })), "{unread}");
}
