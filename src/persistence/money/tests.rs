//! Payments and refunds: who comes first, who comes late, and that many at once are as one after the other.

mod anew;
mod damage;
mod heard;
mod together;
mod told_open;

use futures_util::{StreamExt, TryStreamExt};
use rstest::rstest;

use super::*;
use crate::domain::amount::{Currency, Money};
use crate::domain::id::OrderId;
use crate::domain::payment::{Cause, Method, PaymentState, Restock};
use crate::domain::stock::{Attempt, KeyUse};
use crate::persistence::Tables;
use crate::persistence::payment::Waiting;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{T0, buyer, killed, order, product};

const LEASE: i64 = 30_000;

fn attempt(number: u8) -> Attempt {
    Attempt::new(number).unwrap()
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

fn the_order(number: u128) -> OrderId {
    order(number, product(1))
}

fn payment(number: u128, of: u8) -> Payment {
    let order = the_order(number);
    Payment {
        id: PaymentId::of(order, attempt(of)),
        order,
        attempt: attempt(of),
        buyer: buyer(number),
        amount: won(1_000),
        method: Some(Method::card("tok_visa").unwrap()),
        state: PaymentState::Started,
        reason: None,
        provider_ref: None,
        captured: 0,
        captured_in: Currency::KRW,
        refunded: 0,
        key: Some(KeyUse { key: *order.as_bytes(), body: u64::MAX - 7 }),
        told_open: false,
        tries: 0,
        due_at: Some(T0.plus(LEASE)),
        version: 1,
        created_at: T0,
        updated_at: T0,
    }
}

fn begin(number: u128, of: u8) -> Write {
    Write::Begin(Box::new(payment(number, of)))
}

fn step(number: u128, of: u8, version: u64, step: Move) -> Write {
    Write::Move { payment: payment(number, of).id, version, step, due_at: None }
}

fn captured() -> Move {
    let provider_ref = Some("pi_1".to_owned());
    Move { provider_ref, captured: Some(won(1_000)), ..Move::to(PaymentState::Captured) }
}

fn declined() -> Move {
    Move { reason: Some("card_declined".to_owned()), ..Move::to(PaymentState::Declined) }
}

fn paid() -> Move {
    Move::to(PaymentState::Paid)
}

fn refund(number: u128, cause: Cause, amount: i64) -> Refund {
    let payment = payment(number, 1);
    Refund {
        id: RefundId::of(payment.id, cause),
        payment: payment.id,
        order: payment.order,
        cause,
        key: if let Cause::Clerk(key) = cause { Some(key) } else { None },
        body: if let Cause::Clerk(_) = cause { Some(u64::MAX - 7) } else { None },
        amount: won(amount),
        restock: Restock::ToStock,
        state: RefundState::Wanted,
        reason: None,
        provider_ref: None,
        made_anew: 0,
        tries: 0,
        due_at: Some(T0.plus(LEASE)),
        version: 1,
        created_at: T0,
        updated_at: T0,
    }
}

fn give_back(number: u128, cause: Cause, amount: i64) -> Write {
    Write::Refund(Box::new(refund(number, cause, amount)), Vec::new())
}

fn hint(event: &str, number: u128) -> Write {
    let payment = Some(payment(number, 1).id);
    Write::Hint(Hint { event: event.to_owned(), payment, ..Hint::default() })
}

struct Shop {
    home: Home,
    dir: tempfile::TempDir,
    tables: Tables,
    book: MoneyBook,
}

impl Shop {
    async fn open(home: Home) -> Shop {
        Shop::at(home, tempfile::tempdir().unwrap()).await
    }

    async fn at(home: Home, dir: tempfile::TempDir) -> Shop {
        let tables = home.open(&dir).await;
        let book = tables.money();
        Shop { home, dir, tables, book }
    }

    /// The same after a kill: without anything that only memory knew.
    async fn killed(self) -> Shop {
        let left = killed(&self.dir);
        self.tables.close().await.unwrap();
        Shop::at(self.home, left).await
    }

    async fn write(&self, writes: &[Write]) -> Vec<Result<Written, NotWritten>> {
        self.book.write_group(writes, T0.plus(5)).await.unwrap()
    }

    async fn one(&self, write: Write) -> Written {
        self.write(&[write]).await.remove(0).unwrap()
    }

    /// What is due so long after the beginning.
    async fn due(&self, after: i64, most: u32) -> (Vec<Payment>, Vec<Refund>) {
        self.book.due(T0.plus(after), most).await.unwrap()
    }

    async fn find(&self, number: u128, of: u8) -> Payment {
        self.book.payments().find(payment(number, of).id).await.unwrap().unwrap()
    }
}

/// An answer in few words.
fn told(answers: &[Result<Written, NotWritten>]) -> Vec<String> {
    let word = |answer: &Result<Written, NotWritten>| match answer {
        Ok(Written::Row(row)) => format!("{} v{}", row.state.as_str(), row.version),
        Ok(Written::RefundRow(row)) => format!("{} v{}", row.state.as_str(), row.version),
        Ok(Written::Taken(row)) => format!("taken by {} {}", row.attempt.get(), row.state.as_str()),
        other => format!("{other:?}"),
    };
    answers.iter().map(word).collect()
}

#[rstest]
#[tokio::test]
async fn one_of_many_begins_an_order_and_another_attempt_only_after_a_failure(
    #[values(Sqlite, MySql)] home: Home,
) {
    let shop = Shop::open(home).await;
    let answers = shop.write(&[begin(1, 1), begin(1, 1), begin(1, 2), begin(2, 1)]).await;
    assert_eq!(told(&answers), ["started v1", "taken by 1 started", "taken by 1 started", "started v1"]);
    assert_eq!(told(&shop.write(&[begin(1, 1), begin(1, 2)]).await), ["taken by 1 started"; 2]);
    let shop = shop.killed().await;
    let answers = shop
        .write(&[
            begin(1, 2),
            step(1, 1, 1, declined()),
            begin(1, 1),
            begin(1, 3),
            begin(1, 2),
            step(1, 3, 1, captured()),
            begin(1, 4),
        ])
        .await;
    assert_eq!(
        told(&answers),
        [
            "taken by 1 started",
            "declined v2",
            "taken by 1 declined",
            "started v1",
            "taken by 3 started",
            "captured v2",
            "taken by 3 captured"
        ]
    );
    shop.one(step(1, 3, 2, paid())).await;
    assert_eq!(told(&shop.write(&[begin(1, 4)]).await), ["taken by 3 paid"]);
    let attempts = shop.book.payments().of_order(the_order(1)).await.unwrap();
    let states: Vec<_> = attempts.iter().map(|p| (p.attempt.get(), p.state)).collect();
    assert_eq!(states, [(3, PaymentState::Paid), (1, PaymentState::Declined)]);
    let newest =
        shop.book.payments().newest_of(&[the_order(2), the_order(1), the_order(9), the_order(1)]).await;
    assert_eq!(
        newest.unwrap().iter().map(|p| p.id).collect::<Vec<_>>(),
        [payment(1, 3).id, payment(2, 1).id]
    );
}

#[rstest]
#[tokio::test]
async fn what_is_written_is_found_again_to_the_letter(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    let plain = Payment { key: None, method: None, told_open: true, ..payment(2, 1) };
    shop.write(&[begin(1, 1), Write::Begin(Box::new(plain.clone()))]).await;
    let refunds = [
        refund(1, Cause::OrderCancelled, 100),
        refund(1, Cause::Late, 100),
        refund(1, Cause::Line(7), 100),
        refund(1, Cause::Clerk([3; 16]), 100),
    ];
    shop.one(step(1, 1, 1, captured())).await;
    let answers =
        shop.write(&refunds.clone().map(|refund| Write::Refund(Box::new(refund), Vec::new()))).await;
    assert_eq!(told(&answers), ["wanted v1"; 4]);
    let shop = shop.killed().await;
    assert_eq!(shop.find(2, 1).await, plain);
    let now = T0.plus(5);
    let moved = Payment {
        state: PaymentState::Captured,
        captured: 1_000,
        refunded: 400,
        provider_ref: Some("pi_1".to_owned()),
        version: 6,
        updated_at: now,
        ..payment(1, 1)
    };
    assert_eq!(shop.find(1, 1).await, moved);
    let found = shop.book.refunds().of_payment(moved.id).await.unwrap();
    assert_eq!(found, shop.book.refunds().of_order(moved.order).await.unwrap());
    assert!(refunds.iter().all(|refund| found.contains(refund)) && found.len() == 4);
    assert_eq!(shop.book.refunds().find(refunds[3].id).await.unwrap().as_ref(), Some(&refunds[3]));
    let all: Vec<Payment> = shop.book.payments().all().try_collect().await.unwrap();
    assert_eq!(all, [moved, plain]);
    let all: Vec<Refund> = shop.book.refunds().all().try_collect().await.unwrap();
    assert_eq!(all.len(), 4);
}

#[rstest]
#[tokio::test]
async fn a_row_moves_for_him_who_knows_its_version_and_only_as_the_table_says(
    #[values(Sqlite, MySql)] home: Home,
) {
    let shop = Shop::open(home).await;
    let answers = shop
        .write(&[
            begin(1, 1),
            step(1, 1, 1, captured()),
            step(1, 1, 1, declined()),
            step(1, 1, 2, declined()),
            step(1, 1, 2, paid()),
            step(2, 1, 1, paid()),
        ])
        .await;
    assert_eq!(told(&answers[..3]), ["started v1", "captured v2", "Ok(Lost)"]);
    assert_eq!(answers[3], Err(NotWritten::IllegalMove(IllegalMove)));
    assert_eq!(told(&answers[4..5]), ["paid v3"]);
    assert_eq!(answers[5], Err(NotWritten::NoSuchPayment));
    let row = shop.find(1, 1).await;
    assert_eq!((row.method, row.due_at, row.version, row.captured), (None, None, 3, 1_000));
    // Nobody is found at work on it any more.
    assert_eq!(shop.book.payments().next_due().await.unwrap(), None);
    let long = Move { reason: Some("é".repeat(200)), ..Move::to(PaymentState::Declined) };
    shop.write(&[begin(3, 1), step(3, 1, 1, long)]).await;
    assert_eq!(shop.find(3, 1).await.reason.unwrap().len(), 254);
}

#[rstest]
#[tokio::test]
async fn a_claim_takes_it_from_whoever_had_it(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), begin(2, 1)]).await;
    assert_eq!(shop.due(LEASE - 1, 9).await.0, []);
    let due = shop.due(LEASE, 1).await.0;
    assert_eq!(due.len(), 1);
    let until = T0.plus(2 * LEASE);
    let claim = |version| Write::Claim { payment: payment(1, 1).id, version, until };
    let answers = shop.write(&[claim(1), claim(1), step(1, 1, 1, captured())]).await;
    assert_eq!(told(&answers), ["started v2", "Ok(Lost)", "Ok(Lost)"]);
    let row = shop.find(1, 1).await;
    assert_eq!((row.tries, row.due_at, row.updated_at), (1, Some(until), T0));
    assert_eq!(shop.due(LEASE, 9).await.0, [payment(2, 1)]);

    let rest = |version, due_at| Write::Rest { payment: payment(1, 1).id, version, due_at };
    let answers = shop.write(&[rest(2, Some(T0.plus(1))), rest(3, None)]).await;
    assert_eq!(told(&answers), ["started v3", "started v4"]);
    assert_eq!(shop.find(1, 1).await.due_at, Some(T0.plus(1)), "what is open stays due");

    let shop = shop.killed().await;
    shop.write(&[step(2, 1, 1, captured()), give_back(2, Cause::Line(1), 10)]).await;
    assert_eq!(shop.book.release_all_leases(T0.plus(9)).await.unwrap(), 2);
    let due = shop.due(9, 9).await.0;
    let found: Vec<_> = due.iter().map(|p| (p.id, p.due_at)).collect();
    assert_eq!(found, [(payment(1, 1).id, Some(T0.plus(1))), (payment(2, 1).id, Some(T0.plus(9)))]);
    assert_eq!(shop.due(9, 9).await.1.len(), 1);
    assert_eq!(shop.book.refunds().next_due().await.unwrap(), Some(T0.plus(9)));
    // What was remembered of them is the row as it is now.
    assert!(matches!(shop.one(rest(4, None)).await, Written::Row(row) if row.due_at == Some(T0.plus(1))));
}

