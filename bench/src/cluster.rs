//! A shop on several nodes: a MariaDB of its own, a Redis if it shall have one, and `stockade` processes on them, of which one
//! leads while the others hand on whatever they are asked.
//!
//! It owns the processes and the network between them, and every harm that is done to them goes through it. Always true: a node
//! keeps its addresses and its folder, and the database its data, across everything that happens to their processes; who is active
//! is what the nodes themselves say, since any of them may have taken over meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_servers::{Cut, MariaDb, Network, Redis};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::client::Client;
use crate::shop::{Goods, Shop, random_key};

/// How long one node may take to say who is active.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long they may be at odds: a death is believed after four seconds, and a database that died has to read its log.
const AGREE_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What stands in Redis while the mirror is whole: that it is looked after, and at least one product.
const BEAT: &str = "stockade:{mirror}:beat";
const VIEWS: &str = "stockade:*:view";

/// What a shop has around it beside its database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub redis: bool,
    /// A network that can be cut.
    pub cuts: bool,
    /// Nodes more, which have their places and do not run yet.
    pub spares: usize,
}

pub struct Cluster {
    /// They stand before the servers, so that they have ended when those go.
    nodes: Vec<Node>,
    /// So many at the end of them are not started with the others.
    spares: usize,
    database: MariaDb,
    redis: Option<Redis>,
    /// Last, since all of them are in it.
    network: Network,
    admin: String,
}

struct Node {
    shop: Shop,
    /// What the other nodes call it.
    name: SocketAddr,
    is_paused: bool,
}

/// What a node owns, as the nodes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owning {
    /// Its number among ours.
    pub node: usize,
    pub shards: u64,
    /// Products whose owners are in its memory, if that is known.
    pub loaded: Option<u64>,
}

/// What a node says of its own health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub is_ready: bool,
    /// Something is wrong though orders go on.
    pub is_degraded: bool,
}

/// What the nodes say of themselves.
struct Seen {
    /// The session of the active one: the later one has taken over from all before it.
    session: u64,
    /// Where other nodes reach it.
    active: String,
    /// Those that are up, it among them: where others reach each, its shards, and the products in its memory.
    nodes: Vec<(String, u64, Option<u64>)>,
}

impl Cluster {
    /// A seeded database, running; no node runs yet.
    pub async fn seeded(binary: &Path, goods: &Goods, nodes: usize, around: Surroundings) -> Result<Self> {
        ensure!(nodes > 0, "a shop has at least one node");
        let (nodes, spares) = (nodes + around.spares, around.spares);
        let mut network = if around.cuts { Network::that_can_be_cut(nodes)? } else { Network::whole() };
        let mut database = MariaDb::install_at(network.database())?;
        database.start().await?;
        let mut redis = around.redis.then(|| Redis::install_at(network.redis())).transpose()?;
        if let Some(redis) = &mut redis {
            redis.start().await?;
        }
        let environment = vec![
            ("STOCKADE_DATABASE_URL".to_owned(), database.url()),
            ("STOCKADE_MASTER_KEY".to_owned(), random_key()),
        ];
        let mut shops = vec![Shop::seeded_on(binary, goods, environment)?];
        while shops.len() < nodes {
            shops.push(shops[0].beside()?);
        }
        let admin = shops[0].admin_token()?;
        let shops = shops.into_iter().enumerate();
        let nodes =
            shops.map(|(number, shop)| Node::of(shop, number, &mut network, &database, redis.as_ref()));
        Ok(Self { nodes: nodes.collect::<Result<_>>()?, spares, database, redis, network, admin })
    }

    /// Why what is done to it is worth less than it could be.
    pub fn warning(&self) -> Option<&str> {
        self.network.warning()
    }

