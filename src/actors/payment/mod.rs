//! Payments: begun by buyers, walked to their end, taken up again after a crash, given back.
//!
//! It owns the rows of payments and refunds, and the pace at which what is due is taken up. What a payment does, and in which
//! order, is `domain::payment`'s; stock is its owners', money the provider's. Always true: a row is on the disk before anything
//! is pinned or charged for it; only whoever holds the claim moves it; what has begun is walked to its end by this process or
//! the next, whether or not anybody waits; and a walk that panics takes nobody along.

mod approval;
mod book;
mod cancel;
mod desk;
mod pay;
mod reconcile;
mod recover;
mod refund;
mod settle;
mod standing;
mod told;
mod walk;
mod webhook;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use approval::{Decided, Waits};
pub use book::{Book, GROUP_MAX, Unkept, WAITING_MAX};
pub use cancel::{Cancelled, NotCancelled};
pub use pay::{Begun, By, Pay};
pub use reconcile::{NotReconciled, Reconciled, reconcile};
pub use recover::Retried;
pub use refund::{GaveBack, GiveBack, GiveWalk, NotGiven, Want, Wanted};
pub use settle::Settled;
pub use standing::{Compensation, CompensationId, Kind, Standing};
pub use told::{Outcome, Told};
pub use walk::Walk;
pub use webhook::{Heard, SIGNATURE_HEADER, Unheard};

use crate::actors::flusher::FlushHandle;
use crate::actors::order::Orders;
use crate::actors::revocations::Revocations;
use crate::actors::stock::{Directory, NotDone};
use crate::clock::Clock;
use crate::domain::delivery::{Delivery, lay_over};
use crate::domain::id::{OrderId, PaymentId};
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::{FourEyes, Limits, Payment, PaymentState, PaymentStatus, Refund, RefundState};
use crate::domain::stock::{Refusal, Refused, Sequence};
use crate::persistence::StoreError;
use crate::persistence::money::{MoneyBook, Write, Written};
use crate::persistence::session::SessionReader;
use crate::persistence::trail::Trail;
use crate::persistence::user::UserReader;
use crate::provider::{CHARGED_WITHIN_MS, Provider};
use crate::telemetry::Metrics;
use desk::Desk;

/// How long a claim on a row lasts. Longer than any call of the provider; before each call it is renewed if it is too short.
pub const LEASE_MS: i64 = 30_000;
/// Payments that are walked at a time, at most: their buyers wait, and so do their units.
pub const WALKS_MAX: usize = 8_192;
/// Calls of the provider on their way, at most.
pub const CALLS_MAX: usize = 1_024;
/// When to come back after too many payments were walked.
const RETRY_MS: u64 = 1_000;
/// How long a payment waits for its order's row before its own is written, or when it is taken up again …
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// … and once its own is there: not longer than half of its claim.
const ROW_WITHIN: Duration = Duration::from_millis(LEASE_MS.unsigned_abs() / 2);
/// How long an end waits for the payments that are walked.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// The first pause of what is tried again; it doubles each time …
const BACK_OFF_MS: i64 = 200;
/// … up to this.
const BACK_OFF_MAX_MS: i64 = 60_000;
/// A charge that nobody has heard of is sent again for so long; the provider remembers its id for much longer.
const CHARGE_AGAIN_MS: i64 = 300_000;
/// The provider looks for a charge no further than this: whoever sends it again does so while his claim lasts.
const _: () = assert!(CHARGE_AGAIN_MS + LEASE_MS <= CHARGED_WITHIN_MS);

