//! A buyer pays: his payment is written down, walked to its end, and he hears of it, or that it is on its way.
//!
//! Always true: of one order one payment is begun at a time; who asks the same again waits for the same end; and who hangs up changes
//! nothing.

use std::time::Duration;

use actix_web::rt;

use super::desk::{Occupied, Seat};
use super::told::{Outcome, Told};
use super::walk::Walk;
use super::{FLUSH_WITHIN, LEASE_MS, Paying, Payments, Place, RETRY_MS, refused, unread};
use crate::actors::stock::NotDone;
use crate::domain::id::{OrderId, PaymentId};
use crate::domain::order::Order;
use crate::domain::payment::{Begin, Method, Payment, PaymentState, begin};
use crate::domain::stock::{Attempt, KeyUse, Refusal, Refused};
use crate::logs::carried;
use crate::persistence::money::{Write, Written};

/// How long a buyer waits for the end of his payment. Then he hears that it is on its way.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Who pays what with what.
pub struct Pay {
    pub order: Order,
    pub method: Method,
    pub by: By,
}

/// Which request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The one that has placed the order a moment ago: nobody has tried to pay it yet.
    Placing,
    /// The one that had placed it, sent again: it hears of the first attempt, and begins it if there is none.
    PlacingAgain,
    /// One of its own, with its key.
    Itself(Option<KeyUse>),
}

/// What beginning has come to.
pub enum Begun {
    /// To be walked.
    Walk(Box<Walk>),
    /// This very request had begun it.
    Before(Box<Payment>),
}

impl Payments {
    /// Pays with a request of its own. Whoever sends it again hears of his attempt, also while so many pay that nobody begins.
    pub async fn pay_alone(
        &self,
        order: Order,
        method: Method,
        key: Option<KeyUse>,
    ) -> Result<Paying, NotDone> {
        match self.place() {
            Ok(place) => self.pay(place, Pay { order, method, by: By::Itself(key) }).await,
            Err(busy) => match self.0.desk.look(&order.id, key, false) {
                Some(occupied) => self.wait_beside(occupied, &order, key).await,
                None => self.tried_before(&order, key, busy).await,
            },
        }
    }

    /// The first attempt to pay an order, for who has placed it with this request and finds no place to pay it.
    pub async fn paid_before(&self, order: &Order, otherwise: NotDone) -> Result<Paying, NotDone> {
        if let Some(first) = self.answered_first(order.id).await? {
            return Ok(Paying { payment: first, replayed: true });
        }
        if let Some(occupied) = self.0.desk.look(&order.id, None, true) {
            return self.wait_beside(occupied, order, None).await;
        }
        let first = self.first_attempt(order.id).await?.ok_or(otherwise)?;
        Ok(Paying { payment: first, replayed: true })
    }

    async fn first_attempt(&self, order: OrderId) -> Result<Option<Payment>, NotDone> {
        self.0.house.rows.payments().find(PaymentId::of(order, Attempt::FIRST)).await.map_err(unread)
    }

    /// The first attempt to pay an order, once its answer is certain: nobody waits for it, and it is not mistaken for a later one.
    async fn answered_first(&self, order: OrderId) -> Result<Option<Payment>, NotDone> {
        let first = self.first_attempt(order).await?;
        Ok(first.filter(|first| first.told_open || !first.state.is_open()))
    }

    /// Pays the order that this request has placed, a moment ago or before: how it stands then, and what came of it.
    pub async fn pay_placed(&self, place: Place, pay: Pay) -> Result<Told, NotDone> {
        let (order, replayed) = (pay.order.clone(), pay.by == By::PlacingAgain);
        match self.pay(place, pay).await {
            Ok(paying) => self.told(order, Paying { replayed, ..paying }).await,
            Err(not_done) => self.ended_unpaid(order, not_done, replayed).await,
        }
    }

