//! The one that owns: the shop's protocol, turned in the order in which the shop's owner turns it, and a journal that writes on a thread of
//! its own.

use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use shuttle::sync::{Condvar, mpsc};
use shuttle::thread;
use stockade::actors::stock::{Input, Output, Protocol, Reply};
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{Cause, Command, Epoch, Millis, Reserve, Settings};
use tokio::sync::oneshot;

use super::inbox::{NoRoom, Post, Token, Wakeups};
use super::protocol::{Ask, Outcome};
use super::shared::Shared;
use crate::clock::Clock;
use crate::sync::{Arc, Mutex};

/// What an owner leaves out, to see that a scene notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// It takes the mailbox for empty before it has said that units are on their way back.
    SayingThatUnitsReturn,
    /// It says that nothing is on its way back before the view shows it.
    ShowingFirst,
    /// Who has bought is noted after his answer.
    NotingBuyersFirst,
    /// It closes its mailbox without looking whether it is empty.
    LookingBeforeClosing,
}

const FOREVER_MS: u64 = 1 << 40;

/// Rings until somebody hears it.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.ring.wait(rung).unwrap();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.ring.notify_one();
    }
}

/// A product and the way to its owner.
#[derive(Clone)]
pub struct Sale {
    pub shared: Arc<Shared>,
    clock: Clock,
}

pub fn product() -> ProductId {
    ProductId::new(Millis(1), 1)
}

pub fn buyer(number: u128) -> UserId {
    UserId::new(Millis(1), number)
}

pub fn order(number: u128) -> OrderId {
    OrderId::for_home(Millis(1), number << 10, product())
}

/// An owner that has read its ledger and has shown it, and stands before its first turn.
pub struct Owner {
    sale: Sale,
    protocol: Protocol<Token>,
    without: Without,
    journal: mpsc::Sender<Option<()>>,
}

impl Sale {
    /// So many units, of which one customer may have so many, and these orders of one unit that stand already. Its owner is yet to run.
    pub fn begin(stock: u64, limit: Option<u32>, held: &[u128], without: Without) -> (Sale, Owner) {
        let sale = Sale { shared: Arc::new(Shared::new(product())), clock: Clock::start() };
        let price = Money { amount: 100, currency: Currency::KRW };
        let settings =
            Settings { price, opens_at: None, closes_at: None, per_customer_limit: limit, hold_ms: 600_000 };
        let mut protocol = Protocol::recover(product(), Epoch(1), None, &[]).unwrap();
        let mut out = Vec::new();
        let create = Command::Create { settings, stock };
        let stand = held.iter().map(|number| Command::Reserve(reserve(*number, None)));
        for command in std::iter::once(create).chain(stand) {
            let (token, _) = sale.token(None);
            let (ask, arrived) = (Ask::Command(command), sale.clock.now());
            protocol.step(Input::Ask { token, ask, arrived, until: arrived.plus(60_000) }, &mut out);
        }
        protocol.step(Input::Turn { lapse_until: Millis(0) }, &mut out);
        protocol.step(Input::Appended(Outcome::Written), &mut out);
        let view = protocol.view(sale.clock.now()).unwrap();
        sale.shared.publish(view, protocol.ledger());
        sale.shared.set_returning(false);
        let (journal, groups) = mpsc::channel();
        let inbox = sale.shared.inbox.clone();
        thread::spawn(move || {
            while let Ok(Some(())) = groups.recv() {
                inbox.appended(Outcome::Written);
            }
        });
        (sale.clone(), Owner { sale, protocol, without, journal })
    }

    fn token(&self, buyer: Option<UserId>) -> (Token, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (Token { reply, buyer, asked_ns: 0, in_doubt: false }, answer)
    }

    /// Asks the owner and waits; `None` if it has gone, and the question came back.
    pub fn ask(&self, command: Command) -> Option<Reply> {
        self.ask_and(command, || {})
    }

    /// The same; `arrived` is called when the question is in the mailbox.
    pub fn ask_and(&self, command: Command, arrived: impl FnOnce()) -> Option<Reply> {
        let who = match &command {
            Command::Reserve(reserve) => Some(reserve.buyer),
            _ => None,
        };
        let (token, answer) = self.token(who);
        match self.shared.inbox.push(Post::new(Ask::Command(command), token), FOREVER_MS, &self.clock) {
            Ok(()) => {
                arrived();
                Some(shuttle::future::block_on(answer).expect("every question is answered"))
            }
            Err(NoRoom::Closed(_)) => None,
            Err(NoRoom::Full { .. }) => panic!("there is room"),
        }
    }

