//! What the walk over orders and their money costs: `cargo test --release -p stockade audit::bench -- --ignored --nocapture`.

use std::collections::{BTreeSet, HashSet};

use crate::clock::Clock;
use crate::domain::id::{OrderId, PaymentId, UserId};
use crate::domain::payment::{Payment, PaymentState};
use crate::domain::stock::{Attempt, Millis};
use crate::persistence::Tables;
use crate::persistence::money::Write;
use crate::persistence::sql;

const ORDERS: i64 = 1_000_000;
const AT_ONCE: i64 = 512;

/// As many paid orders of one line, all alike but for their ids.
const FILL: &str = "insert into orders with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) \
    select unhex(printf('%012X70008000000000000000', 1700000000000 + i)), zeroblob(16), zeroblob(16), 'paid', 1000, 'KRW', \
    null, 0, 1, 1, 1, 1, null from n";
const LINES: &str =
    "insert into order_lines select id, 1, zeroblob(16), 1, 1000, 'KRW', 1, 'ordered' from orders";

#[tokio::test]
#[ignore = "a bench"]
async fn a_million_paid_orders() {
    let dir = tempfile::tempdir().unwrap();
    let tables = Tables::open(dir.path()).await.unwrap();
    for (sql, bound) in [(FILL, Some(ORDERS)), (LINES, None)] {
        let query = sql::query(sql);
        let query = if let Some(bound) = bound { query.bind(bound) } else { query };
        query.execute(&mut *tables.writer().await.unwrap()).await.unwrap();
    }
    let mut after = OrderId::from_bytes([0; 16]);
    loop {
        let page = tables.orders().behind(after, AT_ONCE as u32).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        let payments: Vec<Write> = page
            .iter()
            .map(|order| {
                Write::Begin(Box::new(Payment {
                    id: PaymentId::of(order.id, Attempt::FIRST),
                    order: order.id,
                    attempt: Attempt::FIRST,
                    buyer: UserId::from_bytes([0; 16]),
                    amount: order.total,
                    method: None,
                    state: PaymentState::Paid,
                    reason: None,
                    provider_ref: Some("pi_3RfK2aB9xQ7mW3".to_owned()),
                    captured: order.total.amount,
                    captured_in: order.total.currency,
                    refunded: 0,
                    key: None,
                    told_open: false,
                    tries: 0,
                    due_at: None,
                    version: 3,
                    created_at: Millis(1),
                    updated_at: Millis(1),
                }))
            })
            .collect();
        tables.money().write_group(&payments, Millis(1)).await.unwrap();
    }
    tables.close().await.unwrap();
    let (tables, clock) = (Tables::read_only(dir.path()), Clock::start());
    let began = clock.nanos();
    let money = super::money::audit(&tables, &HashSet::new(), BTreeSet::new()).await.unwrap();
    let took = (clock.nanos() - began) / 1_000_000;
    println!("{} payments against their orders in {took} ms", money.payments);
    assert_eq!((money.payments as i64, money.differences), (ORDERS, Vec::new()));
}
