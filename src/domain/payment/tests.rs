//! The walk of a payment as stories: what the machine wants, what it hears, line by line.

use std::fmt::Write as _;

use super::*;
use crate::domain::amount::{Currency, Quantity};
use crate::domain::id::ProductId;
use crate::domain::stock::{Command, Refusal};

const LIMITS: Limits = Limits { attempts_max: 1, charge_again_ms: 1_000, give_up_ms: 10_000 };
const PRICE: Money = Money { amount: 700, currency: Currency::KRW };

fn payment(state: PaymentState) -> Payment {
    let order = OrderId::from_bytes([7; 16]);
    Payment {
        id: PaymentId::of(order, Attempt::FIRST),
        order,
        attempt: Attempt::FIRST,
        buyer: UserId::from_bytes([1; 16]),
        amount: PRICE,
        method: Method::card("tok_ok").ok(),
        state,
        reason: None,
        provider_ref: None,
        captured: 0,
        captured_in: PRICE.currency,
        refunded: 0,
        key: None,
        told_open: false,
        tries: 0,
        due_at: None,
        version: 1,
        created_at: Millis(0),
        updated_at: Millis(0),
    }
}

#[test]
fn what_is_kept_is_worth_what_is_lost_with_it() {
    let taken = |captured| Payment { captured, ..payment(PaymentState::Review) }.at_stake().amount;
    assert_eq!([taken(0), taken(1), taken(700), taken(701)], [700, 700, 700, 701]);
}

/// Two lines: `a` is the home.
fn lines() -> Vec<Line> {
    [b'b', b'a']
        .map(|name| Line {
            product: ProductId::from_bytes([name; 16]),
            quantity: Quantity::of_line(2).unwrap(),
        })
        .to_vec()
}

fn seen(status: Status, amount: i64) -> Heard {
    let captured = if status == Status::Captured { amount } else { 0 };
    Heard::Provider(ProviderSaid::Seen {
        status,
        provider_ref: "p1".to_owned(),
        amount: Money { amount, ..PRICE },
        captured,
    })
}

fn hear(word: &str) -> Heard {
    let refused = |why| Heard::Owner(OwnerSaid::Refused(why));
    match word {
        "done" => Heard::Owner(OwnerSaid::Done),
        "later" => Heard::Owner(OwnerSaid::NotNow),
        "lapsed" => refused(Refusal::HoldExpired),
        "sold" => refused(Refusal::AlreadySold),
        "placing" => refused(Refusal::StillPlacing),
        "captured" => seen(Status::Captured, 700),
        "captured 699" => seen(Status::Captured, 699),
        "captured dollars" => Heard::Provider(ProviderSaid::Seen {
            status: Status::Captured,
            provider_ref: "p1".to_owned(),
            amount: Money { amount: 700, currency: "USD".parse().unwrap() },
            captured: 700,
        }),
        "declined" => seen(Status::Declined("no_funds".to_owned()), 700),
        "cancelled" => seen(Status::Cancelled, 700),
        "pending" => seen(Status::Pending, 700),
        "absent" => Heard::Provider(ProviderSaid::Absent),
        "nobody knows" => Heard::Provider(ProviderSaid::Unknown),
        "not now" => Heard::Provider(ProviderSaid::NotNow),
        "no such request" => Heard::Provider(ProviderSaid::Refused("bad_request".to_owned())),
        other => panic!("unknown word: {other}"),
    }
}

fn told(todo: &Do) -> String {
    match todo {
        Do::Ask(product, command) => {
            let line = char::from(product.as_bytes()[0]);
            let what = match command {
                Command::Pin { .. } => "pin",
                Command::Keep { .. } => "keep",
                Command::Unpin { .. } => "unpin",
                Command::Confirm { .. } => "confirm",
                Command::Release { .. } => "release",
                Command::Return { .. } => "return",
                other => panic!("no payment asks for {other:?}"),
            };
            format!("{what} {line}")
        }
        Do::Call(call) => format!("{call:?}").to_lowercase(),
        Do::Write(step) => {
            let mut line = format!("write {}", step.to.as_str());
            if let Some(reason) = &step.reason {
                let _ = write!(line, " ({reason})");
            }
            if let (PaymentState::Unknown, Some(name)) = (step.to, &step.provider_ref) {
                let _ = write!(line, " as {name}");
            }
            if step.give_back {
                line += " and give back";
            }
            line
        }
        Do::Rest => "rest".to_owned(),
        Do::End => "end".to_owned(),
    }
}

