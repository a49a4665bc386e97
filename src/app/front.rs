//! The front of a node that is one of many: its sockets and their threads. It is there before the shop opens in this process, and
//! stays when the shop goes on elsewhere.
//!
//! Always true: a request that came in is answered by the shop that is open here, handed to the node where it is, or waits; none is
//! taken by a shop that is being closed.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use actix_web::rt;
use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use super::listeners::{self, Listeners};
use super::server::{OPS_WORKERS, Servers, serve};
use super::strangers::{Seldom, Stranger, Strangers};
use super::{LEAVE_AFTER, address_rate};
use crate::actors::mirror::MirrorReader;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::front::{Front, FrontFactory, Mirrored, Node, Open, Owners, Standing, WAIT_MAX, Ways, desk};
use crate::http::health::{NotReady, Readiness};
use crate::http::{Proxies, Side};
use crate::peer::{self, Link, NODES_FLIGHT_MAX, PeerError, PeerKeys, Shares};
use crate::persistence::journal::{Active, Neighbours, follow};
use crate::persistence::redis::Redis;
use crate::telemetry::Metrics;

/// Connections of other nodes: one for each of their threads.
const PEERS_MAX: usize = 1_024;
/// Sockets of whoever has not proved yet that he is a node, those among them that wait for a busy thread to let go of them.
const GREETINGS_MAX: usize = 1_024;
/// How long those who are inside may take: others wait outside meanwhile, and are to be let in elsewhere while they still do.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the lead is to be reached.
const PULSE: Duration = Duration::from_millis(100);
/// How often it is looked whether the last request has been answered.
const LOOK: Duration = Duration::from_millis(1);

pub struct NodeFront {
    pub addr: SocketAddr,
    pub ops_addr: Option<SocketAddr>,
    pub neighbours: Arc<Neighbours>,
    front: Front,
    shutdown: Duration,
    threads: Vec<ArbiterHandle>,
    servers: Servers,
    tasks: Vec<JoinHandle<()>>,
}

