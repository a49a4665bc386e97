//! That a buyer was told of a payment as of one that is on its way.

use super::*;

fn tell_open(number: u128) -> Write {
    Write::TellOpen(payment(number, 1).id)
}

#[rstest]
#[tokio::test]
async fn it_is_noted_beside_whoever_walks_the_payment_and_stays(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    let review = Move { captured: Some(won(900)), ..Move::to(PaymentState::Review) };
    shop.write(&[begin(1, 1), begin(2, 1), step(2, 1, 1, review), begin(3, 1)]).await;
    // Its version stays: the walk goes on as if nothing had been.
    let answers = shop.write(&[tell_open(1), step(1, 1, 1, captured()), tell_open(2), tell_open(9)]).await;
    assert_eq!(told(&answers), ["started v1", "captured v2", "review v2", "Err(NoSuchPayment)"]);
    let shop = shop.killed().await;
    shop.one(step(1, 1, 2, paid())).await;
    let shop = shop.killed().await;
    for (number, state, told_open) in
        [(1, PaymentState::Paid, true), (2, PaymentState::Review, true), (3, PaymentState::Started, false)]
    {
        let row = shop.find(number, 1).await;
        assert_eq!((row.state, row.told_open), (state, told_open));
    }
}

#[rstest]
#[tokio::test]
async fn what_has_ended_is_not_told_as_open_any_more(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), begin(2, 1), step(1, 1, 1, declined()), step(2, 1, 1, captured())]).await;
    shop.one(step(2, 1, 2, paid())).await;
    for number in [1, 2] {
        let row = shop.find(number, 1).await;
        assert_eq!(shop.one(tell_open(number)).await, Written::Row(Box::new(row.clone())));
        assert_eq!((shop.find(number, 1).await, row.told_open), (row, false));
    }
}
