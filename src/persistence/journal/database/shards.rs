//! Which session owns which shard: the table `shards`, which the lead alone writes.
//!
//! Always true: a shard moves only after its owner has let go of it, or its session has ended; and with each move its epoch grows. So
//! whoever reads what the table gives him serves it alone, and what he writes is later than what was written before him.

use std::sync::LazyLock;

use super::membership::{by_itself, close};
use crate::domain::id::SHARDS;
use crate::persistence::StoreError;
use crate::persistence::sql::mysql::Server;
use crate::persistence::sql::{self, Connection, Error, Listed};

const ALL: &str = "select shard, session, epoch from shards order by shard";
static GIVE: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "update shards set epoch = greatest(epoch + 1, ?), session = ? where session = ? and shard in (",
        "?",
        ")",
    )
});
static MAKE: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("insert into shards (shard, session, epoch) values ", "(?, ?, ?)", ""));

/// A row of `shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    pub shard: u16,
    pub session: i64,
    /// Grows with each move.
    pub epoch: i64,
}

/// All of them; none before there was a lead.
pub async fn all(server: &Server) -> Result<Vec<Owned>, StoreError> {
    let mut session = Connection::MySql(server.connect().await?);
    let rows: Vec<(i64, i64, i64)> = sql::query_as(ALL).fetch_all(&mut session).await?;
    close(session).await;
    let owned = |(shard, session, epoch)| {
        Some(Owned { shard: u16::try_from(shard).ok().filter(|shard| *shard < SHARDS)?, session, epoch })
    };
    Ok(rows.into_iter().filter_map(owned).collect())
}

/// Gives shards that are `from`'s to a session, or makes them for it if there are none; in a transaction that holds on to the session of
/// the lead, whose server it is. What is somebody else's by now stays his.
pub async fn give(server: &Server, shards: &[u16], from: i64, to: i64) -> Result<(), StoreError> {
    by_itself(server, async |connection| given(connection, shards, from, to).await).await
}

async fn given(connection: &mut Connection, shards: &[u16], from: i64, to: i64) -> Result<(), Error> {
    let there: Vec<(i64, i64, i64)> = sql::query_as(ALL).fetch_all(&mut *connection).await?;
    let is_there = |shard: &&u16| there.binary_search_by_key(&i64::from(**shard), |row| row.0).is_ok();
    let (known, new): (Vec<&u16>, Vec<&u16>) = shards.iter().partition(is_there);
    for (text, piece) in GIVE.cut(&known) {
        let giving = sql::query(text).bind(to).bind(to).bind(from);
        let giving = piece.iter().fold(giving, |query, shard| query.bind(i64::from(**shard)));
        giving.execute(&mut *connection).await?;
    }
    for (text, piece) in MAKE.cut(&new) {
        let making = sql::query(text);
        let making =
            piece.iter().fold(making, |query, shard| query.bind(i64::from(**shard)).bind(to).bind(to));
        making.execute(&mut *connection).await?;
    }
    Ok(())
}