    /// An order that had ended before its payment was put down: it was made all the same, and whoever made it hears which it was.
    async fn ended_unpaid(&self, order: Order, not_done: NotDone, replayed: bool) -> Result<Told, NotDone> {
        let NotDone::Refused { refused: Refused { why, .. }, .. } = &not_done else { return Err(not_done) };
        let reason = match why {
            Refusal::HoldExpired => "hold_expired",
            Refusal::AlreadyReleased { .. } => "order_ended",
            _ => return Err(not_done),
        };
        // Whoever has only placed it sees it as it was then, and may have been overtaken.
        if let Some(first) = self.first_attempt(order.id).await? {
            return self.told(order, Paying { payment: first, replayed: true }).await;
        }
        let order = self.0.house.orders.find(order.buyer, order.id).await?.ok_or(NotDone::Unknown)?;
        // Its time is over, and its owner has yet to let it lapse: nothing has ended that could be shown.
        if order.status.over().is_none() {
            return Err(not_done);
        }
        let outcome = Outcome::Gone(why.clone());
        Ok(Told { order, sight: None, outcome, reason: Some(reason), stands: false, replayed })
    }

    /// Pays, and waits for the end, but not for ever: the walk goes on when its buyer has gone.
    pub async fn pay(&self, place: Place, pay: Pay) -> Result<Paying, NotDone> {
        let (key, joins) = match pay.by {
            By::Placing | By::PlacingAgain => (None, true),
            By::Itself(key) => (key, false),
        };
        let order = pay.order.id;
        if pay.by == By::PlacingAgain
            && let Some(first) = self.answered_first(order).await?
        {
            return Ok(Paying { payment: first, replayed: true });
        }
        match self.0.desk.sit(order, key, joins) {
            Ok(seat) => {
                let (payments, mut progress) = (self.clone(), seat.watch());
                rt::spawn(carried(async move {
                    payments.run(pay, seat).await;
                    drop(place);
                }));
                progress.heard(ANSWER_WITHIN).await
            }
            Err(occupied) => self.wait_beside(occupied, &pay.order, key).await,
        }
    }

    /// Somebody is paying the order already.
    async fn wait_beside(
        &self,
        occupied: Occupied<Paying>,
        order: &Order,
        key: Option<KeyUse>,
    ) -> Result<Paying, NotDone> {
        match occupied {
            Occupied::Same(mut progress) => {
                let paying = progress.heard(ANSWER_WITHIN).await?;
                Ok(Paying { replayed: true, ..paying })
            }
            Occupied::Reused => Err(refused(order, Refusal::KeyReused { order: Some(order.id) })),
            Occupied::Other => self.tried_before(order, key, refused(order, Refusal::PaymentRunning)).await,
        }
    }

    /// Whoever has tried before hears of that; everybody else why nothing is begun for him.
    async fn tried_before(
        &self,
        order: &Order,
        key: Option<KeyUse>,
        otherwise: NotDone,
    ) -> Result<Paying, NotDone> {
        let house = &self.0.house;
        if key.is_none() {
            return Err(otherwise);
        }
        let known = house.rows.payments().of_order(order.id).await.map_err(unread)?;
        match begin(order, &known, key, house.limits.attempts_max, house.clock.now()) {
            Ok(Begin::Replay(payment)) => Ok(Paying { payment: *payment, replayed: true }),
            Err(why @ Refusal::KeyReused { .. }) => Err(refused(order, why)),
            Ok(Begin::New(_)) | Err(_) => Err(otherwise),
        }
    }

