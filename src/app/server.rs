//! The HTTP servers: the shop's, and the operators' where they have one of their own.
//!
//! Their threads start before their doors open: owners that must not sleep are loaded onto the threads their callers will be
//! on, and nobody is answered before they are. Until then callers wait in the kernel's queue; at a node that is one of many, in the
//! front, which was there before the shop and stays behind it.

use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request};
use actix_server::{Server, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response};
use actix_web::rt::net::TcpStream;
use actix_web::{App as Routes, Error};
use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use super::connections::Connections;
use super::front::NodeFront;
use super::listeners::Listeners;
use super::patience::{Answering, Patience, Patient, Said};
use crate::actors::stock::Directory;
use crate::clock::Clock;
use crate::config::Http;
use crate::http::front::Open;
use crate::http::{self, Doors, Proxies, Side};
use crate::telemetry::Metrics;

/// For the head of a request. Who needs longer is not a browser.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// For a connection to say good-bye.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Operators ask seldom.
pub const OPS_WORKERS: usize = 1;
/// A thread that has not started after this long will not.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Servers whose threads run, each on an arbiter of its own: starting one blocks its thread until the workers are ready.
pub struct Servers {
    handles: Vec<ServerHandle>,
    arbiters: Vec<Arbiter>,
}

impl Servers {
    /// Runs them, and waits until `starting` has counted so many threads.
    pub async fn run(
        servers: Vec<Server>,
        mut starting: watch::Receiver<usize>,
        threads: usize,
    ) -> Result<Servers> {
        let handles = servers.iter().map(Server::handle).collect();
        let arbiters: Vec<Arbiter> = servers.iter().map(|_| Arbiter::new()).collect();
        for (server, arbiter) in servers.into_iter().zip(&arbiters) {
            arbiter.spawn(async {
                if let Err(error) = server.await {
                    tracing::error!(%error, "a server ended");
                }
            });
        }
        let all = starting.wait_for(|started| *started >= threads);
        let started = tokio::time::timeout(START_WITHIN, all).await;
        ensure!(started.is_ok_and(|started| started.is_ok()), "the HTTP threads did not start");
        Ok(Servers { handles, arbiters })
    }

    /// No new connections; those that are open go on.
    pub async fn pause(&self) {
        for handle in &self.handles {
            handle.pause().await;
        }
    }

