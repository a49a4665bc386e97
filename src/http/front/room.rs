//! What one thread of the front keeps: the open doors, and the way to the lead.
//!
//! Always true: the doors it keeps are those of [`Standing::Here`] or none, and from the moment on at which they are closed it
//! holds nothing of that shop but the requests that are being answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::Request;
use actix_web::rt;
use tokio::sync::Notify;

use super::lately::Lately;
use super::retries::Retries;
use super::way::Way;
use super::{Answering, Answers, Front, Node, Open, Side, Standing, open_here};
use crate::http;
use crate::peer::Link;
use crate::telemetry::Forwards;

/// Requests of one thread that wait for a lead, or for its answer.
const SEATS_MAX: usize = 4_096;
/// Their bodies.
const SEATED_BYTES_MAX: usize = 64 * 1024 * 1024;

thread_local! {
    static ROOM: RefCell<Option<Rc<Room>>> = const { RefCell::new(None) };
}

/// The doors of the open shop.
pub struct Here {
    open: Arc<Open>,
    shop: Answers,
    ops: Answers,
    /// One listener for everything, as in development: only for whoever comes in by that one.
    all: Option<Answers>,
}

/// A side of them.
pub struct HereSide {
    here: Rc<Here>,
    side: Side,
}

impl HereSide {
    /// Of the node whose doors they are.
    pub fn session(&self) -> i64 {
        self.here.open.session
    }

    pub fn answer(self, request: Request) -> Answering {
        let HereSide { here, side } = self;
        let answers = match side {
            Side::All => here.all.as_ref().unwrap_or(&here.shop),
            Side::Ops => &here.ops,
            Side::Shop => &here.shop,
        };
        let answering = answers(request);
        Box::pin(async move {
            let answer = answering.await;
            // Until now the shop had to stay.
            drop(here);
            answer
        })
    }
}

pub struct Room {
    pub front: Front,
    here: RefCell<Option<Rc<Here>>>,
    way: RefCell<Option<Rc<Way>>>,
    /// What may be sent again, to each node that leads or has led a moment ago.
    retries: RefCell<Lately<Rc<Retries>>>,
    /// Rung when the standing has changed, and the doors with it, or a node takes again what it is asked.
    pub changed: Notify,
    pub forwards: Forwards,
    seats: Cell<usize>,
    seated_bytes: Cell<usize>,
}

impl Room {
    /// One for each thread, however many listeners it serves.
    pub fn of_this_thread(front: &Front) -> Rc<Room> {
        ROOM.with_borrow_mut(|room| match room {
            Some(room) => room.clone(),
            none => {
                let made = Rc::new(Room {
                    front: front.clone(),
                    here: RefCell::default(),
                    way: RefCell::default(),
                    retries: RefCell::default(),
                    changed: Notify::new(),
                    forwards: Forwards::default(),
                    seats: Cell::new(0),
                    seated_bytes: Cell::new(0),
                });
                rt::spawn(made.clone().keep());
                none.insert(made).clone()
            }
        })
    }

    /// Follows the standing until the front has gone.
    async fn keep(self: Rc<Room>) {
        let mut standing = self.front.standing.subscribe();
        loop {
            let now = standing.borrow_and_update().clone();
            let here = match now {
                Standing::Here(open) => {
                    // Nobody is asked any more.
                    self.give_up_way();
                    self.opened(open).await
                }
                Standing::Nowhere | Standing::There(_) => None,
            };
            self.here.replace(here);
            self.changed.notify_waiters();
            if standing.changed().await.is_err() {
                return;
            }
        }
    }

    async fn opened(&self, open: Arc<Open>) -> Option<Rc<Here>> {
        let with_ops = self.front.with_ops;
        let doors = |side| {
            let open = &open;
            open_here(move |config| http::configure(config, &open.doors, side))
        };
        let (shop, ops) = (doors(Side::Shop).await.ok()?, doors(Side::Ops).await.ok()?);
        let all = match with_ops {
            true => None,
            false => Some(doors(Side::All).await.ok()?),
        };
        Some(Rc::new(Here { open, shop, ops, all }))
    }

    /// The open doors for whoever came in by a listener of that side, of this node or another.
    pub fn here(&self, side: Side) -> Option<HereSide> {
        let here = self.here.borrow().clone()?;
        Some(HereSide { here, side })
    }

    pub fn standing(&self) -> Standing {
        self.front.standing.borrow().clone()
    }

    /// The way to a node; what led to another one is given up.
    pub fn way(&self, node: &Arc<Node>) -> Rc<Way> {
        let kept = self.way.borrow().clone();
        if let Some(way) = kept.filter(|way| way.node == *node) {
            return way;
        }
        self.give_up_way();
        // Where it leads to the same place as before what was sent there again is not forgotten.
        let retries = self.retries_of(&node.address);
        let link = Link::to(node.address.clone(), self.front.keys.clone());
        let way = Rc::new(Way::to(node.clone(), link, retries));
        self.way.replace(Some(way.clone()));
        way
    }

    /// From now on it counts how long nobody has gone by it.
    fn give_up_way(&self) {
        if let Some(way) = self.way.take() {
            self.retries_of(&way.node.address);
        }
    }

    fn retries_of(&self, address: &str) -> Rc<Retries> {
        self.retries.borrow_mut().of(address, self.front.clock.nanos(), Rc::default)
    }

    /// A seat for somebody who waits with so many bytes; `None`: all are taken.
    pub fn seat(self: &Rc<Room>, bytes: usize) -> Option<Seat> {
        let (taken, all_bytes) = (self.seats.get(), self.seated_bytes.get() + bytes);
        (taken < SEATS_MAX && all_bytes <= SEATED_BYTES_MAX).then(|| {
            self.seats.set(taken + 1);
            self.seated_bytes.set(all_bytes);
            Seat { room: self.clone(), bytes }
        })
    }
}

/// Given back when it is dropped.
pub struct Seat {
    room: Rc<Room>,
    bytes: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Seat { room, bytes } = self;
        room.seats.set(room.seats.get().saturating_sub(1));
        room.seated_bytes.set(room.seated_bytes.get().saturating_sub(*bytes));
    }
}
