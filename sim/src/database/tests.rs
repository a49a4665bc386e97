//! Who waits for whom, and what he sees then.

use super::*;

const ENTRY: Statement = Statement::Insert { place: 1, product: 1, first: 1 };

fn two_sessions() -> Database {
    let mut database = Database::new(2, None);
    for number in [1, 2] {
        assert_eq!(database.ask(9, Statement::Join(number)), Some(Answer::Done(1)));
        assert_eq!(database.ask(9, Statement::FirstBeat(number)), Some(Answer::Done(1)));
    }
    database
}

#[test]
fn a_seal_waits_for_whoever_holds_the_session() {
    let mut database = two_sessions();
    database.ask(1, Statement::Begin);
    assert_eq!(database.ask(1, Statement::HoldSession(1)), Some(Answer::Done(1)));
    assert_eq!(database.ask(2, Statement::Seal { session: 1, beat: 0 }), None);
    assert_eq!(database.ask(1, ENTRY), Some(Answer::Done(1)));
    assert_eq!(database.ask(1, Statement::Commit), Some(Answer::Done(0)));
    assert_eq!(database.answered(), [(2, Answer::Done(2))]);
    assert_eq!(database.ask(1, Statement::HoldSession(1)), Some(Answer::Done(0)));
    assert_eq!(database.entries().count(), 1);
}

#[test]
fn a_heart_waits_for_no_writer_and_a_seal_that_does_sees_it_beat() {
    let mut database = two_sessions();
    database.ask(1, Statement::Begin);
    database.ask(1, Statement::HoldSession(1));
    assert_eq!(database.ask(2, Statement::Seal { session: 1, beat: 0 }), None);
    assert_eq!(database.ask(3, Statement::Beat(1)), Some(Answer::Done(1)));
    assert_eq!(database.ask(3, Statement::Lives(1)), Some(Answer::Done(1)));
    database.ask(1, Statement::Commit);
    assert_eq!(database.answered(), [(2, Answer::Done(0))]);
    assert_eq!(database.ask(2, Statement::Seal { session: 1, beat: 1 }), Some(Answer::Done(2)));
    assert_eq!(database.ask(3, Statement::Lives(1)), Some(Answer::Done(0)));
}

#[test]
fn places_follow_the_order_of_commits_and_a_kill_gives_them_back() {
    let mut database = two_sessions();
    for by in [1, 2, 3] {
        database.ask(by, Statement::Begin);
    }
    assert_eq!(database.ask(1, Statement::TakePlaces(2)), Some(Answer::Value(2)));
    assert_eq!(database.ask(2, Statement::TakePlaces(1)), None);
    assert_eq!(database.ask(3, Statement::TakePlaces(1)), None);
    assert_eq!(database.kill(1), None);
    assert_eq!(database.answered(), [(2, Answer::Value(1))]);
    database.ask(2, Statement::Commit);
    assert_eq!(database.answered(), [(3, Answer::Value(2))]);
    assert_eq!(database.end(), 1);
}

#[test]
fn a_key_that_is_not_committed_is_waited_for() {
    let mut database = two_sessions();
    database.ask(1, Statement::Begin);
    database.ask(1, ENTRY);
    let other = Statement::Insert { place: 2, product: 1, first: 1 };
    assert_eq!(database.ask(2, other), None);
    let mut lost = database.clone();
    lost.kill(1);
    assert_eq!(lost.answered(), [(2, Answer::Done(1))]);
    database.ask(1, Statement::Commit);
    assert_eq!(database.answered(), [(2, Answer::Duplicate)]);
}
