//! Which orders a buyer has: the `buyer_orders` rows, in runs.
//!
//! An index by buyer over all orders is written at random: with one, the millionth order cost the flush 18 µs; in
//! runs it costs 5, like the first. New orders go into a small run of their own, whose pages stay few and in the
//! cache; full runs are merged, sixteen at a time, when nothing else is to be done (O'Neil et al., *The log-structured
//! merge-tree*, 1996). A reader looks into every run: some dozens at a hundred million orders.
//! Always true: an order stands in exactly one run, in the middle of a merge as well.

use std::sync::LazyLock;

use super::StoreError;
use super::sql::{self, Connection, Listed, signed};
use crate::domain::id::{OrderId, UserId};

/// Orders of a run before the next is begun: about 3 MB of pages.
const RUN_ORDERS: i64 = 65_536;
/// Runs of one level that become one of the next.
const FAN_IN: usize = 16;
/// Orders of each run that one step of a merge moves.
const STEP_ORDERS: i64 = 256;

const OPEN_RUN: &str = "select run, orders from buyer_runs where level = 0 order by run desc limit 1";
const LAST_RUN: &str = "select coalesce(max(run), 0) from buyer_runs";
const NEW_RUN: &str = "insert into buyer_runs (run, level, orders) values (?, ?, 0)";
const COUNT: &str = "update buyer_runs set orders = orders + ? where run = ?";
static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::fine("insert into buyer_orders (run, buyer_id, order_id) values ", "(?, ?, ?)", "")
});

const MERGING: &str = "select run, goes_into from buyer_runs where goes_into is not null order by run";
/// The run that is being filled is the newest of its level, so one more than the fan-in must be there.
const FULL_LEVEL: &str =
    "select level from buyer_runs group by level having count(*) > ? order by level limit 1";
const OLDEST: &str = "select run from buyer_runs where level = ? order by run limit ?";
const GOES_INTO: &str = "update buyer_runs set goes_into = ? where run = ?";
const STEP_END: &str = "select buyer_id from buyer_orders where run = ? order by buyer_id limit 1 offset ?";
const MOVE: &str = "insert into buyer_orders (run, buyer_id, order_id) \
    select ?, buyer_id, order_id from buyer_orders where run = ? and buyer_id <= ?";
const MOVED: &str = "delete from buyer_orders where run = ? and buyer_id <= ?";
const FORGET: &str = "delete from buyer_runs where run = ?";

/// Notes new orders of their buyers, inside the flush's transaction.
pub(super) async fn insert(
    connection: &mut Connection,
    mut orders: Vec<(UserId, OrderId)>,
) -> Result<(), StoreError> {
    if orders.is_empty() {
        return Ok(());
    }
    let run = open_run(connection).await?;
    orders.sort_unstable();
    for (sql, piece) in INSERT.cut(&orders) {
        let query = piece.iter().fold(sql::query(sql), |query, (buyer, order)| {
            query.bind(run).bind(&buyer.as_bytes()[..]).bind(&order.as_bytes()[..])
        });
        query.execute(&mut *connection).await?;
    }
    sql::query(COUNT).bind(signed(orders.len() as u64)).bind(run).execute(connection).await?;
    Ok(())
}

/// The run that is being filled; a new one when it is full.
async fn open_run(connection: &mut Connection) -> Result<i64, StoreError> {
    let newest: Option<(i64, i64)> = sql::query_as(OPEN_RUN).fetch_optional(&mut *connection).await?;
    match newest {
        Some((run, orders)) if orders < RUN_ORDERS => Ok(run),
        _ => new_run(connection, 0).await,
    }
}

async fn new_run(connection: &mut Connection, level: i64) -> Result<i64, StoreError> {
    let last: i64 = sql::query_scalar(LAST_RUN).fetch_one(&mut *connection).await?;
    sql::query(NEW_RUN).bind(last + 1).bind(level).execute(connection).await?;
    Ok(last + 1)
}