    /// One access token for each of the seed's users, in the seed's order.
    pub fn tokens(&self, users: usize) -> Result<Vec<String>> {
        self.nodes[0].shop.tokens(users)
    }

    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    /// Starts the first node, which becomes the active one, and then the others but for the spare ones, until all know of each other.
    pub async fn start(&mut self) -> Result<()> {
        let started = self.nodes.len() - self.spares;
        for node in &mut self.nodes[..started] {
            node.shop.start().await?;
        }
        self.whole().await
    }

    /// Where each node answers, in the nodes' order.
    pub fn targets(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.shop.target()).collect()
    }

    /// The processes of the nodes that run.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().filter_map(|node| node.shop.pid())
    }

    pub fn database_url(&self) -> String {
        self.database.url()
    }

    pub fn database_pid(&self) -> Option<u32> {
        self.database.pid()
    }

    /// The number of the node that sells, once there is one.
    pub async fn active(&self) -> Result<usize> {
        let seen = self.agree("no node is active", |_| true).await?;
        self.nodes
            .iter()
            .position(|node| node.name.to_string() == seen.active)
            .with_context(|| format!("the active node is at {}, and that is none of ours", seen.active))
    }

    /// Waits until one node is active and knows of all others that run, and each of them takes requests and misses nothing.
    pub async fn whole(&self) -> Result<()> {
        let all = self.running().count();
        self.agree("some node is missing", |seen| seen.nodes.len() >= all).await?;
        let is_whole = async || {
            let health = join_all(self.running().map(|node| self.health(node))).await;
            health.iter().all(|health| health.is_ready && !health.is_degraded)
        };
        until("some node is not well", is_whole).await
    }

    /// Waits until the mirror is there, of a shop that has sold something.
    pub async fn mirrored(&self) -> Result<()> {
        until("the mirror is not made again", async || self.is_mirrored().await.unwrap_or(false)).await
    }

    /// Whoever does not answer is not ready.
    pub async fn health(&self, node: usize) -> Health {
        let asked = async {
            let reply = Client::new(self.nodes[node].shop.target()).get("/readyz", None).await.ok()?;
            let degraded = reply.json().ok()?;
            let is_degraded = degraded["degraded"].as_array().is_some_and(|what| !what.is_empty());
            Some(Health { is_ready: reply.status == 200, is_degraded })
        };
        timeout(ANSWER_TIMEOUT, asked).await.ok().flatten().unwrap_or_default()
    }

    /// Who owns what, if there is somebody who knows; nodes that do not run any more are not told.
    pub async fn owning(&self) -> Option<Vec<Owning>> {
        let seen = self.look().await?;
        let of = |(node, shards, loaded): &(String, u64, Option<u64>)| {
            let number = self.nodes.iter().position(|known| known.name.to_string() == *node)?;
            Some(Owning { node: number, shards: *shards, loaded: *loaded })
        };
        let owning: Vec<Owning> = seen.nodes.iter().filter_map(of).collect();
        let mut owning: Vec<Owning> =
            owning.into_iter().filter(|owning| self.nodes[owning.node].shop.pid().is_some()).collect();
        owning.sort_by_key(|owning| owning.node);
        Some(owning)
    }

    /// The node that owns most of what is sold, if that is known.
    pub async fn seller(&self) -> Option<usize> {
        let loaded = |owning: &Owning| owning.loaded.filter(|loaded| *loaded > 0);
        let owning = self.owning().await?;
        let most =
            owning.iter().filter(|owning| loaded(owning).is_some()).max_by_key(|owning| loaded(owning));
        most.map(|owning| owning.node)
    }

    /// Whether the others take it that a node leads, or owns something.
    pub async fn counts_on(&self, node: usize) -> Result<bool> {
        let owning = self.owning().await.context("nobody says who owns what")?;
        let owns = owning.iter().any(|owning| owning.node == node && owning.shards > 0);
        Ok(owns || self.active().await? == node)
    }

    /// The first node that does not run.
    pub fn spare(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.nodes[*node].shop.pid().is_none())
    }

    /// Of the nodes that were there from the beginning the last one that runs and is not active.
    pub async fn dispensable(&self) -> Result<usize> {
        let active = self.active().await?;
        let first = self.nodes.len() - self.spares;
        let last = self.running().filter(|node| *node < first && *node != active).last();
        last.context("there is no node that could go")
    }

    /// The numbers of the nodes that run.
    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].shop.pid().is_some())
    }

    /// How many nodes there are, whether they run or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    async fn is_mirrored(&self) -> Result<bool> {
        let mut connection = self.ask_redis().await?;
        let beats: bool = redis::cmd("EXISTS").arg(BEAT).query_async(&mut connection).await?;
        let views: Vec<String> = redis::cmd("KEYS").arg(VIEWS).query_async(&mut connection).await?;
        Ok(beats && !views.is_empty())
    }

    async fn ask_redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        let url = self.redis.as_ref().context("there is no Redis")?.url();
        Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
    }

    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].shop.kill()
    }

    /// SIGTERM: it hands over, and must end well.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        self.nodes[node].shop.stop().await
    }

    /// Starts a node that does not run, and waits until it takes requests.
    pub async fn start_again(&mut self, node: usize) -> Result<()> {
        self.nodes[node].shop.start().await
    }

    pub fn pause(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        node.shop.pause()?;
        node.is_paused = true;
        Ok(())
    }

    pub fn wake(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        node.shop.wake()?;
        node.is_paused = false;
        Ok(())
    }

    pub fn kill_database(&mut self) -> Result<()> {
        self.database.kill()
    }

    pub async fn start_database(&mut self) -> Result<()> {
        self.database.start().await
    }

    /// From here on nothing gets through there, and nobody is told.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        self.network.cut(cut)
    }

    pub fn mend(&self, cut: Cut) -> Result<()> {
        self.network.mend(cut)
    }

    pub fn kill_redis(&mut self) -> Result<()> {
        self.redis.as_mut().context("there is no Redis")?.kill()
    }

    /// Starts it without whatever it knew.
    pub async fn start_redis_empty(&mut self) -> Result<()> {
        let redis = self.redis.as_mut().context("there is no Redis")?;
        redis.forget()?;
        redis.start().await
    }

    pub async fn flush_redis(&self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL").exec_async(&mut self.ask_redis().await?).await?)
    }

    /// Stops every node that runs, the active one last of all, so that nobody has to take over; each must end well.
    pub async fn stop_all(&mut self) -> Result<()> {
        let active = self.active().await?;
        let others: Vec<usize> = self.running().filter(|node| *node != active).collect();
        for node in others.into_iter().chain([active]) {
            self.stop(node).await.with_context(|| format!("node {node}"))?;
        }
        Ok(())
    }

    /// What `stockade audit` says of the database while no node runs.
    pub fn audit(&self) -> Result<String> {
        ensure!(self.pids().next().is_none(), "the books are closed once every node has stopped");
        let redis = self.redis.as_ref().map(|redis| ("STOCKADE_REDIS_URL".to_owned(), redis.url()));
        self.nodes[0].shop.audit_with(redis)
    }

    /// Leaves what the nodes wrote on disk when the cluster is dropped, and says where the first one's is; the database goes.
    pub fn keep(&mut self) -> Option<PathBuf> {
        self.nodes.iter_mut().map(|node| node.shop.keep()).collect::<Vec<_>>().into_iter().next()
    }

    /// What the nodes say, once it is as wanted.
    async fn agree(&self, complaint: &str, is_wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let deadline = Instant::now() + AGREE_TIMEOUT;
        loop {
            match self.look().await {
                Some(seen) if is_wanted(&seen) => return Ok(seen),
                _ if Instant::now() > deadline => bail!("{complaint} after {AGREE_TIMEOUT:?}"),
                _ => sleep(POLL).await,
            }
        }
    }

    /// Asks all nodes that are awake. One that has just been woken may still believe that it is the active one.
    async fn look(&self) -> Option<Seen> {
        let awake = self.nodes.iter().filter(|node| !node.is_paused && node.shop.pid().is_some());
        let answers = join_all(awake.map(async |node| {
            let mut client = Client::new(node.shop.target());
            let answer = timeout(ANSWER_TIMEOUT, client.get_json("/v1/admin/nodes", Some(&self.admin))).await;
            Seen::read(&answer.ok()?.ok()?)
        }));
        latest(answers.await.into_iter().flatten())
    }
}

