//! Events that were heard long ago.

use super::*;

#[rstest]
#[tokio::test]
async fn they_are_forgotten_some_at_a_time(#[values(Sqlite, MySql)] home: Home) {
    let shop = Shop::open(home).await;
    let many = SWEEP_MAX as usize + 44;
    let hints: Vec<Write> = (0..many).map(|number| hint(&format!("evt_{number}"), 1)).collect();
    shop.write(&hints).await;
    let sweep = async |before: i64| shop.book.sweep_heard(T0.plus(before)).await.unwrap();
    // Their hour is that of the group.
    assert_eq!(sweep(5).await, 0);
    for forgotten in [SWEEP_MAX as usize, 44, 0] {
        assert_eq!(sweep(6).await, forgotten);
    }
    assert_eq!(shop.one(hint("evt_0", 1)).await, Written::Heard);
}
