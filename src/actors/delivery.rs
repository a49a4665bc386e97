//! What happens to a paid order: at each scheduled run every line that is due moves on by one state, and a buyer sends back what
//! has arrived.
//!
//! It owns nothing: a line is its row in `money.db`, and each move is one compare-and-set in the book's groups, with the money that
//! follows from it in the same transaction. Always true: a run that is dropped half-way, or meets another one for the same
//! occurrence, moves nothing twice; a row that is damaged or stuck is reported, and all the others move; a run that does not know what
//! it has written has not come to its end.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use crate::actors::payment::{Payments, Unkept};
use crate::actors::scheduler::{Job, NotRun};
use crate::actors::stock::NotDone;
use crate::domain::delivery::{Delivery, DeliveryState, NotReturnable, ReturnWindow};
use crate::domain::id::{OrderId, UserId};
use crate::domain::order::Order;
use crate::domain::stock::{KeyUse, Millis};
use crate::persistence::delivery::{DuePage, Illegible, Place};
use crate::persistence::money::{Deliver, NotWritten, RequestReturn, Write, Written};

pub use crate::actors::scheduler::{Due, Tally};

/// The job's name.
pub const DELIVERIES: &str = "deliveries";
/// Lines that are looked at, and moved, at a time: half of what the book writes in one group, so that whoever pays meanwhile
/// finds room in it.
const PAGE: u32 = 256;
/// Orders of somebody who leaves that are looked at together.
const ORDERS_AT_ONCE: u32 = 100;

/// A line that its buyer sends back.
#[derive(Debug, Clone)]
pub struct SendBack {
    pub order: OrderId,
    pub line: u8,
    pub reason: String,
    pub key: Option<KeyUse>,
}

/// The order, and whether this very request had sent the line back before.
#[derive(Debug, Clone)]
pub struct SentBack {
    pub order: Order,
    pub replayed: bool,
}

/// Why a line is not sent back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSentBack {
    #[error("no such order")]
    NoOrder,
    #[error("the order has no such line")]
    NoLine,
    #[error("the order is not paid")]
    NotSold,
    /// Sold a moment ago it has no row yet.
    #[error("the line has not arrived")]
    NotDelivered(Option<Box<Delivery>>),
    #[error("the line arrived too long ago")]
    Over { row: Box<Delivery>, until: Millis },
    #[error("the line is on its way back, or has ended")]
    Before(Box<Delivery>),
    #[error("the key belongs to another request")]
    KeyReused,
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<Unkept> for NotSentBack {
    fn from(why: Unkept) -> NotSentBack {
        NotSentBack::NotDone(why.into())
    }
}

/// Moves lines on, and takes them back. Cheap to clone.
#[derive(Clone)]
pub struct Deliveries {
    payments: Payments,
    window: ReturnWindow,
}

impl Job for Deliveries {
    fn name(&self) -> &'static str {
        DELIVERIES
    }

    fn run(&self, due: Due) -> BoxFuture<'_, Result<Tally, NotRun>> {
        self.advance(due).map(|ended| ended.map_err(|why| NotRun(why.to_string()))).boxed()
    }
}

fn fails(tally: &mut Tally, what: String) {
    tracing::error!(job = DELIVERIES, "{what}");
    tally.fail(what);
}

impl Deliveries {
    pub fn new(payments: Payments, window: ReturnWindow) -> Deliveries {
        Deliveries { payments, window }
    }

    /// The run for one occurrence: every line that it concerns moves by one state. What comes back goes first, and what ships
    /// last: no line is seen twice.
    pub async fn advance(&self, due: Due) -> Result<Tally, NotDone> {
        let mut tally = Tally::default();
        for state in [DeliveryState::ReturnRequested, DeliveryState::Shipping, DeliveryState::Preparing] {
            let mut place = Some(Place::default());
            while let Some(after) = place.take() {
                let page = self.payments.rows().deliveries().due(state, due.scheduled, &after, PAGE).await;
                let DuePage { rows, damaged, next } = page.map_err(|error| {
                    tracing::error!(%error, job = DELIVERIES, "the rows of deliveries cannot be read");
                    NotDone::Unavailable
                })?;
                self.page(rows, damaged, due, &mut tally).await?;
                place = next;
            }
        }
        Ok(tally)
    }