impl Node {
    fn of(
        mut shop: Shop,
        number: usize,
        network: &mut Network,
        database: &MariaDb,
        redis: Option<&Redis>,
    ) -> Result<Self> {
        let site = network.site(number, database.address(), redis.map(Redis::address))?;
        let mut told = |name: &str, value: String| shop.server_environment.push((name.to_owned(), value));
        told("STOCKADE_PEER_ADDR", site.peers.to_string());
        told("STOCKADE_PEER_NAME", site.name.to_string());
        told("STOCKADE_DATABASE_URL", database.url_by(site.database));
        told("STOCKADE_TRUSTED_PROXIES", network.watchers());
        if let Some((redis, address)) = redis.zip(site.redis) {
            told("STOCKADE_REDIS_URL", redis.url_by(address));
        }
        let name = site.name;
        shop.settle(site);
        Ok(Self { shop, name, is_paused: false })
    }
}

impl Seen {
    fn read(list: &Value) -> Option<Self> {
        let rows = list["data"].as_array()?;
        let active = rows.iter().find(|row| row["state"] == "active")?;
        Some(Self {
            session: active["session"].as_u64()?,
            active: active["address"].as_str()?.to_owned(),
            nodes: rows.iter().filter_map(owned).collect(),
        })
    }
}

fn owned(row: &Value) -> Option<(String, u64, Option<u64>)> {
    let address = row["address"].as_str()?.to_owned();
    Some((address, row["shards"].as_u64()?, row["products_loaded"].as_u64()))
}