    /// Begins, or finds what was begun, and walks.
    async fn run(&self, pay: Pay, seat: Seat<OrderId, Paying>) {
        let mut walk = match self.begin(&pay).await {
            Ok(Begun::Walk(walk)) => walk,
            Ok(Begun::Before(payment)) => {
                return seat.tell(Ok(Paying { payment: *payment, replayed: true }));
            }
            Err(why) => return seat.tell(Err(why)),
        };
        seat.show(Paying { payment: walk.payment().clone(), replayed: false });
        let mut seat = Some(seat);
        while walk.step().await {
            if let Some(payment) = walk.sold()
                && let Some(seat) = seat.take()
            {
                seat.tell(Ok(Paying { payment, replayed: false }));
            }
        }
        if let Some(seat) = seat {
            let payment = self.how_it_stands(&walk).await.map_err(NotDone::after_all);
            seat.tell(payment.map(|payment| Paying { payment, replayed: false }));
        }
    }

    async fn how_it_stands(&self, walk: &Walk) -> Result<Payment, NotDone> {
        if !walk.is_lost() {
            return Ok(walk.payment().clone());
        }
        let row = self.0.house.rows.payments().find(walk.payment().id).await.map_err(unread)?;
        row.ok_or(NotDone::Unknown)
    }

    /// Puts the payment down, or finds the one that this request had begun. Nothing is pinned or charged here.
    pub async fn begin(&self, pay: &Pay) -> Result<Begun, NotDone> {
        let house = &self.0.house;
        let order = &pay.order;
        let key = match pay.by {
            By::Placing => None,
            By::PlacingAgain => match self.first_attempt(order.id).await? {
                Some(first) => return Ok(Begun::Before(Box::new(first))),
                None => None,
            },
            By::Itself(key) => key,
        };
        let known = match pay.by {
            By::Itself(_) => house.rows.payments().of_order(order.id).await.map_err(unread)?,
            By::Placing | By::PlacingAgain => Vec::new(),
        };
        let decide = |order: &Order| begin(order, &known, key, house.limits.attempts_max, house.clock.now());
        let decided = match decide(order) {
            // A payment that fails lets the hold stand for longer, and the order may have been seen before that.
            Err(Refusal::HoldExpired) if !known.is_empty() => {
                let now = house.orders.find(order.buyer, order.id).await?;
                now.as_ref().map_or(Err(Refusal::HoldExpired), decide)
            }
            decided => decided,
        };
        let attempt = match decided {
            Ok(Begin::New(attempt)) => attempt,
            Ok(Begin::Replay(payment)) => return Ok(Begun::Before(payment)),
            Err(why) => return Err(refused(order, why)),
        };
        // The order's row is asked for before the payment's is written; both are there before anything is charged, and the payment's
        // before anything is pinned.
        let mut row = house.flush.ask().await;
        if house.flush.is_behind() && !row.shown(FLUSH_WITHIN).await {
            return Err(NotDone::Busy { retry_after_ms: RETRY_MS });
        }
        match self.0.book.write(Write::Begin(Box::new(self.started(pay, attempt, key)))).await? {
            Written::Row(payment) => Ok(Begun::Walk(Box::new(Walk::new(self, *payment, order, Some(row))))),
            // The request that has placed the order, sent again, was faster: both hear the same.
            Written::Taken(row) if matches!(pay.by, By::Placing | By::PlacingAgain) => Ok(Begun::Before(row)),
            // Somebody was faster. He has the same reasons to be heard as we.
            Written::Taken(_) => Err(refused(order, Refusal::PaymentRunning)),
            _ => Err(NotDone::Internal),
        }
    }

    fn started(&self, pay: &Pay, attempt: Attempt, key: Option<KeyUse>) -> Payment {
        let now = self.0.house.clock.now();
        Payment {
            id: PaymentId::of(pay.order.id, attempt),
            order: pay.order.id,
            attempt,
            buyer: pay.order.buyer,
            amount: pay.order.total,
            method: Some(pay.method.clone()),
            state: PaymentState::Started,
            reason: None,
            provider_ref: None,
            captured: 0,
            captured_in: pay.order.total.currency,
            refunded: 0,
            key,
            told_open: false,
            tries: 0,
            due_at: Some(now.plus(LEASE_MS)),
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }
}
