//! Who is refused from the view, and what becomes of a question in the mailbox.

use shuttle::thread;
use stockade::actors::stock::{Answer, NotDone};
use stockade::domain::stock::{Command, Refusal, Refused};

use super::owner::{Sale, Without, buyer, release, reserve};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Behind the product's creation and the hold: while there is no unit nothing else happens.
const RELEASED_AT: u64 = 3;

/// One unit, held. Its buyer gives it back while others come, one of whom takes it: whoever asks after somebody was told something is
/// refused from the view at no earlier place, and not at all while a unit is there.
pub fn a_unit_comes_back(without: Without) {
    let (sale, owner) = Sale::begin(1, None, &[1], without);
    // What has arrived, or was told, by its place: whoever comes behind it stands behind it.
    let told = Arc::new(AtomicU64::new(0));
    let owner = thread::spawn(move || owner.run(false));
    let gives_back = thread::spawn({
        let (sale, told) = (sale.clone(), told.clone());
        move || {
            let arrived = || _ = told.fetch_max(RELEASED_AT, Ordering::SeqCst);
            let Some(Ok(Answer::Done { sequence, .. })) = sale.ask_and(release(1), arrived) else {
                panic!("it is given back")
            };
            assert_eq!(sequence.0, RELEASED_AT);
        }
    });
    let comers: Vec<_> = (2..4)
        .map(|number| {
            let (sale, told) = (sale.clone(), told.clone());
            thread::spawn(move || {
                let before = told.load(Ordering::SeqCst);
                let at = match sale.refused_at(number) {
                    Some(at) => at,
                    None => match sale.ask(Command::Reserve(reserve(number, None))) {
                        Some(Ok(Answer::Reserved(receipt))) => receipt.sequence.0,
                        Some(Err(NotDone::Refused {
                            refused: Refused { at, why: Refusal::SoldOut { .. } },
                            ..
                        })) => at.0,
                        other => panic!("{other:?}"),
                    },
                };
                assert!(at >= before, "told of {at} after somebody was told of {before}");
                told.fetch_max(at, Ordering::SeqCst);
            })
        })
        .collect();
    gives_back.join().unwrap();
    comers.into_iter().for_each(|comer| comer.join().unwrap());
    sale.end();
    owner.join().unwrap();
    let view = sale.shared.view().unwrap();
    assert!(view.counts.promised() <= view.counts.on_hand);
}

/// One unit, and one customer may have one: whoever has bought it and comes again is sent to the owner, who tells him why.
pub fn a_buyer_comes_again(without: Without) {
    let (sale, owner) = Sale::begin(1, Some(1), &[], without);
    let owner = thread::spawn(move || owner.run(false));
    let comers: Vec<_> = (1..3)
        .map(|number| {
            let sale = sale.clone();
            thread::spawn(move || {
                let told = sale.ask(Command::Reserve(reserve(number, None)));
                if let Some(Ok(Answer::Reserved(_))) = told {
                    assert_eq!(sale.refused_at(number), None, "he hears of his limit");
                    let again = sale.ask(Command::Reserve(reserve(10 + number, Some(buyer(number)))));
                    let Some(Err(NotDone::Refused { refused, .. })) = again else { panic!("{again:?}") };
                    assert!(matches!(refused.why, Refusal::LimitExceeded { .. }), "{}", refused.why);
                }
            })
        })
        .collect();
    comers.into_iter().for_each(|comer| comer.join().unwrap());
    sale.end();
    owner.join().unwrap();
}

/// The owner goes as soon as it has nothing to do. Every question is answered, or comes back to whoever asked.
pub fn an_owner_goes_while_it_is_asked(without: Without) {
    let (sale, owner) = Sale::begin(10, None, &[], without);
    let owner = thread::spawn(move || owner.run(true));
    let held = Arc::new(AtomicUsize::new(0));
    let comers: Vec<_> = (1..4)
        .map(|number| {
            let (sale, held) = (sale.clone(), held.clone());
            thread::spawn(move || match sale.ask(Command::Reserve(reserve(number, None))) {
                Some(Ok(Answer::Reserved(_))) => _ = held.fetch_add(1, Ordering::SeqCst),
                None => assert!(sale.shared.inbox.is_closed()),
                other => panic!("{other:?}"),
            })
        })
        .collect();
    comers.into_iter().for_each(|comer| comer.join().unwrap());
    owner.join().unwrap();
    assert_eq!(sale.shared.view().unwrap().counts.held, held.load(Ordering::SeqCst) as u64);
}