async fn until(complaint: &str, is_so: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + AGREE_TIMEOUT;
    while !is_so().await {
        ensure!(Instant::now() < deadline, "{complaint} after {AGREE_TIMEOUT:?}");
        sleep(POLL).await;
    }
    Ok(())
}

/// What most nodes say; of as many each, what names the later session. One that is cut off says what it has known before.
fn latest(seen: impl Iterator<Item = Seen>) -> Option<Seen> {
    let all: Vec<Seen> = seen.collect();
    let say_so = |session| all.iter().filter(|seen| seen.session == session).count();
    let best = all.iter().map(|seen| (say_so(seen.session), seen.session)).max()?;
    all.into_iter().filter(|seen| seen.session == best.1).max_by_key(|seen| seen.nodes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(session: Option<u64>, address: &str) -> Option<Seen> {
        let state = if session.is_some() { "active" } else { "standing_by" };
        Seen::read(&json!({ "data": [
            { "state": state, "address": address, "session": session, "shards": 1_024, "products_loaded": 7 },
            { "state": "standing_by", "address": "127.0.0.1:9", "session": null, "shards": 0, "products_loaded": null },
        ] }))
    }

    #[test]
    fn the_latest_session_is_believed_and_nobody_who_names_none() {
        assert!(seen(None, "127.0.0.1:1").is_none());
        let told = [seen(Some(3), "127.0.0.1:1"), seen(None, "127.0.0.1:7"), seen(Some(4), "127.0.0.1:2")];
        let seen = latest(told.into_iter().flatten()).unwrap();
        assert_eq!(seen.active, "127.0.0.1:2");
        let nodes = [("127.0.0.1:2".to_owned(), 1_024, Some(7)), ("127.0.0.1:9".to_owned(), 0, None)];
        assert_eq!(seen.nodes, nodes);
    }
}