/// One bounded step of merging, in one transaction; false when there is nothing to merge.
pub(super) async fn merge_step(connection: &mut Connection) -> Result<bool, StoreError> {
    sql::begin(connection).await?;
    let merged = merge(connection).await;
    sql::end(connection, merged).await
}

async fn merge(connection: &mut Connection) -> Result<bool, StoreError> {
    let merging: Vec<(i64, i64)> = sql::query_as(MERGING).fetch_all(&mut *connection).await?;
    match merging.first() {
        Some(&(_, into)) => move_some(connection, &merging, into).await.map(|()| true),
        None => begin_merge(connection).await,
    }
}

async fn begin_merge(connection: &mut Connection) -> Result<bool, StoreError> {
    let level: Option<i64> =
        sql::query_scalar(FULL_LEVEL).bind(FAN_IN as i64).fetch_optional(&mut *connection).await?;
    let Some(level) = level else { return Ok(false) };
    let oldest: Vec<i64> =
        sql::query_scalar(OLDEST).bind(level).bind(FAN_IN as i64).fetch_all(&mut *connection).await?;
    let into = new_run(connection, level + 1).await?;
    for run in oldest {
        sql::query(GOES_INTO).bind(into).bind(run).execute(&mut *connection).await?;
    }
    Ok(true)
}

/// Moves the first buyers of all sources, as far as no source gives more than a step (and one buyer's rest). A
/// source that has less than that is emptied up to the same buyer; when all have, they are done.
async fn move_some(connection: &mut Connection, sources: &[(i64, i64)], into: i64) -> Result<(), StoreError> {
    let mut end: Option<Vec<u8>> = None;
    for (run, _) in sources {
        let here: Option<Vec<u8>> =
            sql::query_scalar(STEP_END).bind(run).bind(STEP_ORDERS).fetch_optional(&mut *connection).await?;
        end = match (end, here) {
            (Some(end), Some(here)) => Some(end.min(here)),
            (end, here) => end.or(here),
        };
    }
    let done = end.is_none();
    let end = end.unwrap_or_else(|| vec![0xff; 16]);
    let mut moved = 0;
    for (run, _) in sources {
        moved +=
            sql::query(MOVE).bind(into).bind(run).bind(&end).execute(&mut *connection).await?.rows_affected();
        sql::query(MOVED).bind(run).bind(&end).execute(&mut *connection).await?;
        if done {
            sql::query(FORGET).bind(run).execute(&mut *connection).await?;
        }
    }
    sql::query(COUNT).bind(signed(moved)).bind(into).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{buyer, order, product};

    async fn orders_of(connection: &mut Connection, buyer: UserId) -> i64 {
        let count = "select count(*) from buyer_orders where buyer_id = ?";
        sql::query_scalar(count).bind(&buyer.as_bytes()[..]).fetch_one(connection).await.unwrap()
    }

    #[rstest]
    #[tokio::test]
    async fn runs_are_merged_step_by_step_and_nobody_loses_an_order(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let mut writer = tables.writer().await.unwrap();
        for run in 0..18 {
            let orders = (0..600).map(|n| (buyer(n % 7 * (run % 3 + 1)), order(run * 1_000 + n, product(1))));
            insert(&mut writer, orders.collect()).await.unwrap();
            sql::query("update buyer_runs set orders = 65536 where level = 0")
                .execute(&mut *writer)
                .await
                .unwrap();
        }
        let before = orders_of(&mut writer, buyer(6)).await;
        let mut steps = 0;
        while merge_step(&mut writer).await.unwrap() {
            steps += 1;
            assert_eq!(orders_of(&mut writer, buyer(6)).await, before, "after step {steps}");
        }
        assert!(steps > 3, "{steps}");
        let runs: Vec<(i64, i64)> = sql::query_as("select level, count(*) from buyer_runs group by level")
            .fetch_all(&mut *writer)
            .await
            .unwrap();
        assert_eq!(runs, [(0, 2), (1, 1)]);
        let counted: i64 = sql::query_scalar("select orders from buyer_runs where level = 1")
            .fetch_one(&mut *writer)
            .await
            .unwrap();
        assert_eq!(counted, 16 * 600);
    }
}
