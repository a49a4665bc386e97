//! What an owner asks and forgets by itself.

use super::*;
use crate::actors::stock::testing::{one_for, product, settings};
use crate::domain::stock::{Attempt, CANCELLED_DROPPED_MAX, Cause, Reserve, decode_events};

/// A command that arrives then, for which somebody waits for ever.
fn command(token: u64, command: Command, at: i64) -> Input<u64> {
    Input::Ask { token, ask: Ask::Command(command), arrived: Millis(at), until: Millis(i64::MAX) }
}

/// A hold of one unit.
fn hold(number: u64, home: ProductId, at: i64) -> Input<u64> {
    command(number, Command::Reserve(one_for(number.into(), home, false)), at)
}

/// Everything that is decided is written at once.
fn write(owner: &mut Protocol<u64>, input: Input<u64>) -> Vec<Output<u64>> {
    let mut out = Vec::new();
    owner.step(input, &mut out);
    while out.iter().any(|output| matches!(output, Output::Append(_))) {
        out.clear();
        owner.step(Input::Appended(Outcome::Written), &mut out);
        owner.step(Input::Turn { lapse_until: Millis(i64::MIN) }, &mut out);
    }
    out
}

#[test]
fn of_very_many_orders_those_are_forgotten_first_that_were_due_first() {
    let home = product(1);
    let mut owner = Protocol::recover(home, Epoch(1), None, &[]).unwrap();
    let all = FORGOTTEN_MAX as u64 + FORGOTTEN_MIN as u64;
    write(&mut owner, command(0, Command::Create { settings: settings(), stock: all }, 0));
    for number in 1..=all {
        owner.step(hold(number, home, number.cast_signed()), &mut Vec::new());
        if !owner.has_room() {
            write(&mut owner, Input::Turn { lapse_until: Millis(0) });
        }
    }
    let (lapsed, lapse) = (Millis(i64::MAX / 2), |until| Input::Turn { lapse_until: until });
    while owner.ledger().counts().held > 0 {
        write(&mut owner, lapse(lapsed));
    }
    assert_eq!(owner.ledger().remembered() as u64, all);
    let forget = |before| Input::Forget { before: Millis(before), now: lapsed };
    let hold_ms = i64::from(settings().hold_ms);
    write(&mut owner, forget(hold_ms + FORGOTTEN_MIN as i64));
    assert_eq!(owner.ledger().remembered() as u64, all, "too few are over");
    let before = owner.ledger().sequence();
    owner.stored(before);
    write(&mut owner, forget(i64::MAX / 2));
    assert_eq!(owner.ledger().remembered(), FORGOTTEN_MIN);
    assert_eq!(owner.unsaved(), 1 + FORGOTTEN_MAX as u64, "each is worth as much as an event");
    for (stored, unsaved) in [(before, 1 + FORGOTTEN_MAX as u64), (before.next(), 0)] {
        owner.stored(stored);
        assert_eq!(owner.unsaved(), unsaved);
    }
    let last = one_for(all.into(), home, false).order;
    assert!(owner.ledger().order(home, last).is_some());
    write(&mut owner, forget(i64::MAX / 2));
    assert_eq!(owner.ledger().remembered(), 0);
    let before = owner.ledger().sequence();
    write(&mut owner, forget(i64::MAX / 2));
    assert_eq!(owner.ledger().sequence(), before, "nothing is worth no event");
}

/// So many holds of one unit each, made at 0 and written.
fn crowded(home: ProductId, holds: u64) -> Protocol<u64> {
    let mut owner = Protocol::recover(home, Epoch(1), None, &[]).unwrap();
    let create = command(0, Command::Create { settings: settings(), stock: 10_000 }, 0);
    for input in std::iter::once(create).chain((1..=holds).map(|number| hold(number, home, 0))) {
        write(&mut owner, input);
        write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    }
    assert_eq!(owner.ledger().counts().held, holds);
    owner
}

const ALL_DUE: Input<u64> = Input::Turn { lapse_until: Millis(i64::MAX / 2) };