#[rstest]
#[tokio::test]
async fn never_more_goes_back_than_came(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1)]).await;
    let nothing = Written::TooMuch { captured: 0, refunded: 0 };
    assert_eq!(shop.one(give_back(1, Cause::OrderCancelled, 1)).await, nothing);
    shop.write(&[step(1, 1, 1, captured())]).await;
    let clerk = |number| Cause::Clerk([number; 16]);
    let mut writes: Vec<Write> = (0..100).map(|number| give_back(1, clerk(number % 5), 300)).collect();
    writes.push(give_back(1, clerk(9), 100));
    writes.push(give_back(1, clerk(10), 1));
    let answers = shop.write(&writes).await;
    let given: Vec<bool> = answers.iter().map(|a| matches!(a, Ok(Written::RefundRow(_)))).collect();
    let expected = (0..100).map(|number| number % 5 < 3).chain([true, false]);
    assert_eq!(given, expected.collect::<Vec<_>>());
    assert_eq!(answers[3], Ok(Written::TooMuch { captured: 1_000, refunded: 900 }));
    assert_eq!(answers[101], Ok(Written::TooMuch { captured: 1_000, refunded: 1_000 }));
    let found = shop.book.refunds().of_payment(payment(1, 1).id).await.unwrap();
    assert_eq!(found.iter().map(|refund| refund.amount.amount).sum::<i64>(), 1_000);
    assert_eq!((found.len(), shop.find(1, 1).await.refunded), (4, 1_000));

    let euros = Refund {
        amount: Money { amount: 1, currency: "EUR".parse().unwrap() },
        ..refund(1, Cause::Line(1), 1)
    };
    let answers = shop
        .write(&[
            Write::Refund(Box::new(euros), Vec::new()),
            give_back(1, clerk(11), 0),
            give_back(7, Cause::Line(2), 1),
        ])
        .await;
    let wrong = [NotWritten::Amount, NotWritten::Amount, NotWritten::NoSuchPayment];
    assert_eq!(answers, wrong.map(Err));
}

