//! A node for tests, with a desk whose answer depends on the path.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};

use crate::peer::{Body, Cut, Desk, Elsewhere, HEAD_BYTES_MAX, PeerKeys, Reply, Request, serve};

pub(super) fn reply(body: impl Into<Bytes>) -> Result<Reply, Elsewhere> {
    let headers = vec![("content-type".into(), b"text/plain".to_vec())];
    Ok(Reply { status: 201, headers, body: Body::Whole(body.into()) })
}

/// A desk whose answer depends on the path, and which remembers what it did.
#[derive(Default)]
pub(super) struct Shop {
    pub(super) begun: RefCell<Vec<String>>,
    pub(super) done: Cell<usize>,
    pub(super) turned_away: Cell<usize>,
    /// Opens the door of `/wait`.
    pub(super) door: Notify,
    /// Pieces that `/endless` was asked for, and whether it has been dropped.
    pub(super) pieces: Cell<usize>,
    pub(super) dropped: Rc<Cell<bool>>,
}

pub(super) struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

pub(super) struct At(pub(super) Rc<Shop>);

impl Desk for At {
    fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>> {
        let shop = self.0.clone();
        Box::pin(async move {
            shop.begun.borrow_mut().push(request.target.clone());
            let answer = shop.clone().decide(request).await;
            shop.done.set(shop.done.get() + 1);
            answer
        })
    }

    fn turn_away(&self, _: &str, _: &[(String, Vec<u8>)]) -> Reply {
        self.0.turned_away.set(self.0.turned_away.get() + 1);
        let headers = vec![("retry-after".into(), b"1".to_vec())];
        Reply { status: 503, headers, body: Body::Whole(Bytes::from_static(b"overloaded")) }
    }
}

impl Shop {
    async fn decide(self: Rc<Self>, request: Request) -> Result<Reply, Elsewhere> {
        match request.target.as_str() {
            "/elsewhere" => Err(Elsewhere { session: 42 }),
            "/wait" => {
                self.door.notified().await;
                reply("waited")
            }
            "/panic" => panic!("a desk falls over"),
            "/large" => reply(vec![b'x'; 1_000_000]),
            "/stout" => {
                let headers = vec![("a".into(), vec![0; HEAD_BYTES_MAX])];
                Ok(Reply { status: 200, headers, body: Body::Whole(Bytes::new()) })
            }
            "/cut" => stream_of(stream::iter([Ok(Bytes::from_static(b"half")), Err(Cut)])),
            "/endless" => {
                let dropped = Dropped(self.dropped.clone());
                stream_of(stream::repeat_with(move || {
                    let _ = &dropped;
                    self.pieces.set(self.pieces.get() + 1);
                    Ok(Bytes::from_static(&[b'p'; 1_000]))
                }))
            }
            "/silent" => {
                let dropped = Dropped(self.dropped.clone());
                stream_of(stream::once(async move {
                    std::future::pending::<()>().await;
                    drop(dropped);
                    Err(Cut)
                }))
            }
            "/events" => {
                let pieces = (0..3_000).map(|n| Ok(Bytes::from(format!("event {n:>6}\n").repeat(20))));
                stream_of(stream::iter(pieces))
            }
            target => {
                let Request { method, from, side, hops, session, headers, body, .. } = &request;
                reply(format!("{method} {target} {from:?} {side:?} {hops} {session} {headers:?} {body:?}"))
            }
        }
    }
}

pub(super) fn stream_of(
    pieces: impl Stream<Item = Result<Bytes, Cut>> + 'static,
) -> Result<Reply, Elsewhere> {
    Ok(Reply { status: 200, headers: Vec::new(), body: Body::Stream(Box::pin(pieces)) })
}

pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) shop: Rc<Shop>,
    serving: JoinHandle<()>,
}

impl Node {
    pub(super) async fn open(keys: PeerKeys) -> Node {
        Node::open_at("127.0.0.1:0".parse().unwrap(), keys).await
    }

    pub(super) async fn open_at(address: SocketAddr, keys: PeerKeys) -> Node {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, shop) = (listener.local_addr().unwrap(), Rc::new(Shop::default()));
        let desk: Rc<dyn Desk> = Rc::new(At(shop.clone()));
        let serving = spawn_local(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn_local(serve(stream, keys.clone(), desk.clone()));
            }
        });
        Node { address, shop, serving }
    }

    /// As if the process had died: listener and connections are gone.
    pub(super) async fn die(self) -> SocketAddr {
        self.serving.abort();
        let _ = self.serving.await;
        self.address
    }
}
