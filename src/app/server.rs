//! The HTTP servers: the shop's, and the operators' where they have one of their own.
//!
//! Their threads start before their doors open: owners that must not sleep are loaded onto the threads their callers will be
//! on, and nobody is answered before they are. Until then callers wait in the kernel's queue.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix::Arbiter;
use actix_web::dev::{Server, ServerHandle};
use actix_web::{App as Routes, HttpServer};
use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use super::Listeners;
use crate::actors::stock::Directory;
use crate::config::Http;
use crate::http::{self, Doors, Side};

const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// For the head of a request. Who needs longer is not a browser.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// For a connection to say good-bye.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Operators ask seldom.
const OPS_WORKERS: usize = 1;
/// A thread that has not started after this long will not.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Servers whose threads run.
pub struct Serving {
    pub addr: SocketAddr,
    pub ops_addr: Option<SocketAddr>,
    handles: Vec<ServerHandle>,
    /// Starting a server blocks its thread until the workers are ready, so each has one of its own.
    arbiters: Vec<Arbiter>,
    gate: watch::Sender<bool>,
}

impl Serving {
    /// Starts the threads and tells the directory about them. Nobody is answered before [`Serving::open`].
    pub async fn start(
        config: &Http,
        listeners: &Listeners,
        doors: &Doors,
        directory: &Directory,
    ) -> Result<Serving> {
        let Listeners { shop, ops } = listeners.again()?;
        let addr = shop.local_addr()?;
        let ops_addr = ops.as_ref().map(TcpListener::local_addr).transpose()?;
        let (gate, _) = watch::channel(false);
        let (started, mut starting) = watch::channel(0_usize);

        let side = Side::shop(ops.is_none());
        let workers = Workers {
            count: config.workers,
            connections_max: config.connections_max,
            shutdown: config.shutdown,
        };
        let directory = directory.clone();
        let at_home = move || {
            // Owners live where their callers are: on the threads that are awake anyway.
            directory.add_arbiter(Arbiter::current());
            started.send_modify(|started| *started += 1);
        };
        let shop = serve(shop, doors, side, workers, &gate, at_home)
            .with_context(|| format!("cannot serve on {addr}"))?;
        let mut servers = vec![shop];
        if let Some(ops) = ops {
            let workers = Workers { count: OPS_WORKERS, ..workers };
            servers
                .push(serve(ops, doors, Side::Ops, workers, &gate, || {}).context("cannot serve operators")?);
        }

        let handles = servers.iter().map(Server::handle).collect();
        let arbiters: Vec<Arbiter> = servers.iter().map(|_| Arbiter::new()).collect();
        for (server, arbiter) in servers.into_iter().zip(&arbiters) {
            arbiter.spawn(async {
                if let Err(error) = server.await {
                    tracing::error!(%error, "a server ended");
                }
            });
        }
        let all = starting.wait_for(|started| *started >= config.workers);
        let started = tokio::time::timeout(START_WITHIN, all).await;
        ensure!(started.is_ok_and(|started| started.is_ok()), "the HTTP threads did not start");
        Ok(Serving { addr, ops_addr, handles, arbiters, gate })
    }

    /// From now on callers are answered.
    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    /// No new connections; those that are open go on.
    pub async fn pause(&self) {
        for handle in &self.handles {
            handle.pause().await;
        }
    }

    /// Requests in flight finish, within the time that the configuration gives them; then the threads end.
    pub async fn stop(self) {
        for handle in &self.handles {
            handle.stop(true).await;
        }
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

#[derive(Clone, Copy)]
struct Workers {
    count: usize,
    /// Of one thread.
    connections_max: usize,
    shutdown: Duration,
}

fn serve(
    socket: TcpListener,
    doors: &Doors,
    side: Side,
    workers: Workers,
    gate: &watch::Sender<bool>,
    started: impl Fn() + Clone + Send + 'static,
) -> std::io::Result<Server> {
    let (doors, gate) = (doors.clone(), gate.subscribe());
    let routes = move || {
        started();
        let (doors, gate) = (doors.clone(), gate.clone());
        Routes::new()
            .data_factory(move || {
                let mut gate = gate.clone();
                // A gate that goes without opening means that the app was given up.
                async move { gate.wait_for(|open| *open).await.map(|_| Opened).map_err(drop) }
            })
            .configure(move |routes| http::configure(routes, &doors, side))
    };
    let server = HttpServer::new(routes)
        .workers(workers.count)
        .max_connections(workers.connections_max)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_WITHIN)
        .client_disconnect_timeout(DISCONNECT_WITHIN)
        .tcp_nodelay(true)
        .shutdown_timeout(workers.shutdown.as_secs().max(1))
        .disable_signals()
        .listen(socket)?;
    Ok(server.run())
}

/// A worker whose gate has opened.
struct Opened;