#[rstest]
#[tokio::test]
async fn money_for_an_ended_order_goes_back_with_the_move_that_says_so(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), step(1, 1, 1, declined())]).await;
    let late = Move { to: PaymentState::Orphaned, give_back: true, ..captured() };
    let answers = shop.write(&[step(1, 1, 2, late.clone()), step(1, 1, 3, late)]).await;
    assert_eq!(told(&answers), ["orphaned v3", "orphaned v4"]);
    let row = shop.find(1, 1).await;
    assert_eq!((row.captured, row.refunded, row.due_at), (1_000, 1_000, None));
    let refunds = shop.due(5, 9).await.1;
    assert_eq!(refunds.len(), 1);
    assert_eq!(refunds[0].id, RefundId::of(row.id, Cause::Late));
    assert_eq!((refunds[0].amount, refunds[0].restock), (won(1_000), Restock::Leave));
    assert!(matches!(shop.one(begin(1, 2)).await, Written::Row(_)), "another attempt may begin");

    // What a clerk had given back before is not given back again.
    shop.write(&[begin(2, 1), step(2, 1, 1, captured()), give_back(2, Cause::Line(1), 400)]).await;
    let ended = Move { give_back: true, ..Move::to(PaymentState::Orphaned) };
    shop.one(step(2, 1, 3, ended)).await;
    let late = shop.book.refunds().find(RefundId::of(payment(2, 1).id, Cause::Late)).await.unwrap().unwrap();
    assert_eq!(late.amount, won(600));
}

