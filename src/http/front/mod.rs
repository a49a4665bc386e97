//! The front of a node that is one of many: a request is answered here while this node is the lead, and by the lead while it is not.
//! What other nodes ask about the stock that is owned here comes in by the same connections, and is answered whoever leads.
//!
//! It owns, for each thread, the doors of the shop that is open in this process, and the way to the lead. Always true: one
//! request is executed by at most one node; `owner_unavailable` is said only where certainly nobody has executed it; and whoever finds
//! no lead waits for one, for a while, in a place whose number is bounded.

mod abroad;
mod desk;
mod lately;
mod mirrored;
mod owners;
mod pass;
mod retries;
mod room;
#[cfg(test)]
mod testing;
mod way;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::{Payload, Request};
use actix_service::{Service, ServiceFactory};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Response};
use actix_web::{App, Error, web};
use arc_swap::ArcSwapOption;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{Notify, watch};

use super::health::Readiness;
use super::{Doors, Proxies, Side, body};
use crate::clock::Clock;
use crate::peer::PeerKeys;
pub use abroad::Ways;
pub use desk::desk;
pub use mirrored::Mirrored;
pub use owners::{Follower, NotFollowed, Owners};
pub use pass::{KEEP_KEYS, WAIT_MAX};
use room::Room;

/// Where requests are answered.
#[derive(Clone)]
pub enum Standing {
    /// By no node that this one knows of.
    Nowhere,
    /// In this process.
    Here(Arc<Open>),
    /// By another node.
    There(Arc<Node>),
}

impl Standing {
    /// The session of the node that answers, 0 for nobody.
    fn session(&self) -> i64 {
        match self {
            Standing::Nowhere => 0,
            Standing::Here(open) => open.session,
            Standing::There(node) => node.session,
        }
    }
}

/// The shop that is open in this process. Whoever is being answered holds on to it.
pub struct Open {
    pub session: i64,
    pub doors: Doors,
}

/// Another node, which leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub session: i64,
    /// `HOST:PORT`, where it answers nodes.
    pub address: String,
}

/// What all threads of a node's front share.
#[derive(Clone)]
pub struct Front {
    pub standing: Arc<watch::Sender<Standing>>,
    pub keys: PeerKeys,
    /// What answers other nodes about the stock that is owned here; none at a node that owns nothing.
    pub owners: Arc<ArcSwapOption<Owners>>,
    /// Rung when somebody waits for news of who leads.
    pub look: Arc<Notify>,
    /// Turns true when streams that are passed on are to end.
    pub closing: Arc<watch::Sender<bool>>,
    /// What is told of stock while nobody is open here, where there is a mirror.
    pub mirror: Option<Mirrored>,
    /// What is told while nobody is open here.
    pub readiness: Readiness,
    pub clock: Clock,
    /// Who tells this node where a connection comes from.
    pub proxies: Proxies,
    /// With a listener of their own for operators?
    pub with_ops: bool,
}

/// Answers one request, boxed: only a node among others has one of these.
type Answering = LocalBoxFuture<'static, Result<Response<BoxBody>, Error>>;
type Answers = Rc<dyn Fn(Request) -> Answering>;

/// All doors that `routes` opens, on this thread.
async fn open_here(routes: impl FnOnce(&mut web::ServiceConfig)) -> Result<Answers, ()> {
    use actix_service::IntoServiceFactory;
    let factory = App::new().configure(routes).into_factory();
    let service = Rc::new(factory.new_service(AppConfig::default()).await?);
    Ok(Rc::new(move |request| {
        let (answering, service) = (service.call(request), service.clone());
        Box::pin(async move {
            let answer = answering.await.map(Response::from);
            drop(service);
            answer
        })
    }))
}

/// Makes a thread's part of the front for one of its listeners.
pub struct FrontFactory {
    front: Front,
    side: Side,
}

impl FrontFactory {
    pub fn new(front: &Front, side: Side) -> FrontFactory {
        FrontFactory { front: front.clone(), side }
    }
}

impl ServiceFactory<Request> for FrontFactory {
    type Response = Response<BoxBody>;
    type Error = Error;
    type Config = AppConfig;
    type Service = FrontService;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<FrontService, ()>>;

    fn new_service(&self, _config: AppConfig) -> Self::Future {
        let (front, side) = (self.front.clone(), self.side);
        Box::pin(async move {
            let room = Room::of_this_thread(&front);
            let near = open_here({
                let room = room.clone();
                move |config| pass::configure(config, room, side)
            });
            Ok(FrontService { near: near.await?, room, side })
        })
    }
}

/// Answers what comes in by one listener on one thread.
#[derive(Clone)]
pub struct FrontService {
    room: Rc<Room>,
    side: Side,
    /// While the shop is not open here: what concerns this process alone, and for everything else the lead.
    near: Answers,
}

impl FrontService {
    fn answer(&self, request: Request) -> Answering {
        match self.room.here(self.side) {
            Some(here) => here.answer(request),
            None => (self.near)(request),
        }
    }
}

impl Service<Request> for FrontService {
    type Response = Response<BoxBody>;
    type Error = Error;
    type Future = Answering;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let payload = request.take_payload();
        if matches!(payload, Payload::None) {
            return self.answer(request);
        }
        let this = self.clone();
        Box::pin(async move {
            // Whoever sends slowly keeps nobody from closing the shop.
            let (request, _) = request.replace_payload(body::whole(payload).await);
            this.answer(request).await
        })
    }
}
