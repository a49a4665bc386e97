//! Where a run takes place: a shop of its own on one node or several, a shop somewhere else, a rival's, or the reference server.
//! Whatever it is, the engine needs addresses, tokens and product ids; the judges also need what was in stock before.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, each};
use crate::cluster::{Cluster, Surroundings};
use crate::judge::stock;
use crate::process::{Process, free_address, ready};
use crate::reference;
use crate::rivals::{Rival, RivalShop};
use crate::shop::{Goods, Shop, read_tokens};
use crate::workload::Workload;

pub struct Stage {
    /// Where we ask.
    pub target: SocketAddr,
    /// Where the crowd asks.
    pub targets: Vec<SocketAddr>,
    pub tokens: Vec<String>,
    pub admin: Option<String>,
    pub products: Vec<String>,
    /// Units of each product before the run.
    pub on_hand: Vec<u64>,
    pub server: Server,
}

pub enum Server {
    Shop(Box<Shop>),
    Cluster(Box<Cluster>),
    Reference { process: Process, _folder: TempDir },
    Rival(Box<RivalShop>),
    Elsewhere,
}

/// Which nodes of a shop the crowd asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    All,
    /// Those that stand by and hand on what they are asked.
    StandingBy,
}

impl Stage {
    /// A fresh shop with the workload's goods, running.
    pub async fn own(binary: &Path, workload: &Workload, environment: &[(String, String)]) -> Result<Self> {
        let mut shop = Shop::seeded(binary, &goods_of(workload))?;
        shop.server_environment.extend_from_slice(environment);
        let tokens = shop.tokens(workload.users)?;
        let admin = Some(shop.admin_token()?);
        shop.start().await?;
        let (target, server) = (shop.target(), Server::Shop(Box::new(shop)));
        Self::look_around(target, tokens, admin, workload.products, server).await
    }

    /// A fresh shop on several nodes with the workload's goods, running.
    pub async fn cluster(
        binary: &Path,
        workload: &Workload,
        nodes: usize,
        doors: Doors,
        around: Surroundings,
    ) -> Result<Self> {
        ensure!(
            workload.payment.is_none(),
            "on several nodes nobody pays: the simulated provider's book lies in the folder of one of them"
        );
        let mut cluster = Cluster::seeded(binary, &goods_of(workload), nodes, around).await?;
        let tokens = cluster.tokens(workload.users)?;
        let admin = Some(cluster.admin_token().to_owned());
        cluster.start().await?;
        let (mut targets, active) = (cluster.targets(), cluster.active().await?);
        let target = targets[0];
        if doors == Doors::StandingBy {
            targets.remove(active);
        }
        ensure!(!targets.is_empty(), "no node stands by");
        let server = Server::Cluster(Box::new(cluster));
        let stage = Self::look_around(target, tokens, admin, workload.products, server).await?;
        Ok(Self { targets, ..stage })
    }

    /// A shop that somebody else runs.
    pub async fn elsewhere(url: &str, tokens: &Path, admin: Option<String>, products: usize) -> Result<Self> {
        let authority = url.strip_prefix("http://").context("--url: only http:// is spoken here")?;
        let authority = authority.trim_end_matches('/');
        let with_port =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let target = tokio::net::lookup_host(&with_port)
            .await?
            .next()
            .with_context(|| format!("no address for {authority}"))?;
        Self::look_around(target, read_tokens(tokens)?, admin, products, Server::Elsewhere).await
    }

    /// The reference server, as a process of its own.
    pub async fn reference(users: usize) -> Result<Self> {
        let (target, secret) = (free_address()?, secret());
        let folder = tempfile::Builder::new().prefix("stockade-bench-").tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reference", "--addr", &target.to_string()]).env("STOCKADE_JWT_SECRET", &secret);
        let mut process = Process::start(command, &folder.path().join("server.log"))?;
        ready(&mut process, target, "/readyz").await?;
        Ok(Self {
            target,
            targets: vec![target],
            tokens: reference::tokens(users, &secret)?,
            admin: None,
            products: vec!["prod_01kas0000000000000000000zz".into()],
            on_hand: vec![0],
            server: Server::Reference { process, _folder: folder },
        })
    }

    /// A rival's server on its own store, with its goods.
    pub async fn rival(rival: Rival, users: usize, stock: u64) -> Result<Self> {
        let secret = secret();
        let shop = RivalShop::open(rival, &secret, stock).await?;
        Ok(Self {
            target: shop.target(),
            targets: vec![shop.target()],
            tokens: reference::tokens(users, &secret)?,
            admin: None,
            products: RivalShop::products(),
            on_hand: vec![stock],
            server: Server::Rival(Box::new(shop)),
        })
    }