/// Tells a story: each line is what the machine wants and, behind the arrow, what it hears. `ok` is heard of a written row.
#[track_caller]
fn story(mut saga: Saga, at: i64, script: &str) {
    let begin = saga.start();
    goes_on(saga, begin, at, script);
}

fn goes_on(mut saga: Saga, mut todo: Do, at: i64, script: &str) {
    let mut transcript = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let heard = line.split_once("-> ").map(|(_, heard)| heard);
        let _ = match heard {
            Some(heard) => writeln!(transcript, "{:<36} -> {heard}", told(&todo)),
            None => writeln!(transcript, "{}", told(&todo)),
        };
        todo = match (heard, &todo) {
            (None, _) => break,
            (Some("ok"), Do::Write(step)) => {
                let moved = saga.payment().moved(step, Millis(at)).unwrap();
                saga.heard(Heard::Written(Box::new(moved)), Millis(at))
            }
            (Some(word), _) => saga.heard(hear(word), Millis(at)),
        };
    }
    let squeezed = |text: &str| {
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let wanted: Vec<String> = squeezed(script).into_iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(squeezed(&transcript), wanted, "the story goes otherwise:\n{transcript}");
}

fn fresh() -> Saga {
    Saga::new(payment(PaymentState::Started), lines(), Millis(600_000), LIMITS, true)
}

fn found(state: PaymentState) -> Saga {
    Saga::new(payment(state), lines(), Millis(600_000), LIMITS, false)
}

#[test]
fn all_lines_are_pinned_before_the_charge_and_the_home_is_sold_last() {
    story(
        fresh(),
        1,
        "pin a            -> done
         pin b            -> done
         charge           -> captured
         write captured   -> ok
         confirm b        -> done
         confirm a        -> done
         write paid       -> ok
         end",
    );
}

#[test]
fn what_is_free_is_sold_without_the_provider() {
    let free = Payment { amount: Money { amount: 0, ..PRICE }, ..payment(PaymentState::Started) };
    for fresh in [true, false] {
        story(
            Saga::new(free.clone(), lines(), Millis(600_000), LIMITS, fresh),
            1,
            "pin a            -> done
             pin b            -> done
             write captured   -> ok
             confirm b        -> done
             confirm a        -> done
             write paid       -> ok
             end",
        );
    }
}

#[test]
fn a_decline_gives_the_units_back_home_last() {
    story(
        fresh(),
        1,
        "pin a                     -> done
         pin b                     -> done
         charge                    -> declined
         release b                 -> done
         release a                 -> done
         write declined (no_funds) -> ok
         end",
    );
}

#[test]
fn a_decline_with_attempts_left_lets_the_hold_stand() {
    let limits = Limits { attempts_max: 2, ..LIMITS };
    story(
        Saga::new(payment(PaymentState::Started), lines(), Millis(0), limits, true),
        1,
        "pin a                     -> done
         pin b                     -> done
         charge                    -> declined
         unpin b                   -> done
         unpin a                   -> done
         write declined (no_funds) -> ok
         end",
    );
}

#[test]
fn a_lapse_that_came_first_wins_and_nothing_is_charged() {
    story(
        fresh(),
        1,
        "pin a                           -> done
         pin b                           -> lapsed
         release b                       -> lapsed
         release a                       -> done
         write cancelled (hold_expired)  -> ok
         end",
    );
}

#[test]
fn a_line_that_does_not_know_of_its_birth_is_told() {
    story(
        fresh(),
        1,
        "pin a    -> done
         pin b    -> placing
         keep b   -> done
         pin b    -> done
         charge   -> captured
         write captured",
    );
}

#[test]
fn what_nobody_knows_is_written_down_and_asked_about_later() {
    for (said, known) in [("nobody knows", ""), ("pending", " as p1"), ("not now", "")] {
        story(
            fresh(),
            1,
            &format!("pin a -> done\n pin b -> done\n charge -> {said}\n write unknown{known} -> ok\n rest"),
        );
    }
    story(found(PaymentState::Unknown), 500, "find -> nobody knows\n rest");
}

