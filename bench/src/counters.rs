//! What a database says of itself while it is loaded, read at the two ends of the measured window: how many transactions of the
//! journal it has taken, how many commits of everybody, and what then stands in the journal.
//!
//! A group sets a variable of its session before it looks whether its node lives, and hardly anybody else sets one, so the server's
//! counter of those is that of the journal's transactions. The journal's rows are the second witness: with one product a row is a group.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Row};
use tokio::time::{Duration, sleep};

use crate::clock::{Nanos, as_seconds, now_ns};
use crate::engine::{Live, Plan};

const STATUS: &str = "show global status where variable_name in ('Com_set_option', 'Handler_commit')";
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";
const WRITTEN: &str = "select count(*), cast(coalesce(sum(last_seq - first_seq + 1), 0) as signed) from journal \
    where pos > ? and pos <= ?";

/// What happened in the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    pub seconds: f64,
    /// Acknowledged, as the crowd heard it.
    pub orders: u64,
    /// Transactions of the journal, by the server's counter.
    pub transactions: u64,
    /// Commits of everything that wrote or read, by the server's counter.
    pub commits: u64,
    /// Rows of the journal, and the events in them.
    pub groups: u64,
    pub events: u64,
}

/// One reading.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at_ns: Nanos,
    orders: u64,
    transactions: u64,
    commits: u64,
    last_pos: i64,
}

pub struct Counters {
    connection: MySqlConnection,
    readings: Vec<Reading>,
}

impl Counters {
    pub async fn of(url: &str) -> Result<Self> {
        let connection = MySqlConnection::connect(url).await.context("the database's counters")?;
        Ok(Self { connection, readings: Vec::new() })
    }

    /// Reads at both ends of the measured window, and ends then.
    pub async fn watch(&mut self, start_ns: Nanos, plan: &Plan, live: &Live) -> Result<()> {
        for after_ns in [plan.warm_up_ns, plan.duration_ns] {
            let moment = start_ns.saturating_add(after_ns);
            sleep(Duration::from_nanos(moment.saturating_sub(now_ns()))).await;
            let reading = self.read(live).await?;
            self.readings.push(reading);
        }
        Ok(())
    }

    /// What the readings say, once nothing is measured any more.
    pub async fn counted(mut self) -> Result<Option<Counted>> {
        let [before, after] = self.readings[..] else { return Ok(None) };
        let written = sqlx::query(WRITTEN).bind(before.last_pos).bind(after.last_pos);
        let row = written.fetch_one(&mut self.connection).await?;
        let (groups, events): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Some(Counted {
            seconds: as_seconds(after.at_ns - before.at_ns),
            orders: after.orders - before.orders,
            transactions: after.transactions.saturating_sub(before.transactions),
            commits: after.commits.saturating_sub(before.commits),
            groups: groups.unsigned_abs(),
            events: events.unsigned_abs(),
        }))
    }

    async fn read(&mut self, live: &Live) -> Result<Reading> {
        let status = sqlx::query(STATUS).fetch_all(&mut self.connection).await?;
        let (at_ns, orders) = (now_ns(), live.acknowledged.load(std::sync::atomic::Ordering::Relaxed));
        let last_pos = sqlx::query_scalar(LAST_POS).fetch_one(&mut self.connection).await?;
        let mut reading = Reading { at_ns, orders, transactions: 0, commits: 0, last_pos };
        for row in status {
            let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let value = value.parse().with_context(|| format!("{name} is {value}"))?;
            match name.as_str() {
                "Com_set_option" => reading.transactions = value,
                _ => reading.commits = value,
            }
        }
        Ok(reading)
    }
}

impl Counted {
    pub fn per_s(&self, what: u64) -> f64 {
        what as f64 / self.seconds.max(1e-9)
    }

    /// In each transaction of the journal, on average.
    pub fn events_each(&self) -> f64 {
        self.events as f64 / self.transactions.max(1) as f64
    }
}