    /// The processes of the servers, where they are ours.
    pub fn pids(&self) -> Vec<u32> {
        match &self.server {
            Server::Shop(shop) => shop.pid().into_iter().collect(),
            Server::Cluster(cluster) => cluster.pids().collect(),
            Server::Reference { process, .. } => vec![process.id()],
            Server::Rival(shop) => vec![shop.pid()],
            Server::Elsewhere => Vec::new(),
        }
    }

    /// Where each server answers, whether the crowd asks there or not.
    pub fn nodes(&self) -> Vec<SocketAddr> {
        match &self.server {
            Server::Cluster(cluster) => cluster.targets(),
            Server::Shop(_) | Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => {
                vec![self.target]
            }
        }
    }

    /// The server that sells.
    pub async fn active(&self) -> Result<SocketAddr> {
        match &self.server {
            Server::Cluster(cluster) => Ok(cluster.targets()[cluster.active().await?]),
            Server::Shop(_) | Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => {
                Ok(self.target)
            }
        }
    }

    /// The process of the store, where the server has one beside it.
    pub fn store_pid(&self) -> Option<u32> {
        match &self.server {
            Server::Rival(shop) => shop.store_pid(),
            Server::Cluster(cluster) => cluster.database_pid(),
            Server::Shop(_) | Server::Reference { .. } | Server::Elsewhere => None,
        }
    }

    /// The database of nodes, for whoever wants to ask it himself.
    pub fn database_url(&self) -> Option<String> {
        match &self.server {
            Server::Cluster(cluster) => Some(cluster.database_url()),
            Server::Shop(_) | Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => None,
        }
    }

    /// What makes a run on it worth less than it looks.
    pub fn warning(&self) -> Option<&str> {
        match &self.server {
            Server::Cluster(cluster) => cluster.warning(),
            Server::Shop(_) | Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => None,
        }
    }

    pub fn shop(&mut self) -> Option<&mut Shop> {
        match &mut self.server {
            Server::Shop(shop) => Some(shop),
            Server::Cluster(_) | Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => None,
        }
    }

    /// Stops what sells, and has it audit its own books; nothing where that is not ours to do.
    pub async fn close(&mut self) -> Option<(Result<()>, Result<String>)> {
        match &mut self.server {
            Server::Shop(shop) => Some((shop.stop().await, shop.audit())),
            Server::Cluster(cluster) => Some((cluster.stop_all().await, cluster.audit())),
            Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => None,
        }
    }

    /// Stops what was started. The path of a store worth looking at, if `keep`.
    pub fn keep_store(&mut self) -> Option<PathBuf> {
        match &mut self.server {
            Server::Shop(shop) => Some(shop.keep()),
            Server::Cluster(cluster) => cluster.keep(),
            Server::Reference { .. } | Server::Rival(_) | Server::Elsewhere => None,
        }
    }

    async fn look_around(
        target: SocketAddr,
        tokens: Vec<String>,
        admin: Option<String>,
        products: usize,
        server: Server,
    ) -> Result<Self> {
        ensure!(!tokens.is_empty(), "no access tokens");
        let products = list_products(target, products).await?;
        let stocks =
            each(target, 16, &products, async |client, product| stock(client, product).await).await?;
        let on_hand = stocks.iter().map(|stock| (stock.available + stock.held + stock.sold) as u64).collect();
        Ok(Self { target, targets: vec![target], tokens, admin, products, on_hand, server })
    }
}

fn goods_of(workload: &Workload) -> Goods {
    Goods {
        users: workload.users,
        products: workload.products,
        stock: workload.stock,
        hold_seconds: workload.hold_seconds,
        per_customer_limit: workload.per_customer_limit,
    }
}

fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

pub async fn list_products(target: SocketAddr, wanted: usize) -> Result<Vec<String>> {
    let mut client = Client::new(target);
    let mut products = Vec::with_capacity(wanted);
    let mut cursor = String::new();
    loop {
        let page = client.get_json(&format!("/v1/products?limit=100{cursor}"), None).await?;
        let rows = page["data"].as_array().context("GET /v1/products: no data")?;
        products.extend(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)));
        match &page["next_cursor"] {
            _ if products.len() >= wanted => break,
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => bail!("the shop has {} products, the workload needs {wanted}", products.len()),
        }
    }
    products.truncate(wanted);
    Ok(products)
}