#[test]
fn the_provider_s_name_for_it_is_kept_as_soon_as_it_is_told() {
    story(found(PaymentState::Unknown), 500, "find -> pending\n write unknown as p1 -> ok\n rest");
    let named = Payment { provider_ref: Some("p1".to_owned()), ..payment(PaymentState::Unknown) };
    let named = Saga::new(named, lines(), Millis(600_000), LIMITS, false);
    story(named.clone(), 500, "find -> pending\n rest");
    story(named, 10_000, "find -> pending\n cancel -> pending\n rest");
    // Whoever calls it off calls it by its name.
    let mut given_up = found(PaymentState::Unknown);
    given_up.start();
    assert_eq!(given_up.heard(hear("pending"), Millis(10_000)), Do::Call(Call::Cancel));
    assert_eq!(given_up.payment().provider_ref.as_deref(), Some("p1"));
}

#[test]
fn whoever_takes_it_up_again_asks_the_provider_first() {
    story(
        found(PaymentState::Started),
        500,
        "find            -> captured
         write captured  -> ok
         confirm b       -> done
         confirm a       -> done
         write paid      -> ok
         end",
    );
    story(
        found(PaymentState::Unknown),
        500,
        "find                      -> declined
         release b                 -> done
         release a                 -> done
         write declined (no_funds) -> ok
         end",
    );
}

#[test]
fn a_charge_that_never_arrived_is_sent_again_while_it_is_young() {
    story(
        found(PaymentState::Started),
        500,
        "find            -> absent
         pin a           -> done
         pin b           -> done
         charge          -> captured
         write captured  -> ok
         confirm b",
    );
}

#[test]
fn a_charge_that_never_arrived_is_called_off_when_it_is_old() {
    for said in ["absent", "cancelled"] {
        story(
            found(PaymentState::Unknown),
            1_000,
            &format!(
                "find      -> absent
                 cancel    -> {said}
                 release b -> done
                 release a -> done
                 write cancelled (given_up) -> ok
                 end"
            ),
        );
    }
}

#[test]
fn what_stays_unknown_is_called_off_and_if_it_had_succeeded_it_goes_on() {
    story(
        found(PaymentState::Unknown),
        10_000,
        "find            -> pending
         cancel          -> captured
         write captured  -> ok
         confirm b",
    );
    story(found(PaymentState::Unknown), 10_000, "find -> nobody knows\n cancel -> nobody knows\n rest");
}

#[test]
fn another_amount_is_held_for_a_person_pins_and_all() {
    story(
        fresh(),
        1,
        "pin a                          -> done
         pin b                          -> done
         charge                         -> captured 699
         write review (amount_mismatch) -> ok
         end",
    );
    story(
        fresh(),
        1,
        "pin a                            -> done
         pin b                            -> done
         charge                           -> captured dollars
         write review (currency_mismatch) -> ok
         end",
    );
}

#[test]
fn what_was_taken_is_kept_in_its_own_currency() {
    for state in [PaymentState::Unknown, PaymentState::Cancelled] {
        let mut saga = found(state);
        saga.start();
        let Do::Write(step) = saga.heard(hear("captured dollars"), Millis(1)) else { panic!("{saga:?}") };
        let moved = saga.payment().moved(&step, Millis(1)).unwrap();
        assert_eq!(moved.taken(), Money { amount: 700, currency: "USD".parse().unwrap() });
        assert_eq!(moved.amount, PRICE);
    }
}

#[test]
fn money_for_what_has_ended_goes_back() {
    for state in [PaymentState::Declined, PaymentState::Cancelled] {
        story(found(state), 1, "find -> captured\n write orphaned and give back -> ok\n end");
        story(found(state), 1, "find -> declined\n end");
        story(found(state), 1, "find -> absent\n end");
        story(found(state), 1, "find -> nobody knows\n rest");
    }
}

#[test]
fn a_line_that_cannot_be_sold_after_the_charge_is_a_refund_and_what_was_sold_comes_back() {
    story(
        found(PaymentState::Captured),
        1,
        "confirm b  -> done
         confirm a  -> lapsed
         release b  -> sold
         return b   -> done
         release a  -> lapsed
         write orphaned (order_ended) and give back -> ok
         end",
    );
}

/// Whoever gives back what waits for a person has sold nothing of it: a line that is sold is that of another person, who has
/// accepted the payment meanwhile, and who is first is said by the row.
#[test]
fn what_another_has_accepted_is_not_taken_out_of_his_hands() {
    let mut saga = found(PaymentState::Review);
    let begin = saga.give_back();
    goes_on(
        saga,
        begin,
        1,
        "release b  -> later
         release b  -> sold
         release a  -> sold
         write orphaned (given_back) and give back",
    );
}