#[test]
fn a_crowd_that_lapses_leaves_half_a_group_to_whoever_comes_behind_it() {
    let mut owner = crowded(product(1), 600);
    let mut lapsed = Vec::new();
    while owner.ledger().counts().held > 0 {
        let mut out = Vec::new();
        owner.step(ALL_DUE, &mut out);
        let [Output::Append(entry)] = &out[..] else { panic!("{out:?}") };
        let events = decode_events(&entry.events).unwrap();
        assert!(events.iter().all(|event| matches!(event, Event::Expired(_))));
        lapsed.push(events.len());
        owner.step(Input::Appended(Outcome::Written), &mut Vec::new());
    }
    assert_eq!(lapsed, [256, 256, 88]);
}

/// Somebody may wait outside who came before the deadline.
#[test]
fn onto_a_full_group_nothing_lapses() {
    let home = product(1);
    let mut owner = crowded(home, 1);
    owner.step(hold(2, home, 1), &mut Vec::new());
    owner.step(Input::Turn { lapse_until: Millis(1) }, &mut Vec::new());
    let mut numbers = 3..;
    while owner.has_room() {
        owner.step(hold(numbers.next().unwrap(), home, 1), &mut Vec::new());
    }
    let before = owner.ledger().sequence();
    owner.step(ALL_DUE, &mut Vec::new());
    assert_eq!(owner.ledger().sequence(), before);
    owner.step(Input::Appended(Outcome::Written), &mut Vec::new());
    owner.step(ALL_DUE, &mut Vec::new());
    assert!(owner.ledger().sequence() > before, "there is room again");
}

#[test]
fn what_came_behind_a_snapshot_is_unsaved_however_late_it_is_stored() {
    let home = product(1);
    let mut owner = Protocol::recover(home, Epoch(1), None, &[]).unwrap();
    let hold = |number: u64| hold(number, home, 0);
    write(&mut owner, command(0, Command::Create { settings: settings(), stock: 20 }, 0));
    for number in 1..=10 {
        write(&mut owner, hold(number));
        write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    }
    let stood = owner.written();
    assert_eq!((stood, owner.unsaved()), (owner.ledger().standing(), 11));
    // One is on its way to the journal, one is only decided.
    let mut out = Vec::new();
    for input in [hold(11), Input::Turn { lapse_until: Millis(0) }, hold(12)] {
        owner.step(input, &mut out);
    }
    assert!(matches!(&out[..], [Output::Append(_)]), "{out:?}");
    assert_eq!((owner.written(), owner.unsaved()), (stood, 13));
    owner.stored(stood.sequence);
    assert_eq!(owner.unsaved(), 2);
    owner.step(Input::Appended(Outcome::Written), &mut out);
    assert_eq!((owner.written().sequence, owner.unsaved()), (stood.sequence.next(), 2));
    // One that comes late stood there before.
    owner.stored(Sequence(1));
    assert_eq!(owner.unsaved(), 2);
}

#[test]
fn what_is_due_goes_before_whoever_waits_and_leaves_him_half_a_group() {
    let home = product(1);
    let mut owner = Protocol::recover(home, Epoch(1), None, &[]).unwrap();
    let half = u64::from(GROUP_LAPSES_MAX);
    write(&mut owner, command(0, Command::Create { settings: settings(), stock: 3 * half }, 0));
    let reserve = |number: u64| hold(number, home, 0);
    for number in 1..=half + 9 {
        owner.step(reserve(number), &mut Vec::new());
    }
    write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    let deadline = Millis(i64::from(settings().hold_ms));
    assert!(owner.is_due(deadline) && !owner.is_due(deadline.plus(-1)));
    let mut out = Vec::new();
    for _ in 0..2 {
        owner.step(Input::Due { until: deadline }, &mut out);
        assert_eq!((owner.ledger().counts().held, owner.open_events() as u64), (9, half));
        assert!(out.is_empty(), "nothing is written yet: {out:?}");
    }
    write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    // A group that is half full by others takes it at the end of a turn, or the next group does.
    for number in half + 10..2 * half + 10 {
        owner.step(reserve(number), &mut out);
    }
    owner.step(Input::Due { until: deadline }, &mut out);
    assert_eq!(owner.ledger().counts().held, half + 9);
    write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    owner.step(Input::Due { until: deadline }, &mut out);
    assert_eq!(owner.ledger().counts().held, half, "those that came later are not due");
}

