//! What the provider would not do, and a person wants once more; and what it has failed at, and says nothing else of.

use super::*;
use crate::domain::payment::{NO_ANSWER, SPENT, SPENT_MS, TRIED_AGAIN};

#[rstest]
#[tokio::test]
async fn it_is_asked_for_by_another_name(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), step(1, 1, 1, captured()), give_back(1, Cause::Line(1), 10)]).await;
    let (id, until) = (refund(1, Cause::Line(1), 10).id, T0.plus(70));
    let rest = |version, why: &str| {
        let reason = Some(why.to_owned());
        Write::RestRefund { refund: id, version, due_at: until, reason }
    };
    let claim = |version| Write::ClaimRefund { refund: id, version, until };
    let found = async || {
        let row = shop.book.refunds().find(id).await.unwrap().unwrap();
        (row.version, row.made_anew, row.reason.unwrap())
    };
    // Nobody knows what became of it: by another name it might be made twice.
    shop.write(&[rest(1, "provider_unavailable"), rest(2, TRIED_AGAIN)]).await;
    assert_eq!(found().await, (3, 0, TRIED_AGAIN.to_owned()));
    // Who takes it up does not unsay what the provider has said.
    shop.write(&[rest(3, "failed_lost_card"), claim(4)]).await;
    assert_eq!(found().await, (5, 0, "failed_lost_card".to_owned()));
    shop.write(&[rest(5, TRIED_AGAIN), claim(6), rest(7, TRIED_AGAIN)]).await;
    assert_eq!(found().await, (8, 1, TRIED_AGAIN.to_owned()));
}

/// Since when nothing else is said stands in the row, whoever has it.
#[rstest]
#[tokio::test]
async fn a_name_that_says_nothing_is_left_after_an_hour(#[values(Sqlite, MySql)] home: Home) {
    let mut shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), step(1, 1, 1, captured()), give_back(1, Cause::Line(1), 10)]).await;
    let (id, first) = (refund(1, Cause::Line(1), 10).id, T0.plus(10));
    let (late, over) = (first.plus(SPENT_MS - 1), first.plus(SPENT_MS));
    for (version, at, told) in [(1, first, (0, SPENT)), (3, late, (0, SPENT)), (5, over, (1, NO_ANSWER))] {
        let spent = Write::RestRefund { refund: id, version, due_at: at, reason: Some(SPENT.to_owned()) };
        shop.book.write_group(&[spent], at).await.unwrap();
        shop = shop.killed().await;
        // Who takes it up, and who is not answered then, says nothing of it.
        let claim = Write::ClaimRefund { refund: id, version: version + 1, until: at };
        shop.book.write_group(&[claim], at).await.unwrap();
        let row = shop.book.refunds().find(id).await.unwrap().unwrap();
        assert_eq!((row.made_anew, row.reason.as_deref().unwrap()), told);
    }
}