    /// A door's look: whether it refuses without asking, and at which place.
    pub fn refused_at(&self, number: u128) -> Option<u64> {
        let refusal = self.shared.refusal(&reserve(number, None), self.clock.now())?;
        let stockade::actors::stock::NotDone::Refused { refused, .. } = refusal else { panic!("{refusal}") };
        Some(refused.at.0)
    }

    /// The owner rests when it has answered everything.
    pub fn end(&self) {
        self.shared.inbox.drain_owner(oneshot::channel().0);
    }
}

pub fn reserve(number: u128, buyer_: Option<UserId>) -> Reserve {
    Reserve {
        order: order(number),
        line: 1,
        buyer: buyer_.unwrap_or(buyer(number)),
        quantity: Quantity::of_line(1).unwrap(),
        key: None,
        expected: None,
        placing: None,
    }
}

pub fn release(number: u128) -> Command {
    Command::Release { order: order(number), cause: Cause::Cancelled, by: 0 }
}

impl Owner {
    /// Runs until it is told to rest, or has nothing to do and may go.
    pub fn run(mut self, goes_when_idle: bool) {
        let mut wakeups = Wakeups(self.sale.shared.inbox.clone());
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        loop {
            match Pin::new(&mut wakeups).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(_) => {
                    if self.turn() {
                        break;
                    }
                }
                Poll::Pending if goes_when_idle && self.protocol.is_quiet() => {
                    let inbox = &self.sale.shared.inbox;
                    if self.without == Without::LookingBeforeClosing {
                        // What is in it is lost.
                        inbox.close().into_iter().for_each(drop);
                        break;
                    }
                    if inbox.close_if_empty() {
                        break;
                    }
                    thread::yield_now();
                }
                Poll::Pending => bell.wait(),
            }
        }
        let _ = self.journal.send(None);
    }

    /// Whether it was the last.
    fn turn(&mut self) -> bool {
        let inbox = self.sale.shared.inbox.clone();
        let mut out = Vec::new();
        let (outcome, _) = inbox.take_signals();
        if let Some(outcome) = outcome {
            self.protocol.step(Input::Appended(outcome), &mut out);
            self.carry_out(&mut out);
        }
        let mut drained = Vec::new();
        while self.protocol.room() > 0 {
            inbox.take(self.protocol.room(), &mut drained);
            if drained.is_empty() {
                break;
            }
            let count = drained.len();
            for post in drained.drain(..) {
                let Post { ask, token, arrived, until } = post;
                self.protocol.step(Input::Ask { token, ask, arrived, until }, &mut out);
            }
            if self.without != Without::SayingThatUnitsReturn {
                self.returning();
            }
            inbox.decided(count);
        }
        self.protocol.step(Input::Turn { lapse_until: Millis(0) }, &mut out);
        self.returning();
        self.carry_out(&mut out);
        self.protocol.is_quiet() && inbox.undecided() == 0 && inbox.take_drain().is_some()
    }

    fn returning(&self) {
        self.sale.shared.set_returning(self.protocol.returns_units());
    }

    fn carry_out(&mut self, out: &mut Vec<Output<Token>>) {
        let shared = self.sale.shared.clone();
        for output in out.drain(..) {
            match output {
                Output::Append(_) => self.journal.send(Some(())).unwrap(),
                Output::Reply(mut token, reply) => {
                    let buyer = token.buyer.take_if(|_| self.without == Without::NotingBuyersFirst);
                    token.reply(reply, &shared);
                    if let Some(buyer) = buyer {
                        shared.bought(buyer);
                    }
                }
                Output::Publish(view) if self.without == Without::ShowingFirst => {
                    self.returning();
                    shared.publish(view, self.protocol.ledger());
                }
                Output::Publish(view) => {
                    shared.publish(view, self.protocol.ledger());
                    self.returning();
                }
                Output::AskHome { .. } | Output::Reload => panic!("nothing of that kind happens here"),
            }
        }
    }
}
