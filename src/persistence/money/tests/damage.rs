//! Rows that somebody or something has damaged.

use super::*;

impl Shop {
    async fn damage(&self, sql: &'static str, id: &[u8]) {
        assert_eq!(self.book.store.write_synced(sql::query(sql).bind(id)).await.unwrap(), 1);
    }
}

#[rstest]
#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_nobody_else(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    shop.write(&[begin(1, 1), begin(2, 1), begin(3, 1)]).await;
    shop.write(&[step(2, 1, 1, captured()), step(3, 1, 1, captured())]).await;
    shop.write(&[give_back(2, Cause::Line(1), 10), give_back(3, Cause::Line(1), 10)]).await;
    let shop = shop.killed().await;
    let other = refund(3, Cause::Line(1), 10);
    shop.damage("update payments set currency = 'cow' where id = ?", payment(1, 1).id.as_bytes()).await;
    let damaged = refund(2, Cause::Line(1), 10).id;
    shop.damage("update refunds set cause = 'whim' where id = ?", damaged.as_bytes()).await;

    let (payments, refunds) = shop.due(LEASE, 9).await;
    assert_eq!(payments.iter().map(|row| row.id).collect::<Vec<_>>(), [payment(2, 1).id, payment(3, 1).id]);
    assert_eq!(refunds.iter().map(|row| row.id).collect::<Vec<_>>(), [other.id]);
    let listed = shop.book.compensations(T0, None, 9).await.unwrap();
    assert_eq!(listed.len(), 3, "{listed:#?}");

    // They do not stand before the others for ever, but they come back.
    let due = |rows: (Vec<Payment>, Vec<Refund>)| (rows.0.len(), rows.1.len());
    assert_eq!(due(shop.due(LEASE, 1).await), (1, 1));
    let hour = LEASE + 3_600_000;
    shop.damage("update payments set currency = 'KRW' where id = ?", payment(1, 1).id.as_bytes()).await;
    shop.damage("update refunds set cause = 'line' where id = ?", damaged.as_bytes()).await;
    assert_eq!(due(shop.due(hour - 1, 9).await), (2, 1));
    assert_eq!(due(shop.due(hour, 9).await), (3, 2));
}

#[rstest]
#[tokio::test]
async fn a_row_that_cannot_be_read_fails_nobody_else_s_write(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    let captures = |number| step(number, 1, 1, captured());
    shop.write(&[begin(1, 1), begin(2, 1), begin(3, 1), step(1, 1, 1, declined())]).await;
    shop.write(&[captures(2), captures(3), give_back(2, Cause::Line(1), 10)]).await;
    let shop = shop.killed().await;
    let (first, given) = (payment(1, 1).id, refund(2, Cause::Line(1), 10).id);
    shop.damage("update payments set currency = 'cow' where id = ?", first.as_bytes()).await;
    shop.damage("update refunds set cause = 'whim' where id = ?", given.as_bytes()).await;
    let writes = [
        hint("evt_1", 1),
        // Whether the first attempt makes room for it nobody knows.
        begin(1, 2),
        begin(4, 1),
        give_back(2, Cause::Line(1), 10),
        give_back(2, Cause::Line(2), 10),
        step(3, 1, 2, paid()),
    ];
    let (damaged, wanted) = ("Err(Damaged)", "wanted v1");
    assert_eq!(
        told(&shop.write(&writes).await),
        [damaged, damaged, "started v1", damaged, wanted, "paid v3"]
    );
    // Nothing was noted of it: it is done once it can be.
    shop.damage("update payments set currency = 'KRW' where id = ?", first.as_bytes()).await;
    shop.damage("update refunds set cause = 'line' where id = ?", given.as_bytes()).await;
    let answers = shop.write(&writes[..4]).await;
    assert_eq!(answers[0], Ok(Written::Heard));
    assert_eq!(told(&answers[1..]), ["started v1", "taken by 1 started", wanted]);
}