impl NodeFront {
    /// Takes requests from now on.
    pub async fn start(config: &Config, clock: &Clock) -> Result<Arc<NodeFront>> {
        let keys = config.people.master_keys.as_ref().context("nodes know each other by their master key")?;
        let keys = PeerKeys::of(keys)?;
        let Listeners { shop, ops } = Listeners::bind(&config.http)?;
        let (addr, ops_addr) = (shop.local_addr()?, ops.as_ref().map(|ops| ops.local_addr()).transpose()?);
        let peers = listeners::bind(config.peers.addr)?;
        let address = match &config.peers.name {
            Some(name) => name.clone(),
            None => peers.local_addr()?.to_string(),
        };
        let neighbours = Arc::new(Neighbours::new(Some(address.clone()), config.peers.may_own));
        let redis = config.store.redis.as_ref().map(Redis::open).transpose()?;
        let read = |redis: &Redis| MirrorReader::new(redis.clone(), clock.clone());
        let mirror = redis.as_ref().map(|redis| Mirrored::new(read(redis), address_rate(config)));
        let front = Front {
            standing: Arc::new(watch::Sender::new(Standing::Nowhere)),
            keys,
            owners: Arc::default(),
            look: neighbours.look.clone(),
            closing: Arc::new(watch::Sender::new(false)),
            mirror,
            readiness: Readiness::without_active_node(),
            clock: clock.clone(),
            proxies: Proxies(config.http.trusted_proxies.clone().into()),
            with_ops: ops.is_some(),
        };

        let (started, starting) = watch::channel(0_usize);
        let threads = Arc::<Mutex<Vec<ArbiterHandle>>>::default();
        let shop = {
            let (front, side, threads) = (front.clone(), Side::shop(ops.is_none()), threads.clone());
            let factory = move || {
                threads.lock().unwrap_or_else(PoisonError::into_inner).push(Arbiter::current());
                started.send_modify(|started| *started += 1);
                FrontFactory::new(&front, side)
            };
            serve(shop, &config.http, config.http.workers, clock, factory)
        };
        let mut servers = vec![shop.with_context(|| format!("cannot serve on {addr}"))?];
        if let Some(ops) = ops {
            let front = front.clone();
            let factory = move || FrontFactory::new(&front, Side::Ops);
            servers.push(
                serve(ops, &config.http, OPS_WORKERS, clock, factory).context("cannot serve operators")?,
            );
        }
        let servers = Servers::run(servers, starting, config.http.workers).await?;
        let threads = std::mem::take(&mut *threads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = vec![
            rt::spawn(hear(front.clone(), neighbours.clone())),
            rt::spawn(accept(TcpListener::from_std(peers)?, front.clone(), threads.clone())),
        ];
        if let Some(redis) = redis {
            tasks.push(rt::spawn(async move { redis.keep(Metrics::global()).await }));
        }
        tracing::info!(%addr, ops_addr = ops_addr.map(tracing::field::display), peers = %address, "this node takes requests");
        let shutdown = config.http.shutdown;
        Ok(Arc::new(NodeFront { addr, ops_addr, neighbours, front, shutdown, threads, servers, tasks }))
    }

    /// What is told while no shop is open here.
    pub fn readiness(&self) -> &Readiness {
        &self.front.readiness
    }

    /// The threads that serve shoppers.
    pub fn threads(&self) -> &[ArbiterHandle] {
        &self.threads
    }

    /// From now on requests are answered here, those that wait first.
    pub fn open(&self, open: Arc<Open>) {
        self.front.standing.send_replace(Standing::Here(open));
    }

    /// From now on other nodes are answered about the stock that is owned here, or are not.
    pub fn own(&self, owners: Option<Arc<Owners>>) {
        self.front.owners.store(owners);
    }

    /// The way to owners at other nodes.
    pub fn ways(&self) -> Ways {
        Ways::new(self.front.keys.clone(), self.front.clock.clone())
    }

    /// Nobody is let in any more: whoever comes waits for another node.
    pub fn shut(&self, open: &Arc<Open>) {
        self.front.standing.send_if_modified(|standing| {
            let is_open = matches!(standing, Standing::Here(here) if Arc::ptr_eq(here, open));
            if is_open {
                *standing = Standing::Nowhere;
            }
            is_open
        });
    }

    /// The same, and returns when whoever was in has been answered, or has had a second.
    pub async fn close(&self, open: &Arc<Open>) {
        self.shut(open);
        let all_out = async {
            // The threads hold on to it, and each request that is inside.
            while Arc::strong_count(open) > 1 {
                rt::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(self.shutdown.min(CLOSE_WITHIN), all_out).await.is_err() {
            tracing::warn!("some requests are not answered yet; they are left behind");
        }
    }

    /// The shop goes on elsewhere: whoever still comes is answered there, and when callers have heard that they should ask elsewhere the
    /// threads end.
    pub async fn leave(&self, config: &Config, clock: &Clock) {
        let Some(place) = super::store::place(config, clock, self.neighbours.clone()) else { return };
        self.front.readiness.raise(NotReady::ShuttingDown);
        // A socket that nobody accepts from would keep them waiting.
        let told = rt::time::sleep(LEAVE_AFTER);
        if self.neighbours.followed.load(Ordering::Acquire) {
            let mut active = self.neighbours.active.subscribe();
            tokio::select! {
                _ = active.wait_for(Option::is_some) => {}
                // Nobody waits for longer.
                () = rt::time::sleep(WAIT_MAX) => {}
                Err(error) = follow(&place) => {
                    tracing::warn!(%error, "the database does not answer: nobody can be handed to another node");
                }
            }
        }
        told.await;
        let rest = async {
            rt::time::sleep(CLOSE_WITHIN).await;
            self.front.closing.send_replace(true);
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = self.servers.stop() => {}
            () = rest => {}
        }
    }
}

impl Drop for NodeFront {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Tells the threads who leads, whenever another node has become the lead.
///
/// A connection of its own shows whether that node is to be reached: to be ready without that would be an empty promise.
async fn hear(front: Front, neighbours: Arc<Neighbours>) {
    let mut active = neighbours.active.subscribe();
    let mut pulse = rt::time::interval(PULSE);
    let mut way: Option<(Arc<Node>, Link)> = None;
    loop {
        let now = active.borrow_and_update().clone();
        // Where this node was itself nobody is now: a former session of ours that still counts.
        let other = now.filter(|active| active.address != neighbours.address);
        front.standing.send_if_modified(|standing| hears(standing, other));
        way = match (&*front.standing.borrow(), way.take()) {
            (Standing::There(node), Some(kept)) if kept.0 == *node => Some(kept),
            (Standing::There(node), _) => {
                Some((node.clone(), Link::to(node.address.clone(), front.keys.clone())))
            }
            _ => None,
        };
        if way.as_ref().is_some_and(|(_, link)| link.is_up()) {
            front.readiness.clear(NotReady::NoActiveNode);
        } else {
            front.readiness.raise(NotReady::NoActiveNode);
        }
        tokio::select! {
            changed = active.changed() => if changed.is_err() { return },
            _ = pulse.tick() => {}
        }
    }
}

/// Whether that is news. A shop that is open here closes by its own will.
fn hears(standing: &mut Standing, active: Option<Active>) -> bool {
    let next = match active {
        Some(Active { session, address: Some(address) }) => {
            Standing::There(Arc::new(Node { session, address }))
        }
        _ => Standing::Nowhere,
    };
    let news = match (&*standing, &next) {
        (Standing::Here(_), _) | (Standing::Nowhere, Standing::Nowhere) => false,
        (Standing::There(known), Standing::There(next)) => known != next,
        _ => true,
    };
    if news {
        *standing = next;
    }
    news
}

/// The nodes' door.
struct Door {
    front: Front,
    nodes: Semaphore,
    shares: Arc<Shares>,
    strangers: Strangers,
    greetings: Arc<Semaphore>,
    wrong_key: Seldom,
    no_place: Seldom,
}

/// Brings other nodes' connections to the threads, one after the other.
async fn accept(peers: TcpListener, front: Front, threads: Vec<ArbiterHandle>) {
    let door = Arc::new(Door {
        front,
        nodes: Semaphore::new(PEERS_MAX),
        shares: Shares::new(NODES_FLIGHT_MAX),
        strangers: Strangers::default(),
        greetings: Arc::new(Semaphore::new(GREETINGS_MAX)),
        wrong_key: Seldom::default(),
        no_place: Seldom::default(),
    });
    for thread in threads.iter().cycle() {
        let Ok(greeting) = door.greetings.clone().acquire_owned().await else { return };
        let (stream, from) = match accepted(&peers).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "another node's connection could not be taken");
                rt::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (door, stranger) = (door.clone(), door.strangers.admit(from.ip()));
        thread.spawn_fn(move || {
            rt::spawn(async move {
                if let Err(error) = door.serve(stream, from, stranger, greeting).await {
                    tracing::debug!(%error, %from, "a connection of another node ended");
                }
            });
        });
    }
}

async fn accepted(peers: &TcpListener) -> std::io::Result<(std::net::TcpStream, SocketAddr)> {
    let (stream, from) = peers.accept().await?;
    Ok((stream.into_std()?, from))
}

impl Door {
    async fn serve(
        &self,
        stream: std::net::TcpStream,
        from: SocketAddr,
        stranger: Stranger,
        greeting: OwnedSemaphorePermit,
    ) -> Result<()> {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let greeted = stranger.greets(peer::greet(stream, &self.front.keys)).await;
        drop(greeting);
        let now_ns = self.front.clock.nanos();
        let greeted = greeted.context("another stranger has come")?.inspect_err(|why| {
            if matches!(why, PeerError::WrongKey | PeerError::Damaged) && self.wrong_key.is_due(now_ns) {
                tracing::warn!(%from, "somebody at the nodes' door does not know our key");
            }
        })?;
        let Ok(_place) = self.nodes.try_acquire() else {
            if self.no_place.is_due(now_ns) {
                tracing::warn!(%from, places = PEERS_MAX, "no more connections of nodes are taken");
            }
            return Ok(());
        };
        Ok(greeted.serve(self.shares.of(from.ip()), desk(&self.front)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(session: i64) -> Option<Active> {
        Some(Active { session, address: Some(format!("node-{session}:1")) })
    }

    #[test]
    fn the_front_hears_of_other_nodes_once() {
        let mut standing = Standing::Nowhere;
        assert!(!hears(&mut standing, None));
        assert!(hears(&mut standing, there(1)));
        assert!(!hears(&mut standing, there(1)));
        assert!(hears(&mut standing, there(2)));
        // Without an address it cannot be asked.
        assert!(hears(&mut standing, Some(Active { session: 3, address: None })));
        assert!(matches!(standing, Standing::Nowhere));
    }
}
