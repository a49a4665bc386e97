//! A rival's shop: its store and its server, each a process of its own, with goods in it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use stockade_servers::{MariaDb, Redis};
use tempfile::TempDir;

use super::{Books, PRODUCT, Rival};
use crate::answer::Outcome;
use crate::drive::grouped;
use crate::engine::Tally;
use crate::judge::Verdict;
use crate::process::{Process, free_address, ready};

pub struct RivalShop {
    rival: Rival,
    target: SocketAddr,
    server: Process,
    store: Store,
    units: u64,
    _folder: TempDir,
}

enum Store {
    MariaDb(MariaDb),
    Redis(Redis),
}

impl RivalShop {
    pub async fn open(rival: Rival, secret: &str, units: u64) -> Result<Self> {
        let store = Store::started(rival).await?;
        rival.stock_up(&store.url(), units).await.context("the rival's goods")?;
        let target = free_address()?;
        let folder = tempfile::Builder::new().prefix("stockade-bench-").tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["rival", rival.word(), "--addr", &target.to_string()]);
        command.env("STOCKADE_JWT_SECRET", secret).env("STOCKADE_RIVAL_STORE", store.url());
        let mut server = Process::start(command, &folder.path().join("server.log"))?;
        ready(&mut server, target, "/readyz").await?;
        Ok(Self { rival, target, server, store, units, _folder: folder })
    }

    pub fn target(&self) -> SocketAddr {
        self.target
    }

    pub fn products() -> Vec<String> {
        vec![PRODUCT.to_owned()]
    }

    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    pub fn store_pid(&self) -> Option<u32> {
        match &self.store {
            Store::MariaDb(database) => database.pid(),
            Store::Redis(store) => store.pid(),
        }
    }

    /// Whether the store holds what buyers were told, and no more than there was.
    pub async fn verdict(&self, heard: &Tally) -> Result<Verdict> {
        if count(heard, Outcome::is_unavailable) + count(heard, Outcome::is_uncertain) > 0 {
            eprintln!("{} says:\n{}", self.rival.word(), self.server.log_tail());
        }
        let books = self.rival.books(&self.store.url(), self.units).await.context("the rival's books")?;
        Ok(judge(books, self.units, heard))
    }
}

fn judge(books: Books, units: u64, heard: &Tally) -> Verdict {
    let yes = heard.total[Outcome::Acknowledged as usize];
    let uncertain = count(heard, Outcome::is_uncertain);
    let detail = format!(
        "{} yes, {} uncertain, {} orders kept, {} of {} units taken",
        grouped(yes),
        grouped(uncertain),
        grouped(books.orders),
        grouped(books.taken),
        grouped(units)
    );
    let kept = (yes..=yes + uncertain).contains(&books.orders);
    match kept && books.taken == books.orders && books.orders <= units {
        true => Verdict::pass("sold what it said", detail),
        false => Verdict::fail("sold what it said", detail),
    }
}

fn count(heard: &Tally, fits: fn(Outcome) -> bool) -> u64 {
    Outcome::ALL
        .into_iter()
        .filter(|outcome| fits(*outcome))
        .map(|outcome| heard.total[outcome as usize])
        .sum()
}

impl Store {
    async fn started(rival: Rival) -> Result<Self> {
        Ok(match rival {
            Rival::RowLock | Rival::SkipLocked => Self::MariaDb(MariaDb::started().await?),
            Rival::RedisScript | Rival::RedisLock => Self::Redis(Redis::started().await?),
        })
    }

    fn url(&self) -> String {
        match self {
            Self::MariaDb(database) => database.url(),
            Self::Redis(store) => store.url(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;

    #[test]
    fn a_rival_that_sells_more_or_less_than_it_said_is_told_from_an_honest_one() {
        let ruled = |yes: u64, unknown: u64, orders: u64, taken: u64| {
            let mut heard = Tally::new(1).unwrap();
            heard.total[Outcome::Acknowledged as usize] = yes;
            heard.total[Outcome::Unknown as usize] = unknown;
            judge(Books { orders, taken }, 20, &heard).ruling
        };
        assert_eq!(ruled(20, 0, 20, 20), Ruling::Pass);
        assert_eq!(ruled(19, 1, 20, 20), Ruling::Pass);
        assert_eq!(ruled(21, 0, 21, 21), Ruling::Fail);
        assert_eq!(ruled(20, 0, 20, 19), Ruling::Fail);
        assert_eq!(ruled(20, 0, 19, 19), Ruling::Fail);
        assert_eq!(ruled(19, 0, 20, 20), Ruling::Fail);
    }
}
