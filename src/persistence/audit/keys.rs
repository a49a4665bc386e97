//! The keys that orders were made with, and what cancelled them: each as the journal tells it, and no two orders of a buyer under one key.
//!
//! The first is looked at where an order's birth is read. The second is asked of the whole table, which may hold many millions: eight bytes of
//! each key are in memory, and only where those are equal the keys themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::TryStreamExt;

use crate::domain::id::{OrderId, UserId};
use crate::persistence::order::Born;
use crate::persistence::{StoreError, Tables};

/// Where the key of an order, or the hash of its body, is another in the tables than it was at its birth; and where the request that
/// has cancelled it is another than its ledger named when it dropped it.
pub(super) async fn compare(
    tables: &Tables,
    born: &[Born],
    cancelled: &BTreeMap<OrderId, u64>,
) -> Result<Vec<String>, StoreError> {
    let ids: Vec<OrderId> = born.iter().map(|born| born.order.id).collect();
    let found = tables.orders().keys_of(&ids).await?;
    let found: BTreeMap<OrderId, _> = found.into_iter().map(|found| (found.order, found)).collect();
    let mut told = Vec::new();
    for Born { order, key } in born {
        // One without a row is told of already.
        let Some(found) = found.get(&order.id) else { continue };
        if found.key.as_deref() != key.as_ref().map(|key| &key.key[..]) {
            told.push(format!("{}: has another key than the journal says", order.id));
        }
        if found.body != key.as_ref().map_or(0, |key| key.body.cast_signed()) {
            told.push(format!("{}: has another hash of its body than the journal says", order.id));
        }
        if found.cancelled_by != cancelled.get(&order.id).copied() {
            told.push(format!("{}: was cancelled by another request than the journal says", order.id));
        }
    }
    Ok(told)
}

/// The keys under which a buyer has several orders.
pub(super) async fn used_twice(tables: &Tables) -> Result<Vec<String>, StoreError> {
    let orders = tables.orders();
    let mut all = Vec::new();
    let mut keys = pin!(orders.all_keys());
    while let Some(used) = keys.try_next().await? {
        all.push(used.print().bits());
    }
    all.sort_unstable();
    let equal = all.windows(2).filter_map(|two| match two {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    let equal: BTreeSet<u64> = equal.collect();
    drop(all);
    if equal.is_empty() {
        return Ok(Vec::new());
    }
    let mut suspected: BTreeMap<(UserId, [u8; 16]), u64> = BTreeMap::new();
    let mut keys = pin!(orders.all_keys());
    while let Some(used) = keys.try_next().await? {
        if equal.contains(&used.print().bits()) {
            *suspected.entry((used.buyer, used.key)).or_default() += 1;
        }
    }
    let mut told = Vec::new();
    for ((buyer, key), many) in suspected.into_iter().filter(|(_, many)| *many > 1) {
        let named = orders.made_with(buyer, key).await?;
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        told.push(format!("{buyer}: {many} orders were made with one key: {}", named.join(", ")));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::domain::stock::{Command, KeyUse, Reserve};
    use crate::persistence::flush::Flusher;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{Owner, T0, append_all, buyer, open, order, units};

    /// The journal agrees, for each product's history knows its own keys alone.
    #[rstest]
    #[tokio::test]
    async fn two_orders_of_one_buyer_under_one_key_are_told(#[values(Sqlite, MySql)] home: Home) {
        let dir = tempfile::tempdir().unwrap();
        let (journal, tables) = (open(&dir).await, home.open(&dir).await);
        let mut entries = Vec::new();
        // The third is another buyer's, the fourth has another key.
        for (number, who, byte) in [(1, 1, 7), (2, 1, 7), (3, 2, 7), (4, 1, 8)] {
            let mut owner = Owner::stocked(number, 5);
            let (order, buyer, quantity) = (order(number, owner.product), buyer(who), units(1));
            let key = Some(KeyUse { key: [byte; 16], body: 7 });
            let reserve = Reserve { order, line: 0, buyer, quantity, key, expected: None, placing: None };
            owner.does(&Command::Reserve(reserve), T0);
            entries.push(owner.seal(T0));
        }
        append_all(&journal, entries);
        let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
        while flusher.run_slice().await.unwrap().events > 0 {}
        drop(flusher);
        journal.close().await;
        tables.close().await.unwrap();
        let report = home.audit(&dir).await;
        let [told] = &report.differences[..] else { panic!("{:?}", report.differences) };
        let begins = format!("{}: 2 orders were made with one key: order_", buyer(1));
        assert!(told.starts_with(&begins) && told.matches("order_").count() == 2, "{told}");
    }
}
