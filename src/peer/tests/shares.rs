//! Several nodes that ask one: what each of them has of it while one floods, and whose turn it is to be read.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::timeout;

use super::shop::{At, Shop};
use super::{PATIENCE, keys, request, story, until};
use crate::peer::channel::{self, RECORD_BYTES};
use crate::peer::frame::{Block, Frame, PIECE_BYTES_MAX};
use crate::peer::pipe::{self, READ_BYTES};
use crate::peer::{Desk, Link, PeerError, Reply, Request, Shares, Side, Unanswered, greet};

/// Room for so many requests of all nodes together.
const MOST: usize = 64;

/// A node that others ask, each over a connection of its own.
struct Asked {
    listener: TcpListener,
    shop: Rc<Shop>,
    shares: Arc<Shares>,
}

impl Asked {
    async fn open() -> Asked {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Asked { listener, shop: Rc::default(), shares: Shares::new(MOST) }
    }

    /// A connection of the node with this number.
    async fn by(&self, node: u8) -> Link {
        let link = Link::to(self.listener.local_addr().unwrap().to_string(), keys(&[1]));
        let stream = self.listener.accept().await.unwrap().0;
        let share = self.shares.of(IpAddr::from([10, 0, 0, node]));
        let desk: Rc<dyn Desk> = Rc::new(At(self.shop.clone()));
        spawn_local(async move { greet(stream, &keys(&[1])).await?.serve(share, desk).await });
        link.comes_up().await;
        link
    }

    fn begun(&self) -> usize {
        self.shop.begun.borrow().len()
    }
}

/// So many ask at once by this link.
fn crowd(link: &Link, many: usize, target: &'static str) -> JoinHandle<Vec<Result<Reply, Unanswered>>> {
    let link = link.clone();
    spawn_local(async move { join_all((0..many).map(|_| link.ask(request(target)))).await })
}

fn with(status: u16, heard: &[Result<Reply, Unanswered>]) -> usize {
    heard.iter().filter(|heard| heard.as_ref().is_ok_and(|reply| reply.status == status)).count()
}

#[test]
fn a_node_that_floods_is_told_so_at_once_and_others_are_all_answered() {
    story(async {
        let asked = Asked::open().await;
        let (flood, other) = (asked.by(1).await, asked.by(2).await);
        let flooding = crowd(&flood, 3 * MOST, "/wait");
        // It has all that nobody else uses, and hears of the rest at once.
        let is_full = || (asked.begun(), asked.shop.turned_away.get()) == (MOST, 2 * MOST);
        until("there is no more room", is_full).await;

        // It goes on and on, over another connection too, and keeps nobody from being answered.
        let more = spawn_local({
            let (flood, again) = (flood.clone(), asked.by(1).await);
            async move {
                loop {
                    let heard = join_all((0..MOST).map(|_| flood.ask(request("/more")))).await;
                    let again = join_all((0..MOST).map(|_| again.ask(request("/more")))).await;
                    assert_eq!((with(503, &heard), with(503, &again)), (MOST, MOST));
                }
            }
        });
        for number in 0..200 {
            let heard = other.ask(request(&format!("/of/{number}"))).await;
            assert_eq!(heard.unwrap().status, 201);
        }
        assert!(!more.is_finished());
        more.abort();

        // An equal share is the other one's, and no more of it while there is no room.
        let begun = asked.begun();
        let waiting = crowd(&other, MOST, "/wait");
        until("it has its share", || asked.begun() == begun + MOST / 2).await;
        // Operators, and owners, are asked for by nobody who floods.
        for side in [Side::Ops, Side::Owners] {
            let heard = flood.ask(Request { side, ..request("/still") }).await;
            assert_eq!(heard.unwrap().status, 201, "{side:?}");
        }
        asked.shop.door.notify_waiters();
        let heard = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert_eq!((with(201, &heard), with(503, &heard)), (MOST / 2, MOST / 2));
        let heard = timeout(PATIENCE, flooding).await.unwrap().unwrap();
        assert_eq!((with(201, &heard), with(503, &heard)), (MOST, 2 * MOST));
        let full = heard.iter().flatten().find(|reply| reply.status == 503).unwrap();
        assert_eq!(full.headers, [("retry-after".to_owned(), b"1".to_vec())]);
        let heard = flood.ask(request("/again")).await;
        assert_eq!(heard.unwrap().status, 201, "there is room again");
    });
}