#[rstest]
#[tokio::test]
async fn a_refund_goes_forward_until_it_is_done(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), step(1, 1, 1, captured()), give_back(1, Cause::Line(1), 10)]).await;
    let (id, until) = (refund(1, Cause::Line(1), 10).id, T0.plus(70));
    let to = |version, to, provider_ref: Option<&str>| {
        let provider_ref = provider_ref.map(str::to_owned);
        Write::MoveRefund { refund: id, version, to, provider_ref, reason: None, due_at: None }
    };
    let reason = Some("provider is away".to_owned());
    let answers = shop
        .write(&[
            Write::ClaimRefund { refund: id, version: 1, until },
            to(1, RefundState::Restocked, None),
            to(2, RefundState::Restocked, None),
            Write::RestRefund { refund: id, version: 3, due_at: T0.plus(90), reason },
        ])
        .await;
    assert_eq!(told(&answers), ["wanted v2", "Ok(Lost)", "restocked v3", "restocked v4"]);
    let row = shop.book.refunds().find(id).await.unwrap().unwrap();
    assert_eq!(
        (row.tries, row.due_at, row.reason.as_deref()),
        (1, Some(T0.plus(90)), Some("provider is away"))
    );
    assert_eq!(shop.book.refunds().waiting().await.unwrap(), (1, Some(T0)));
    let answers =
        shop.write(&[to(4, RefundState::Done, Some("re_1")), to(5, RefundState::Wanted, None)]).await;
    assert_eq!(told(&answers[..1]), ["done v5"]);
    assert_eq!(answers[1], Err(NotWritten::IllegalMove(IllegalMove)));
    let row = shop.book.refunds().find(id).await.unwrap().unwrap();
    assert_eq!((row.due_at, row.provider_ref.as_deref()), (None, Some("re_1")));
    assert_eq!(shop.book.refunds().waiting().await.unwrap(), (0, None));
    let nobody = RefundId::of(payment(9, 1).id, Cause::Late);
    let lost = shop.write(&[Write::ClaimRefund { refund: nobody, version: 1, until }]).await;
    assert_eq!(lost, [Err(NotWritten::NoSuchRefund)]);
}