#[test]
fn of_lines_that_were_found_held_the_homes_are_asked_once() {
    let (home, here) = (product(1), product(2));
    let mut owner = Protocol::recover(here, Epoch(1), None, &[]).unwrap();
    let mut tell = |command| {
        let ask = Ask::Command(command);
        let told = Input::Ask { token: 0, ask, arrived: Millis(0), until: Millis(i64::MAX) };
        write(&mut owner, told);
    };
    let order = |number| one_for(number, here, false).order;
    let hold = |number, placing| Command::Reserve(Reserve { placing, ..one_for(number, here, false) });
    tell(Command::Create { settings: settings(), stock: 9 });
    // The second is being placed, the third has its home here, money moves for the fourth, and the fifth lapses.
    for (number, kept_until) in [(1, Some(900_000)), (2, None), (3, None), (4, Some(900_000)), (5, Some(10))]
    {
        tell(hold(number, (number != 3).then_some(home)));
        if let Some(deadline) = kept_until {
            tell(Command::Keep { order: order(number), deadline: Millis(deadline) });
        }
    }
    tell(Command::Pin { order: order(4), attempt: Attempt::FIRST });
    write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    let (_, left) = owner.snapshot().unwrap();

    let mut next: Protocol<u64> = Protocol::recover(here, Epoch(2), Some(&left), &[]).unwrap();
    let mut asked = || {
        let mut out = Vec::new();
        next.step(Input::Turn { lapse_until: Millis(10) }, &mut out);
        let asked = out.into_iter().filter_map(|output| match output {
            Output::AskHome { order, home } => Some((order, home)),
            _ => None,
        });
        Vec::from_iter(asked)
    };
    assert_eq!(asked(), [(order(1), home)]);
    assert!(asked().is_empty());
}

#[test]
fn what_a_key_has_cancelled_is_named_when_it_is_dropped_and_not_more_than_a_group_has_room_for() {
    let home = product(1);
    let mut owner = Protocol::recover(home, Epoch(1), None, &[]).unwrap();
    let ask = |command, at: u64| {
        let (ask, arrived) = (Ask::Command(command), Millis(at.cast_signed()));
        Input::Ask { token: at, ask, arrived, until: Millis(i64::MAX) }
    };
    let all = (CANCELLED_DROPPED_MAX + 1) as u64;
    write(&mut owner, ask(Command::Create { settings: settings(), stock: all }, 0));
    for number in 1..=all {
        let reserve = one_for(number.into(), home, true);
        let cancel =
            Command::Release { order: reserve.order, cause: Cause::Cancelled, by: u64::MAX - number };
        owner.step(ask(Command::Reserve(reserve), number), &mut Vec::new());
        owner.step(ask(cancel, number), &mut Vec::new());
        if !owner.has_room() {
            write(&mut owner, Input::Turn { lapse_until: Millis(0) });
        }
    }
    write(&mut owner, Input::Turn { lapse_until: Millis(0) });
    assert_eq!(owner.ledger().remembered() as u64, all);
    let mut out = Vec::new();
    owner.step(Input::Forget { before: Millis(i64::MAX / 2), now: Millis(i64::MAX / 2) }, &mut out);
    let [Output::Append(entry)] = &out[..] else { panic!("{out:?}") };
    assert!(entry.events.len() < GROUP_BYTES_MAX);
    let events = decode_events(&entry.events).unwrap();
    let [Event::Forgotten(Forgotten { cancelled, .. })] = &events[..] else { panic!("{events:?}") };
    let order = |number: u64| (one_for(number.into(), home, true).order, u64::MAX - number);
    assert_eq!(cancelled[..], (1..all).map(order).collect::<Vec<_>>()[..], "those first that were due first");
    owner.step(Input::Appended(Outcome::Written), &mut Vec::new());
    assert_eq!(owner.ledger().remembered(), 1);
    let (_, left) = owner.snapshot().unwrap();
    let next: Protocol<u64> = Protocol::recover(home, Epoch(2), Some(&left), &[]).unwrap();
    assert_eq!(next.ledger().digest(), owner.ledger().digest());
}