/// Whom payments ask.
pub struct PaymentHouse {
    pub directory: Directory,
    pub orders: Orders,
    pub flush: FlushHandle,
    pub rows: MoneyBook,
    pub trail: Trail,
    pub provider: Provider,
    pub limits: Limits,
    pub four_eyes: FourEyes,
    /// Who is still an administrator, and whether he is still logged in.
    pub users: UserReader,
    pub sessions: SessionReader,
    pub revocations: Revocations,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// Begins payments, gives money back, and knows how both stand. Cheap to clone.
#[derive(Clone)]
pub struct Payments(Arc<Inner>);

struct Inner {
    house: PaymentHouse,
    book: Book,
    /// Who pays at this moment, by order.
    desk: Arc<Desk<OrderId, Paying>>,
    /// Payments that are walked in this process, and whether the provider has hinted at them meanwhile.
    walking: Mutex<HashMap<PaymentId, bool, DefaultHashBuilder>>,
    /// Hinted at while they were walked: to be looked at once more.
    hinted: Mutex<VecDeque<PaymentId>>,
    /// One after the other says so of them: who comes meanwhile has them all said before he goes on.
    saying: tokio::sync::Mutex<()>,
    walks: Arc<Semaphore>,
    calls: Semaphore,
    /// Orders that are given back at this moment, by a hash of their id: of one order one after the other.
    cancels: Vec<tokio::sync::Mutex<()>>,
    due: Notify,
}

/// What the shop has decided about payments.
pub fn limits(attempts_max: u8, give_up: Duration) -> Limits {
    let give_up_ms = i64::try_from(give_up.as_millis()).unwrap_or(i64::MAX);
    Limits { attempts_max, charge_again_ms: CHARGE_AGAIN_MS.min(give_up_ms), give_up_ms }
}

/// A payment as it stands, and whether this very request had begun it before.
#[derive(Debug, Clone)]
pub struct Paying {
    pub payment: Payment,
    pub replayed: bool,
}

/// A payment as people hear of it, with what became of the lines that it paid for.
#[derive(Debug, Clone)]
pub struct PaymentSight {
    /// Boxed: every order that is placed without a payment carries the room for one.
    pub payment: Box<Payment>,
    pub status: PaymentStatus,
    /// In order of their line; none before the payment is through.
    pub deliveries: Vec<Delivery>,
}

/// A place among those who are walked, given back when it is dropped.
pub struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

/// It is walked here, for as long as this lives.
struct Here {
    payments: Payments,
    payment: PaymentId,
}

impl Here {
    fn walking(payments: &Payments, payment: PaymentId) -> Here {
        payments.walking().entry(payment).or_insert(false);
        Here { payments: payments.clone(), payment }
    }

    /// Whether the provider has said something since it is walked.
    fn is_hinted(&self) -> bool {
        self.payments.walking().get(&self.payment).copied().unwrap_or(false)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let hinted = self.payments.walking().remove(&self.payment).unwrap_or(false);
        if hinted {
            self.payments.hinted().push_back(self.payment);
            self.payments.wake();
        }
    }
}

impl PaymentSight {
    fn of(payment: Payment, sold: bool, given_back: i64) -> PaymentSight {
        let status = PaymentStatus::of(&payment, sold, given_back);
        PaymentSight { payment: Box::new(payment), status, deliveries: Vec::new() }
    }

    /// One that was never given back.
    pub fn fresh(payment: Payment, sold: bool) -> PaymentSight {
        PaymentSight::of(payment, sold, 0)
    }
}

fn ids_of(orders: &[Order]) -> Vec<OrderId> {
    orders.iter().map(|order| order.id).collect()
}

/// Anything from half of a bound to all of it, that doubles with each try: what failed together does not come back together.
fn back_off_ms(tries: u32, chance: u128) -> i64 {
    let bound = BACK_OFF_MS.saturating_mul(1 << tries.min(20)).min(BACK_OFF_MAX_MS);
    let half = bound / 2;
    half + i64::try_from(chance % (half.unsigned_abs() as u128 + 1)).unwrap_or(half)
}

fn unread(error: StoreError) -> NotDone {
    tracing::error!(%error, "the rows of money cannot be read");
    // Whoever asks again hears the same, until somebody has mended the row.
    if error.is_damage() { NotDone::Internal } else { NotDone::Unavailable }
}

fn refused(order: &Order, why: Refusal) -> NotDone {
    NotDone::Refused { product: order.home, refused: Refused { at: Sequence(0), why } }
}

impl Payments {
    /// Must be called on a thread that lives as long as the app: the book is written there.
    pub fn new(house: PaymentHouse) -> Payments {
        let book = Book::open(house.rows.clone(), house.clock.clone(), house.metrics.clone());
        Payments(Arc::new(Inner {
            book,
            desk: Arc::default(),
            walking: Mutex::default(),
            hinted: Mutex::default(),
            saying: tokio::sync::Mutex::default(),
            walks: Arc::new(Semaphore::new(WALKS_MAX)),
            calls: Semaphore::new(CALLS_MAX),
            cancels: (0..cancel::STRIPES).map(|_| tokio::sync::Mutex::default()).collect(),
            due: Notify::new(),
            house,
        }))
    }