#[rstest]
#[tokio::test]
async fn a_refund_that_is_done_is_due_when_there_is_news_of_it(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), step(1, 1, 1, captured()), give_back(1, Cause::Line(1), 10)]).await;
    let id = refund(1, Cause::Line(1), 10).id;
    let to = |version, to, reason: Option<&str>, due_at| {
        let reason = reason.map(str::to_owned);
        Write::MoveRefund { refund: id, version, to, provider_ref: None, reason, due_at }
    };
    let news =
        |event: &str| Write::Hint(Hint { event: event.to_owned(), refund: Some(id), ..Hint::default() });
    let until = T0.plus(70);
    let claim = |version| Write::ClaimRefund { refund: id, version, until };
    let found = async || {
        let row = shop.book.refunds().find(id).await.unwrap().unwrap();
        (row.state, row.due_at, row.version)
    };
    // It is claimed like any other, and is not said to wait meanwhile; then the provider stands by its word.
    shop.write(&[to(1, RefundState::Done, None, None), news("evt_1")]).await;
    let due_at = found().await.1.unwrap();
    assert_eq!(found().await, (RefundState::Done, Some(due_at), 3));
    assert_eq!(shop.due(9, 9).await.1.len(), 1);
    assert_eq!(shop.book.refunds().waiting().await.unwrap(), (0, None));
    shop.write(&[claim(3)]).await;
    assert_eq!(found().await, (RefundState::Done, Some(until), 4));
    shop.write(&[to(4, RefundState::Done, None, Some(until))]).await;
    assert_eq!(found().await, (RefundState::Done, None, 5));
    // Or it has come back: it waits again, and what its payment has given back stays what it was.
    shop.write(&[news("evt_2"), to(6, RefundState::Restocked, Some("failed_lost_card"), Some(until))]).await;
    assert_eq!(found().await, (RefundState::Restocked, Some(until), 7));
    assert_eq!(shop.book.refunds().waiting().await.unwrap().0, 1);
    assert_eq!(shop.find(1, 1).await.refunded, 10);
    // What a person has given back another way is not the provider's to open.
    shop.write(&[to(7, RefundState::Done, Some("settled_by_hand"), None), news("evt_3")]).await;
    assert_eq!(found().await, (RefundState::Done, None, 8));
}