    async fn page(
        &self,
        rows: Vec<Delivery>,
        damaged: Vec<Illegible>,
        due: Due,
        tally: &mut Tally,
    ) -> Result<(), NotDone> {
        for Illegible { order, line, why } in damaged {
            tally.seen += 1;
            let order = order.map_or("a line of no order".to_owned(), |order| order.to_string());
            fails(tally, format!("{order} line {line}: {why}"));
        }
        let due_rows: Vec<Delivery> =
            rows.into_iter().filter(|row| row.next(due.scheduled).is_some()).collect();
        tally.seen += due_rows.len() as u64;
        if due.dry {
            tally.moved += due_rows.len() as u64;
            return Ok(());
        }
        // Together, so that they are one group. What cannot be read, a payment or a refund among it, fails its own line.
        let said = join_all(due_rows.iter().map(|row| self.step(row, due))).await;
        let (mut comes_back, mut ended) = (false, Ok(()));
        for (row, said) in due_rows.into_iter().zip(said) {
            let said = match said {
                // Whichever of them the group has failed for: the others shall not wait for it.
                Err(Unkept::Unknown) => self.step(&row, due).await,
                said => said,
            };
            match said {
                Ok(moved) => {
                    tally.moved += u64::from(moved);
                    comes_back |= moved && row.state == DeliveryState::ReturnRequested;
                }
                // Nobody knows what was written, if anything is: whoever cannot say so is not through.
                Err(Unkept::Unknown) => {
                    ended = Err(NotDone::Unknown);
                    break;
                }
                Err(why) => fails(tally, told(&row, &why)),
            }
        }
        if comes_back {
            self.payments.wake();
        }
        ended
    }

    /// Moves one line. `false`: somebody else has.
    async fn step(&self, row: &Delivery, due: Due) -> Result<bool, Unkept> {
        let Delivery { order, line, version, .. } = *row;
        // What has no money to give back leaves its payment alone.
        let payment = Some(row.payment).filter(|_| row.state == DeliveryState::ReturnRequested);
        let ask = Deliver { order, line, payment, version, scheduled: due.scheduled };
        match self.payments.write(Write::Deliver(ask)).await? {
            Written::Delivery(_) => Ok(true),
            _ => Ok(false),
        }
    }

    /// The buyer sends a line back: the next run takes it in.
    pub async fn send_back(&self, buyer: UserId, ask: SendBack) -> Result<SentBack, NotSentBack> {
        let orders = self.payments.orders();
        let order = orders.find(buyer, ask.order).await?.ok_or(NotSentBack::NoOrder)?;
        if !order.lines.iter().any(|line| line.line == ask.line) {
            return Err(NotSentBack::NoLine);
        }
        if !order.is_sold() {
            return Err(NotSentBack::NotSold);
        }
        let SendBack { order: id, line, reason, key } = ask;
        let reason = orders.sealed_reason(buyer, id, line, &reason).await?;
        let write = RequestReturn { order: id, line, window: self.window, reason, key };
        match self.payments.write(Write::RequestReturn(Box::new(write))).await {
            Ok(Written::Delivery(_)) => Ok(SentBack { order, replayed: false }),
            Ok(Written::AskedBefore(row)) if row.key == key => Ok(SentBack { order, replayed: true }),
            Ok(Written::AskedBefore(_)) => Err(NotSentBack::KeyReused),
            Ok(Written::NotMoved(row)) => Err(self.why_not(row)),
            Ok(_) => Err(NotDone::Internal.into()),
            Err(Unkept::Wrong(NotWritten::NoSuchDelivery)) => Err(NotSentBack::NotDelivered(None)),
            Err(why) => Err(why.into()),
        }
    }

    /// Forgets why somebody has sent lines back: they have left.
    pub async fn forget(&self, buyer: UserId) -> Result<(), NotDone> {
        let mut before = None;
        loop {
            let page = self.payments.orders().list(buyer, None, before, ORDERS_AT_ONCE).await?;
            before = page.last().map(|order| order.id);
            let rows = self.payments.deliveries_kept_of(&page).await?;
            for row in rows.iter().filter(|row| row.reason.is_some()) {
                self.payments.write(Write::ForgetReasons(row.order)).await?;
            }
            if page.len() < ORDERS_AT_ONCE as usize {
                return Ok(());
            }
        }
    }

    fn why_not(&self, row: Box<Delivery>) -> NotSentBack {
        // The row was too late a moment ago, by its own clock: it still is.
        match self.window.allows(&row, Millis(i64::MAX)) {
            Err(NotReturnable::Before) => NotSentBack::Before(row),
            Err(NotReturnable::Over { until, .. }) => NotSentBack::Over { row, until },
            Err(NotReturnable::NotDelivered) | Ok(()) => NotSentBack::NotDelivered(Some(row)),
        }
    }
}

fn told(row: &Delivery, why: &dyn std::fmt::Display) -> String {
    format!("{} line {}: {why}", row.order, row.line)
}