    /// A place for one who is about to pay, taken before anything is held for him.
    pub fn place(&self) -> Result<Place, NotDone> {
        let busy = NotDone::Busy { retry_after_ms: RETRY_MS };
        self.0.walks.clone().try_acquire_owned().map(Place).map_err(|_| busy)
    }

    /// Waits until nobody is walked.
    pub async fn at_rest(&self) {
        // All places are free, or nobody gets one any more.
        let _ = self.0.walks.acquire_many(WALKS_MAX as u32).await;
    }

    /// Nobody begins any more; whoever is walked ends, but not for ever.
    pub async fn finish(&self) {
        if tokio::time::timeout(FINISH_WITHIN, self.at_rest()).await.is_err() {
            tracing::warn!(
                "the payment provider takes its time; what it has not answered is asked for at the next start"
            );
        }
        self.abandon();
    }

    /// Nobody begins any more, and the provider is not called: the next start goes on from the rows.
    pub fn abandon(&self) {
        self.0.walks.close();
        self.0.calls.close();
    }

    /// Somebody should look whether something is due.
    pub fn wake(&self) {
        self.0.due.notify_one();
    }

    /// Who moves the money.
    pub fn provider(&self) -> &Provider {
        &self.0.house.provider
    }

    /// Writes something that is no part of a payment's walk, and waits until it is on the disk.
    pub(super) async fn write(&self, write: Write) -> Result<Written, Unkept> {
        self.0.book.write(write).await
    }

    /// Whose orders are paid here.
    pub(super) fn orders(&self) -> &Orders {
        &self.0.house.orders
    }

    /// The rows, for whoever reads them.
    pub fn rows(&self) -> &MoneyBook {
        &self.0.house.rows
    }