#[rstest]
#[tokio::test]
async fn a_hint_counts_once_and_wakes_only_what_may_move(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), begin(2, 1), begin(3, 1), begin(4, 1)]).await;
    shop.write(&[step(2, 1, 1, captured()), step(3, 1, 1, declined()), step(4, 1, 1, captured())]).await;
    shop.write(&[step(4, 1, 2, paid())]).await;
    let unknown = Write::Hint(Hint { event: "evt_9".to_owned(), ..Hint::default() });
    let answers = shop
        .write(&[
            hint("evt_1", 1),
            hint("evt_1", 2),
            hint("evt_2", 2),
            hint("evt_3", 3),
            hint("evt_4", 4),
            unknown,
        ])
        .await;
    let (heard, known) = (Ok(Written::Heard), Ok(Written::Known));
    assert_eq!(answers, [&heard, &known, &heard, &heard, &heard, &heard].map(Clone::clone));
    let due = shop.due(5, 9).await.0;
    assert_eq!(due.iter().map(|p| p.id).collect::<Vec<_>>(), [payment(1, 1).id, payment(3, 1).id]);
    assert_eq!(due[0].version, 1, "whoever walks it is not disturbed");
    let shop = shop.killed().await;
    assert_eq!(shop.one(hint("evt_4", 1)).await, Written::Known);
    // Whoever looked and found nothing new lets go of an ended one for good.
    let ended = shop.find(3, 1).await;
    shop.one(Write::Rest { payment: ended.id, version: ended.version, due_at: None }).await;
    assert_eq!(shop.due(5, 9).await.0.len(), 1);
    // What it is called is kept where nobody knew, and whoever walks it is not disturbed by that either.
    let named = |event: &str, name: &str| {
        let (event, provider_ref) = (event.to_owned(), Some(name.to_owned()));
        Write::Hint(Hint {
            event,
            payment: Some(payment(1, 1).id),
            provider_ref,
            is_walked: true,
            refund: None,
        })
    };
    shop.write(&[named("evt_5", "pi_1"), named("evt_6", "pi_2")]).await;
    let row = shop.find(1, 1).await;
    assert_eq!((row.provider_ref.as_deref(), row.version, row.due_at), (Some("pi_1"), 1, Some(T0.plus(5))));
    let nameless = [hint("", 1), hint(&"x".repeat(256), 1)];
    assert_eq!(shop.write(&nameless).await, [NotWritten::EventId; 2].map(Err));
    assert_eq!(shop.book.sweep_heard(T0.plus(5)).await.unwrap(), 0);
    assert_eq!(shop.book.sweep_heard(T0.plus(6)).await.unwrap(), 7);
    assert_eq!(shop.one(hint("evt_4", 1)).await, Written::Heard);
}