#[test]
fn an_owner_that_is_away_is_asked_a_few_times_and_then_left_for_later() {
    story(fresh(), 1, "pin a -> later\n pin a -> later\n pin a -> later\n rest");
    story(
        found(PaymentState::Captured),
        1,
        "confirm b -> later\n confirm b -> done\n confirm a -> later\n confirm a",
    );
}

#[test]
fn a_request_that_the_provider_does_not_take_charges_nothing() {
    story(
        fresh(),
        1,
        "pin a     -> done
         pin b     -> done
         charge    -> no such request
         release b -> done
         release a -> done
         write cancelled (provider_refused) -> ok
         end",
    );
}

#[test]
fn a_refusal_says_nothing_about_a_charge_that_was_sent_before() {
    let again = "find -> absent\n pin a -> done\n pin b -> done\n charge -> no such request\n";
    story(found(PaymentState::Started), 500, &format!("{again} write unknown -> ok\n rest"));
    story(found(PaymentState::Unknown), 500, &format!("{again} rest"));
    // It ends when the provider has made sure that nothing can come of it any more.
    story(found(PaymentState::Unknown), 10_000, "find -> no such request\n cancel -> no such request\n rest");
    story(
        found(PaymentState::Unknown),
        10_000,
        "find -> no such request\n cancel -> captured\n write captured",
    );
}

#[test]
fn a_buyer_hears_no_more_of_a_bank_s_reasons_than_he_can_use() {
    let told = |reason: &str| {
        let reason = Some(reason.to_owned());
        Payment { reason, ..payment(PaymentState::Declined) }.told_reason()
    };
    for word in ["insufficient_funds", "expired_card", "hold_expired", "amount_mismatch"] {
        assert_eq!(told(word), Some(word));
    }
    for word in ["stolen_card", "pickup_card", "fraudulent", "declined", "no_funds"] {
        assert_eq!(told(word), Some("card_declined"), "{word}");
    }
    assert_eq!(payment(PaymentState::Paid).told_reason(), None);
}

#[test]
fn the_table_of_legal_moves() {
    let mut rows = String::new();
    for from in PaymentState::ALL {
        let to = PaymentState::ALL.iter().filter(|to| from.moved_to(**to).is_ok());
        let to: Vec<_> = to.map(|to| to.as_str()).collect();
        rows += format!("{} -> {}", from.as_str(), to.join(" ")).trim_end();
        rows += "\n";
    }
    assert_eq!(
        rows,
        "started -> unknown captured declined cancelled review\n\
         unknown -> captured declined cancelled review\n\
         captured -> paid orphaned\n\
         paid ->\n\
         declined -> orphaned\n\
         cancelled -> orphaned\n\
         review -> captured orphaned\n\
         orphaned ->\n"
    );
    for state in PaymentState::ALL {
        assert_eq!(PaymentState::from_word(state.as_str()), Some(*state));
    }
}

#[test]
fn a_card_number_is_no_token() {
    for number in ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242", "378282246310005"] {
        assert_eq!(Method::card(number), Err(NotAMethod::CardNumber), "{number}");
    }
    for shape in ["", "tok ok", "tok\n", "토큰", &"x".repeat(256)] {
        assert_eq!(Method::card(shape), Err(NotAMethod::Shape), "{shape}");
    }
    for token in ["tok_ok", "pm_card_visa", "4242424242424241", "424242", &"x".repeat(255)] {
        assert_eq!(Method::card(token).unwrap().token(), token);
    }
    assert_eq!(format!("{:?}", Method::card("tok_ok").unwrap()), "…");
}

#[test]
fn ids_follow_from_what_they_name() {
    let order = OrderId::from_bytes([7; 16]);
    let second = Attempt::FIRST.next().unwrap();
    assert_eq!(PaymentId::of(order, Attempt::FIRST), PaymentId::of(order, Attempt::FIRST));
    assert_ne!(PaymentId::of(order, Attempt::FIRST), PaymentId::of(order, second));
    let payment = PaymentId::of(order, second);
    let causes = [
        Cause::OrderCancelled,
        Cause::Late,
        Cause::Line(1),
        Cause::Line(2),
        Cause::LineCancelled(1),
        Cause::LineReturned(1),
        Cause::LineTakenBack(1),
        Cause::Clerk([0; 16]),
    ];
    let ids: Vec<_> = causes.map(|cause| crate::domain::id::RefundId::of(payment, cause)).to_vec();
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id));
    }
}