    fn walking(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, bool, DefaultHashBuilder>> {
        self.0.walking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hinted(&self) -> std::sync::MutexGuard<'_, VecDeque<PaymentId>> {
        self.0.hinted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever walks it at this moment is not disturbed by a hint: it is looked at once more when he is through. `false`: nobody
    /// walks it here.
    fn note_walked(&self, payment: PaymentId) -> bool {
        self.walking().get_mut(&payment).map(|hinted| *hinted = true).is_some()
    }

    /// Orders, each with how its latest payment stands, where that can be read. An order that was sold after it had been read is shown as
    /// sold: none waits for money that has come.
    pub async fn beside(&self, orders: Vec<Order>) -> Result<Vec<(Order, Option<PaymentSight>)>, NotDone> {
        let ids = ids_of(&orders);
        let newest = self.0.house.rows.payments().newest_of(&ids).await.map_err(unread)?;
        let mut of_order: HashMap<OrderId, Payment> =
            newest.into_iter().map(|payment| (payment.order, payment)).collect();
        let (mut agreeing, mut sights) = (Vec::with_capacity(orders.len()), Vec::with_capacity(orders.len()));
        for order in orders {
            let payment = of_order.remove(&order.id);
            let order = match &payment {
                // Every line was sold then; what has become of them since lies upon that.
                Some(payment)
                    if payment.state == PaymentState::Paid && order.status == OrderStatus::PendingPayment =>
                {
                    self.0.house.orders.just_sold(order)
                }
                _ => order,
            };
            sights.push(match payment {
                Some(payment) => Some(self.sight(payment, &order).await?),
                None => None,
            });
            agreeing.push(order);
        }
        self.see_deliveries(&mut sights).await?;
        // Sold, and its payment cannot be read: what has become of its lines can.
        let is_damaged = |order: &Order, sight: &Option<PaymentSight>| {
            order.status == OrderStatus::Paid && sight.is_none()
        };
        let of_damaged = agreeing.iter().zip(&sights).filter(|(order, sight)| is_damaged(order, sight));
        let mut deliveries =
            self.deliveries_of(&of_damaged.map(|(order, _)| order.id).collect::<Vec<_>>()).await?;
        for order in &mut agreeing {
            if let Some(deliveries) = deliveries.remove(&order.id) {
                lay_over(order, &deliveries);
            }
        }
        Ok(agreeing.into_iter().zip(sights).collect())
    }

    /// Looks at the lines of those that are paid.
    async fn see_deliveries(&self, sights: &mut [Option<PaymentSight>]) -> Result<(), NotDone> {
        let is_paid =
            |sight: &&PaymentSight| sight.payment.captured > 0 || sight.payment.state == PaymentState::Paid;
        let paid: Vec<OrderId> =
            sights.iter().flatten().filter(is_paid).map(|sight| sight.payment.order).collect();
        let mut of_order = self.deliveries_of(&paid).await?;
        for sight in sights.iter_mut().flatten() {
            sight.deliveries = of_order.remove(&sight.payment.order).unwrap_or_default();
        }
        Ok(())
    }

    /// What has become of the lines of these orders.
    async fn deliveries_of(&self, orders: &[OrderId]) -> Result<HashMap<OrderId, Vec<Delivery>>, NotDone> {
        let mut of_order: HashMap<OrderId, Vec<Delivery>> = HashMap::new();
        if !orders.is_empty() {
            for row in self.0.house.rows.deliveries().of_orders(orders).await.map_err(unread)? {
                of_order.entry(row.order).or_default().push(row);
            }
        }
        Ok(of_order)
    }

    /// All payments that are kept of these orders.
    pub async fn payments_kept_of(&self, orders: &[Order]) -> Result<Vec<Payment>, NotDone> {
        self.0.house.rows.payments().of_orders(&ids_of(orders)).await.map_err(unread)
    }

    /// All money that was given back, or is to be.
    pub async fn refunds_kept_of(&self, orders: &[Order]) -> Result<Vec<Refund>, NotDone> {
        self.0.house.rows.refunds().of_orders(&ids_of(orders)).await.map_err(unread)
    }

    /// The way of all their lines.
    pub async fn deliveries_kept_of(&self, orders: &[Order]) -> Result<Vec<Delivery>, NotDone> {
        self.0.house.rows.deliveries().of_orders(&ids_of(orders)).await.map_err(unread)
    }

    /// Whether somebody has tried to pay an order.
    pub async fn is_tried(&self, order: OrderId) -> Result<bool, NotDone> {
        let attempts = self.0.house.rows.payments().of_order(order).await.map_err(unread)?;
        Ok(!attempts.is_empty())
    }

    async fn sight(&self, payment: Payment, order: &Order) -> Result<PaymentSight, NotDone> {
        let mut given_back = 0;
        if payment.refunded > 0 {
            // One that cannot be read is not known to have arrived.
            let refunds = self.0.house.rows.refunds().of_payment(payment.id).await.map_err(unread)?;
            given_back = refunds
                .iter()
                .filter(|refund| refund.state == RefundState::Done)
                .map(|refund| refund.amount.amount)
                .sum();
        }
        Ok(PaymentSight::of(payment, order.is_sold(), given_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_a_minute_and_is_never_the_same() {
        let pauses = |tries| (back_off_ms(tries, 0), back_off_ms(tries, u128::from(u64::MAX)));
        assert_eq!(back_off_ms(0, 100), 200);
        for tries in 0..40 {
            let (a, b) = pauses(tries);
            let bound = (BACK_OFF_MS << tries.min(20)).min(BACK_OFF_MAX_MS);
            assert!((bound / 2..=bound).contains(&a) && (bound / 2..=bound).contains(&b), "{tries} {a} {b}");
        }
    }
}