#[rstest]
#[tokio::test]
async fn what_waits_is_counted_and_listed_page_by_page(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    let writes: Vec<Write> = (1..=6).map(|number| begin(number, 1)).collect();
    shop.write(&writes).await;
    let review = Move { reason: Some("amount_mismatch".to_owned()), ..Move::to(PaymentState::Review) };
    let writes = [
        step(2, 1, 1, captured()),
        step(3, 1, 1, review),
        step(4, 1, 1, captured()),
        step(4, 1, 2, paid()),
        give_back(4, Cause::OrderCancelled, 1_000),
        step(5, 1, 1, declined()),
    ];
    assert!(shop.write(&writes).await.iter().all(Result::is_ok));
    let mut waiting = shop.book.payments().waiting(T0.plus(4)).await.unwrap();
    waiting.sort_by_key(|waiting| waiting.state.as_str());
    let at = |state, count, since, late| Waiting { state, count, begun: T0, since, late };
    assert_eq!(
        waiting,
        [
            at(PaymentState::Captured, 1, T0.plus(5), 0),
            at(PaymentState::Review, 1, T0.plus(5), 0),
            at(PaymentState::Started, 2, T0, 2),
        ]
    );
    let page = async |before, after, most| shop.book.compensations(before, after, most).await.unwrap();
    let ids = |page: &[Compensation]| page.iter().map(Compensation::place).collect::<Vec<_>>();
    let all = page(T0, None, 50).await;
    assert!(
        matches!(&all[..], [
        Compensation::Payment(one),
        Compensation::Payment(two),
        Compensation::Payment(three),
        Compensation::Refund(four),
        Compensation::Payment(six),
    ] if one.id == payment(1, 1).id && two.captured == 1_000 && three.state == PaymentState::Review
        && four.order == the_order(4) && six.id == payment(6, 1).id),
        "{all:?}"
    );
    let (first, second) = (page(T0, None, 2).await, page(T0, Some(all[1].place()), 2).await);
    assert_eq!([ids(&first), ids(&second)].concat(), ids(&all)[..4]);
    // Young ones are under way; what a person must look at is listed at once.
    assert_eq!(ids(&page(T0.plus(-1), None, 50).await), [ids(&all)[2], ids(&all)[3]]);
}

#[rstest]
#[tokio::test]
async fn a_group_that_cannot_be_written_leaves_nothing_and_the_next_one_can(
    #[values(Sqlite, MySql)] home: Home,
) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1)]).await;
    let impossible = Payment { refunded: 5, ..payment(3, 1) };
    let writes = [step(1, 1, 1, captured()), begin(2, 1), Write::Begin(Box::new(impossible))];
    assert!(shop.book.write_group(&writes, T0).await.is_err());
    assert_eq!(shop.find(1, 1).await, payment(1, 1));
    assert_eq!(shop.book.payments().find(payment(2, 1).id).await.unwrap(), None);
    assert_eq!(told(&shop.write(&writes[..2]).await), ["captured v2", "started v1"]);
}

/// More than one statement holds, and fewer than the statement that holds them: each row is what it was moved to, and no other.
#[rstest]
#[tokio::test]
async fn many_rows_move_in_one_group(#[values(Sqlite, MySql)] home: Home, #[values(50, 300)] many: u128) {
    let shop = Shop::open(home).await;
    shop.write(&(1..=many + 1).map(|number| begin(number, 1)).collect::<Vec<_>>()).await;
    let named = |number: u128| Move { provider_ref: Some(format!("pi_{number}")), ..captured() };
    let steps = (1..=many).map(|number| step(number, 1, 1, named(number))).collect::<Vec<_>>();
    let told = shop.write(&steps).await;
    assert!(told.iter().all(|answer| matches!(answer, Ok(Written::Row(_)))));
    for (number, answer) in (1..).zip(told) {
        let Ok(Written::Row(row)) = answer else { panic!("{number}") };
        assert_eq!(row.provider_ref, Some(format!("pi_{number}")));
        assert_eq!(shop.find(number, 1).await, *row);
    }
    assert_eq!(shop.find(many + 1, 1).await, payment(many + 1, 1), "who was not moved stays");
    assert_eq!(shop.book.payments().all().count().await as u128, many + 1);
}

#[tokio::test]
async fn the_flush_does_not_wait_for_whoever_writes_money_and_its_wal_stays_short() {
    let shop = Shop::open(Home::Sqlite).await;
    let held = shop.book.store.writer().await.unwrap();
    let flush = shop.tables.checkpoint_if_due(false);
    tokio::time::timeout(std::time::Duration::from_secs(5), flush).await.expect("it asks for money's writer");
    drop(held);
    let wal = shop.dir.path().join("money.db-wal");
    for number in 1..=600_u128 {
        shop.write(&[begin(number, 1)]).await;
        if number % 8 == 0 {
            shop.book.checkpoint_if_due().await;
        }
    }
    assert!(std::fs::metadata(wal).unwrap().len() < 8 << 20);
}