    /// Requests in flight finish, within the time that the configuration gives them; then the threads end.
    pub async fn stop(&self) {
        for handle in &self.handles {
            handle.stop(true).await;
        }
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// The doors of one shop.
pub struct Serving {
    pub addr: SocketAddr,
    pub ops_addr: Option<SocketAddr>,
    way: Way,
}

/// Who its callers come through.
enum Way {
    /// Servers of its own.
    Alone { servers: Servers, gate: watch::Sender<bool> },
    /// The front of a node.
    Among { front: Arc<NodeFront>, open: Arc<Open> },
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
        let (started, starting) = watch::channel(0_usize);

        let side = Side::shop(ops.is_none());
        let directory = directory.clone();
        let at_home = move || {
            // Owners live where their callers are: on the threads that are awake anyway.
            directory.add_arbiter(Arbiter::current());
            started.send_modify(|started| *started += 1);
        };
        let shop = alone(shop, config, config.workers, (doors, side), &gate, at_home)
            .with_context(|| format!("cannot serve on {addr}"))?;
        let mut servers = vec![shop];
        if let Some(ops) = ops {
            let ops = alone(ops, config, OPS_WORKERS, (doors, Side::Ops), &gate, || {});
            servers.push(ops.context("cannot serve operators")?);
        }
        let servers = Servers::run(servers, starting, config.workers).await?;
        Ok(Serving { addr, ops_addr, way: Way::Alone { servers, gate } })
    }

    /// The same behind the front of a node, whose threads run already.
    pub fn behind(front: &Arc<NodeFront>, session: i64, doors: &Doors, directory: &Directory) -> Serving {
        front.threads().iter().for_each(|thread| directory.add_arbiter(thread.clone()));
        let open = Arc::new(Open { session, doors: doors.clone() });
        Serving { addr: front.addr, ops_addr: front.ops_addr, way: Way::Among { front: front.clone(), open } }
    }

    /// From now on callers are answered.
    pub fn open(&self) {
        match &self.way {
            Way::Alone { gate, .. } => drop(gate.send_replace(true)),
            Way::Among { front, open } => front.open(open.clone()),
        }
        Metrics::global().node_active.set(1.0);
    }

    /// No new connections; those that are open go on. Behind a front: no new requests, until another node leads.
    pub async fn pause(&self) {
        Metrics::global().node_active.set(0.0);
        match &self.way {
            Way::Alone { servers, .. } => servers.pause().await,
            Way::Among { front, open } => front.close(open).await,
        }
    }

    /// Behind a front: no new requests, from this moment on. The sockets of a shop that stands alone stay open, for the one that follows.
    pub fn shut(&self) {
        Metrics::global().node_active.set(0.0);
        match &self.way {
            Way::Alone { .. } => {}
            Way::Among { front, open } => front.shut(open),
        }
    }

    /// Requests in flight finish, within the time that the configuration gives them; then the threads end, if they are ours.
    pub async fn stop(self) {
        match &self.way {
            Way::Alone { servers, .. } => servers.stop().await,
            Way::Among { front, open } => front.close(open).await,
        }
    }
}

/// A shop's own server, whose doors open with the gate.
fn alone(
    socket: TcpListener,
    config: &Http,
    workers: usize,
    (doors, side): (&Doors, Side),
    gate: &watch::Sender<bool>,
    started: impl Fn() + Clone + Send + 'static,
) -> std::io::Result<Server> {
    let (clock, doors, gate) = (doors.clock.clone(), doors.clone(), gate.subscribe());
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
    serve(socket, config, workers, &clock, routes)
}

/// One server, which does not run yet.
pub fn serve<F, I, S, B>(
    socket: TcpListener,
    config: &Http,
    workers: usize,
    clock: &Clock,
    factory: F,
) -> std::io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let proxies = Proxies(config.trusted_proxies.clone().into());
    let connections = Connections::new(config.connections_per_address, proxies);
    let (address, keep_alive) = (socket.local_addr()?, config.keep_alive);
    let patience = Patience { head: HEAD_WITHIN, idle: keep_alive };
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(config.connections_max)
        .shutdown_timeout(config.shutdown.as_secs().max(1))
        .disable_signals();
    let (ending, clock) = (server.graceful_shutdown_signal(), clock.clone());
    // What `HttpServer` does, with a connection of ours around the socket's.
    let server = server.listen(format!("http {address}"), socket, move || {
        let (ending, connections, clock) = (ending.clone(), connections.clone(), clock.clone());
        let answers = apply_fn_factory(factory().into_factory(), |request: Request, answers| {
            let answering = Answering::of(&request);
            let answered = answers.call(request);
            async move {
                let answer: Response<B> = answered.await?.into();
                Ok(answer.map_body(|_, body| Said::new(body, answering)))
            }
        });
        let answers = answers.map_err(|error: S::Error| error.into().error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .keep_alive(keep_alive)
            .client_request_timeout(HEAD_WITHIN)
            .client_disconnect_timeout(DISCONNECT_WITHIN)
            .local_addr(address)
            .on_connect_ext(move |connection: &Patient<TcpStream>, held| {
                held.insert(connection.conversation());
                connections.meet(connection.io(), held);
            })
            .finish(map_config(answers, |()| AppConfig::default()));
        fn_service(move |socket: TcpStream| {
            // Without it a small answer may wait for more to say.
            let _ = socket.set_nodelay(true);
            let peer = socket.peer_addr().ok();
            ready(Ok::<_, DispatchError>((
                Patient::new(socket, patience, clock.clone()),
                Protocol::Http1,
                peer,
            )))
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// A worker whose gate has opened.
struct Opened;