#[test]
fn what_is_watched_or_has_gone_takes_no_room() {
    story(async {
        let asked = Asked::open().await;
        let link = asked.by(1).await;
        let watching = crowd(&link, MOST, "/silent").await.unwrap();
        assert!(watching.iter().all(Result::is_ok));
        assert_eq!(link.ask(request("/panic")).await.unwrap_err(), Unanswered::Unknown);
        // Whoever asked goes; what was begun takes its room to the end.
        let gone = asked.by(1).await;
        let begun = asked.begun();
        let waiting = crowd(&gone, MOST, "/wait");
        until("all is taken", || asked.begun() == begun + MOST).await;
        waiting.abort();
        drop(gone);
        assert_eq!(link.ask(request("/more")).await.unwrap().status, 503);
        asked.shop.door.notify_waiters();
        until("all is done", || asked.shop.done.get() >= begun + MOST - 1).await;
        assert_eq!(link.ask(request("/more")).await.unwrap().status, 201);
    });
}

/// Notes how much it takes before another one of the thread has his turn.
struct Reader {
    turns: Rc<Cell<usize>>,
    turn: Cell<usize>,
    taken_in_turn: Cell<usize>,
    most_in_turn: Cell<usize>,
    taken: Cell<usize>,
    wake: Notify,
}

impl pipe::Side for Reader {
    fn waker(&self) -> &Notify {
        &self.wake
    }

    fn fill(&self, _: &mut Vec<u8>) -> Result<(), PeerError> {
        Ok(())
    }

    fn take(&self, _: Frame<'_>) -> Result<(), PeerError> {
        let turn = self.turns.get();
        let before = if self.turn.replace(turn) == turn { self.taken_in_turn.get() } else { 0 };
        self.taken_in_turn.set(before + 1);
        self.most_in_turn.set(self.most_in_turn.get().max(before + 1));
        self.taken.set(self.taken.get() + 1);
        Ok(())
    }

    async fn room(&self) {}
}

#[test]
fn whoever_sends_without_end_has_one_read_and_then_it_is_the_next_ones_turn() {
    story(async {
        const FRAMES: usize = 2_000;
        const FRAMES_OF_A_READ: usize = (READ_BYTES + RECORD_BYTES) / PIECE_BYTES_MAX + 1;
        let (mut near, far) = channel::pair().unwrap();
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        for _ in 0..FRAMES {
            let bytes = Block(&[7; PIECE_BYTES_MAX - 64]);
            Frame::Piece { id: 1, bytes }.encode(&mut plain).unwrap();
        }
        near.seal(&plain, &mut sealed).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sending = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().await.unwrap().0;
        // From another thread, so that there is always more than is read at once.
        let sending = std::thread::spawn(move || {
            sending.write_all(&sealed).unwrap();
            sending.shutdown(Shutdown::Write).unwrap();
            // What is said to it meanwhile is read, so that nothing is cut off at the end.
            drop(sending.read_to_end(&mut Vec::new()));
        });

        let turns = Rc::new(Cell::new(0));
        let [turn, taken_in_turn, most_in_turn, taken] = [(); 4].map(|()| Cell::new(0));
        let wake = Notify::new();
        let reader = Reader { turns: turns.clone(), turn, taken_in_turn, most_in_turn, taken, wake };
        let reader = Rc::new(reader);
        let reading = spawn_local({
            let reader = reader.clone();
            async move { pipe::run(stream, far, &*reader).await }
        });
        let others = spawn_local(async move {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        });
        let why = timeout(PATIENCE, reading).await.unwrap().unwrap();
        others.abort();
        sending.join().unwrap();
        assert!(matches!(why, PeerError::Ended), "{why:?}");
        assert_eq!(reader.taken.get(), FRAMES);
        let most = reader.most_in_turn.get();
        assert!(most <= 2 * FRAMES_OF_A_READ, "{most} frames in one turn");
    });
}
