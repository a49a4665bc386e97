//! The dispatcher: takes notices from the front of both queues, looks at their orders, and writes the letters.
//!
//! It goes page by page at a pace of its own, and while a crowd is buying it rests between two pages: letters can wait. Most
//! notices of a load test are about buyers without an account; those cost a page two look-ups and nothing else. Always true: what
//! cannot be read holds up nobody, and whatever is dropped is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::batch::{Batch, Draft};
use super::letter::{Attempts, Beside, letter};
use super::{Gone, Hand, NoticeHouse, Signals};
use crate::actors::background::{Background, Ended};
use crate::domain::id::{MailId, OrderId, ProductId, UserId};
use crate::domain::notice::{Notice, NoticeKind, Sense, reminder_at};
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::Refund;
use crate::domain::stock::Millis;
use crate::persistence::StoreError;
use crate::persistence::notice::{Aside, NoticeRows, Waiting};
use crate::telemetry::{Metrics, notice_dropped};

/// Notices that are looked at together.
const PAGE: usize = 256;
/// Notices looked at in a second, at most: more than a mail server takes, and little enough for nobody who orders to feel it.
const NOTICES_PER_S: u32 = 2_000;
/// The rest after each page while the flush is behind: a crowd is buying.
const RUSH_REST: Duration = Duration::from_secs(2);
/// Letters of one transaction: nobody else writes people's tables meanwhile.
const LETTERS_MAX: usize = 16;
/// Slices of the flush that are read together.
const SLICES: u32 = 32;
/// The longest without a look, and the shortest: who pays has the flush write a slice for each few orders.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// When the tables do not show yet what a notice is about.
const NOT_YET_PAUSE: Duration = Duration::from_millis(250);
/// Who pays in the call that places an order has begun to by then: until then nobody is asked to pay.
const SETTLE: Duration = Duration::from_secs(1);
/// When it is looked again whether somebody is to be reminded who is paying.
const IN_DOUBT_MS: i64 = 10_000;
/// A notice whose order does not come to show it in this time is given up.
const NOT_YET_MS: i64 = 3_600_000;
const FAILED_PAUSE: Duration = Duration::from_secs(1);
const COUNT_EVERY_MS: i64 = 5_000;
/// More notices than this do not wait: the oldest go, untold.
const WAITING_MAX: u64 = 20_000_000;
/// Reminders that wait, at most; whose order comes then is not reminded.
const REMINDERS_MAX: u64 = 500_000;
/// How long it is kept that a letter was told, from its order's birth.
const TOLD_MS: i64 = 90 * 24 * 3_600_000;
const SWEEP_EVERY_MS: i64 = 60_000;
/// How much less important than the order path letters are, in steps of the scheduler: as little as passwords.
const NICE: i32 = 15;

pub(super) fn begin(dispatch: Dispatch) -> std::io::Result<Ended> {
    let background =
        Background { name: "stockade-notices", nice: NICE, lost: "nobody is written to about an order" };
    background.begin(move || dispatch.run())
}

pub(super) struct Dispatch {
    house: NoticeHouse,
    rows: NoticeRows,
    aside: Aside,
    hand: Hand,
    metrics: Metrics,
    signals: Arc<Signals>,
    remind_before_ms: i64,
    /// When the last count was made, how many reminders wait by it and what came since, and when old names are swept.
    counted_at: Millis,
    reminders: u64,
    sweep_at: Millis,
}

/// Which queue a notice came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// The order's row is at least as new.
    Flush,
    /// It may not be yet.
    Money,
}

impl Dispatch {
    pub(super) fn new(house: NoticeHouse, hand: Hand, metrics: Metrics, signals: Arc<Signals>) -> Dispatch {
        let rows = house.tables.notices();
        Dispatch {
            aside: rows.aside(),
            rows,
            hand,
            metrics,
            signals,
            remind_before_ms: i64::try_from(house.remind_before.as_millis()).unwrap_or(i64::MAX),
            house,
            counted_at: Millis(0),
            reminders: 0,
            sweep_at: Millis(0),
        }
    }

    async fn run(mut self) {
        while !self.signals.stopping() {
            let pause = self.round().await.unwrap_or_else(|error| {
                warn!(%error, "notices cannot be read or written; they stay where they are");
                FAILED_PAUSE
            });
            let at_least = pause.min(LOOK_AGAIN);
            self.sleep(at_least).await;
            // Whichever comes first: somebody rings, or it is time.
            let _ = tokio::time::timeout(pause - at_least, self.rows.bell().rung()).await;
        }
        self.aside.close().await;
    }

    /// Tells what waits at the front of each queue; how long until there is more, if nobody rings.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        self.chores().await?;
        let mut pause = LOOK_EVERY;
        for again in [self.remind().await?, self.tell_sold().await?, self.tell_slices().await?] {
            pause = pause.min(again);
        }
        if pause < LOOK_EVERY {
            return Ok(pause);
        }
        let due = self.aside.next_due().await?;
        Ok(due.map_or(LOOK_EVERY, |at| self.house.clock.until(at)).min(LOOK_EVERY))
    }

    /// Tells the oldest slices of the flush.
    async fn tell_slices(&mut self) -> Result<Duration, StoreError> {
        let slices = self.aside.oldest_slices(SLICES).await?;
        let Some(last) = slices.last().map(|slice| slice.pos) else { return Ok(LOOK_EVERY) };
        let damaged: u64 = slices.iter().map(|slice| slice.damaged).sum();
        if damaged > 0 {
            error!(pos = last, damaged, "notices in slices up to {last} cannot be read");
            notice_dropped("unreadable", damaged);
        }
        let full = slices.len() >= SLICES as usize;
        let notices: Vec<Notice> = slices.into_iter().flat_map(|slice| slice.notices).collect();
        let mut pause = LOOK_EVERY;
        for page in notices.chunks(PAGE) {
            self.tell(page, Queue::Flush).await?;
            self.rest(page.len()).await;
            // What must not come too late has its turn after each page: a rush leaves many behind.
            pause = pause.min(self.remind().await?).min(self.tell_sold().await?);
            if self.signals.stopping() {
                // The slices stay: what of them was told is not told again.
                return Ok(Duration::ZERO);
            }
        }
        self.hand.forget(Gone::SlicesUpTo(last)).await?;
        Ok(if full { Duration::ZERO } else { pause })
    }

    /// Tells the oldest page of what happened to sold orders.
    async fn tell_sold(&mut self) -> Result<Duration, StoreError> {
        let page = self.aside.oldest_sold(PAGE as u32).await?;
        if page.is_empty() {
            return Ok(LOOK_EVERY);
        }
        let (mut rows, mut notices, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (row, notice) in page {
            match notice {
                Some(notice) => {
                    rows.push(row);
                    notices.push(notice);
                }
                None => {
                    error!(row, "a notice cannot be read");
                    notice_dropped("unreadable", 1);
                    gone.push(row);
                }
            }
        }
        let not_yet: HashSet<usize> = self.tell(&notices, Queue::Money).await?.into_iter().collect();
        gone.extend(rows.iter().enumerate().filter(|(at, _)| !not_yet.contains(at)).map(|(_, row)| *row));
        let count = rows.len();
        if !gone.is_empty() {
            self.hand.forget(Gone::Sold(gone)).await?;
        }
        self.rest(count).await;
        Ok(match (not_yet.is_empty(), count < PAGE) {
            (false, _) => NOT_YET_PAUSE,
            (true, true) => LOOK_EVERY,
            (true, false) => Duration::ZERO,
        })
    }

    /// Writes to the buyers of some notices; which of them it is too early for. A row that is damaged holds up nobody else.
    async fn tell(&mut self, notices: &[Notice], queue: Queue) -> Result<Vec<usize>, StoreError> {
        let told = self.tell_together(notices, queue).await;
        if !matches!(told, Err(StoreError::Damaged(_))) {
            return told;
        }
        let mut not_yet = Vec::new();
        for (at, notice) in notices.iter().enumerate() {
            match self.tell_together(std::slice::from_ref(notice), queue).await {
                Ok(early) => not_yet.extend(early.iter().map(|_| at)),
                Err(StoreError::Damaged(damaged)) => {
                    error!(order = %notice.order, %damaged, "the buyer of {} cannot be written to", notice.order);
                    notice_dropped("unreadable", 1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(not_yet)
    }

    async fn tell_together(&mut self, notices: &[Notice], queue: Queue) -> Result<Vec<usize>, StoreError> {
        let buyers = self.buyers(notices).await?;
        let distinct: BTreeSet<UserId> = buyers.values().copied().collect();
        let reachable = self.aside.users().reachable(&Vec::from_iter(distinct)).await?;
        let reachable: HashSet<UserId> = reachable.into_iter().collect();
        let (mut not_yet, mut worth) = (Vec::new(), Vec::new());
        let (mut unknown, mut unborn) = (0, 0);
        for (at, notice) in notices.iter().enumerate() {
            match buyers.get(&notice.order) {
                Some(buyer) if reachable.contains(buyer) => worth.push(at),
                Some(_) => unknown += 1,
                None if queue == Queue::Money && self.may_come(notice) => not_yet.push(at),
                None => unborn += 1,
            }
        }
        notice_dropped("no_account", unknown);
        notice_dropped("idle", unborn);
        let new = self.not_told(worth.iter().map(|at| notices[*at].letter())).await?;
        let mut seen = HashSet::new();
        let before = worth.len();
        worth.retain(|at| {
            let name = notices[*at].letter();
            new.contains(&name) && seen.insert(name)
        });
        notice_dropped("told", (before - worth.len()) as u64);
        // What happened to several lines of an order together is one letter.
        let mut together: BTreeMap<(OrderId, NoticeKind), Vec<usize>> = BTreeMap::new();
        for at in worth {
            together.entry((notices[at].order, notices[at].kind)).or_default().push(at);
        }
        for some in Vec::from_iter(together).chunks(LETTERS_MAX) {
            not_yet.extend(self.write(notices, some, queue).await?);
        }
        Ok(not_yet)
    }

    /// Those of these names that were never told.
    async fn not_told(&self, names: impl Iterator<Item = MailId>) -> Result<HashSet<MailId>, StoreError> {
        let mut names: HashSet<MailId> = names.collect();
        for told in self.aside.told(&names.iter().copied().collect::<Vec<_>>()).await? {
            names.remove(&told);
        }
        Ok(names)
    }

    async fn buyers(&self, notices: &[Notice]) -> Result<HashMap<OrderId, UserId>, StoreError> {
        let orders: BTreeSet<OrderId> = notices.iter().map(|notice| notice.order).collect();
        Ok(self.aside.orders().buyers(&Vec::from_iter(orders)).await?.into_iter().collect())
    }

    /// Writes the letters that `some` of these notices make; which of them it is too early for.
    async fn write(
        &mut self,
        notices: &[Notice],
        some: &[((OrderId, NoticeKind), Vec<usize>)],
        queue: Queue,
    ) -> Result<Vec<usize>, StoreError> {
        let (mut orders, mut attempts) = self.orders_and_attempts(some).await?;
        if let Some(wait) = self.unsettled(&orders, &attempts) {
            self.sleep(wait).await;
            (orders, attempts) = self.orders_and_attempts(some).await?;
        }
        let refunds = self.refunds(&orders, some).await?;
        let beside = Beside { names: self.names(&orders).await?, attempts, refunds };
        let now = self.house.clock.now();
        let (mut batch, mut not_yet) = (Batch::default(), Vec::new());
        for ((order, _), together) in some {
            let Some(order) = orders.get(order) else { continue };
            let mut told = Vec::new();
            for at in together {
                let notice = &notices[*at];
                let sense = match queue {
                    Queue::Flush => notice.sense(order, now),
                    Queue::Money => notice.sense_of_sold(order),
                };
                match sense {
                    Sense::Tell => told.push(*notice),
                    Sense::NotYet if self.may_come(notice) => not_yet.push(*at),
                    Sense::NotYet | Sense::Idle => notice_dropped("idle", 1),
                }
            }
            batch.drafts.extend(self.draft(&told, order, &beside, now));
        }
        self.post(batch).await?;
        Ok(not_yet)
    }

    /// One letter of notices of one kind about one order.
    fn draft(&mut self, told: &[Notice], order: &Order, beside: &Beside, now: Millis) -> Option<Draft> {
        let first = told.first()?;
        let numbers: Option<Vec<u8>> = told.iter().map(|notice| notice.line).collect();
        let letter = letter(first.kind, numbers.as_deref(), order, beside)?;
        let placed = first.kind == NoticeKind::Placed;
        let mut remind_at = placed.then(|| reminder_at(order, self.remind_before_ms, now)).flatten();
        if remind_at.is_some() {
            self.reminders += 1;
            if self.reminders > REMINDERS_MAX {
                remind_at = None;
                notice_dropped("no_room", 1);
            }
        }
        Some(Draft {
            names: told.iter().map(Notice::letter).collect(),
            kind: first.kind,
            order: order.id,
            at: first.at,
            to: order.buyer,
            letter,
            remind_at,
        })
    }

    /// The tables may still come to show what it is about.
    fn may_come(&self, notice: &Notice) -> bool {
        notice.at.plus(NOT_YET_MS) > self.house.clock.now()
    }

    /// Writes to those whose hold is about to lapse.
    async fn remind(&mut self) -> Result<Duration, StoreError> {
        let due = self.aside.due(self.house.clock.now(), PAGE as u32).await?;
        for some in due.chunks(LETTERS_MAX) {
            match self.remind_together(some).await {
                Err(StoreError::Damaged(_)) => {
                    for one in some {
                        self.remind_one(*one).await?;
                    }
                }
                reminded => reminded?,
            }
        }
        if due.is_empty() {
            return Ok(LOOK_EVERY);
        }
        self.rest(due.len()).await;
        Ok(if due.len() < PAGE { LOOK_EVERY } else { Duration::ZERO })
    }

    async fn remind_together(&mut self, some: &[OrderId]) -> Result<(), StoreError> {
        let orders = self.orders(some.iter().copied()).await?;
        let attempts = self.attempts(&orders).await?;
        let beside = Beside { names: self.names(&orders).await?, attempts, ..Beside::default() };
        let now = self.house.clock.now();
        let of = |order| Notice::of(order, NoticeKind::HoldLapses, now).letter();
        let new = self.not_told(some.iter().map(|order| of(*order))).await?;
        let mut batch = Batch { ended: some.to_vec(), ..Batch::default() };
        for order in orders.values() {
            let at = order.hold_expires_at.plus(-self.remind_before_ms);
            let notice = Notice::of(order.id, NoticeKind::HoldLapses, at);
            let is_pending = order.status == OrderStatus::PendingPayment;
            if is_pending && at > now {
                // A payment was tried meanwhile, and the hold stands for longer.
                batch.put_off.push((order.id, at));
            } else if is_pending && beside.attempts.is_being_paid(order.id) {
                // Nobody knows yet whether it is paid: what he would read might be untrue. Its time may be over before somebody does;
                // if it is not paid then, it is kept a little longer, and he is reminded of that.
                batch.put_off.push((order.id, now.plus(IN_DOUBT_MS)));
            } else if notice.sense(order, now) == Sense::Tell && new.contains(&notice.letter()) {
                batch.drafts.extend(self.draft(&[notice], order, &beside, now));
            }
        }
        self.post(batch).await
    }

    /// One that is damaged is not reminded, and holds up nobody else.
    async fn remind_one(&mut self, order: OrderId) -> Result<(), StoreError> {
        match self.remind_together(&[order]).await {
            Err(StoreError::Damaged(damaged)) => {
                error!(%order, %damaged, "the buyer of {order} cannot be reminded");
                notice_dropped("unreadable", 1);
                self.post(Batch { ended: vec![order], ..Batch::default() }).await
            }
            reminded => reminded,
        }
    }

    async fn post(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.write(&self.house).await? > 0 {
            self.house.outbox.wake();
        }
        Ok(())
    }

    async fn orders(
        &self,
        ids: impl Iterator<Item = OrderId>,
    ) -> Result<HashMap<OrderId, Order>, StoreError> {
        let ids: BTreeSet<OrderId> = ids.collect();
        let found = self.aside.orders().find_many(&Vec::from_iter(ids)).await?;
        Ok(found.into_iter().map(|order| (order.id, order)).collect())
    }

    async fn orders_and_attempts(
        &self,
        some: &[((OrderId, NoticeKind), Vec<usize>)],
    ) -> Result<(HashMap<OrderId, Order>, Attempts), StoreError> {
        let orders = self.orders(some.iter().map(|((order, _), _)| *order)).await?;
        let attempts = self.attempts(&orders).await?;
        Ok((orders, attempts))
    }

    /// How long until it shows who of those that have placed an order in this moment pays it in the same call, and why a payment has
    /// failed: its units are given back before its row says so. Whoever comes to look later than that never waits.
    fn unsettled(&self, orders: &HashMap<OrderId, Order>, attempts: &Attempts) -> Option<Duration> {
        let since = |order: &Order| match (order.status, attempts.is_being_paid(order.id)) {
            (OrderStatus::PendingPayment, false) => Some(order.created_at),
            (OrderStatus::PaymentFailed, true) => Some(order.updated_at),
            _ => None,
        };
        let newest = orders.values().filter_map(since).max()?;
        let wait = self.house.clock.until(newest.plus(SETTLE.as_millis() as i64)).min(SETTLE);
        (!wait.is_zero()).then_some(wait)
    }

    async fn names(
        &self,
        orders: &HashMap<OrderId, Order>,
    ) -> Result<HashMap<ProductId, String>, StoreError> {
        let lines = orders.values().flat_map(|order| &order.lines);
        let products: BTreeSet<ProductId> = lines.map(|line| line.product).collect();
        let found = self.aside.products().find_many(&Vec::from_iter(products)).await?;
        Ok(found.into_iter().map(|listing| (listing.product.id, listing.product.name)).collect())
    }

    /// Of what was sold the money has come; what is said of it is what goes back.
    async fn attempts(&self, orders: &HashMap<OrderId, Order>) -> Result<Attempts, StoreError> {
        let unsold = orders.values().filter(|order| !order.is_sold());
        let found = self.aside.payments().of_orders(&Vec::from_iter(unsold.map(|order| order.id))).await?;
        let mut attempts = Attempts::default();
        for payment in found {
            attempts.0.entry(payment.order).or_default().push(payment);
        }
        Ok(attempts)
    }

    /// What goes back of sold orders, of those of which a letter says so.
    async fn refunds(
        &self,
        orders: &HashMap<OrderId, Order>,
        some: &[((OrderId, NoticeKind), Vec<usize>)],
    ) -> Result<HashMap<OrderId, Vec<Refund>>, StoreError> {
        let asked = some.iter().filter(|((order, kind), _)| {
            let comes_back = matches!(kind, NoticeKind::Cancelled | NoticeKind::Returned);
            comes_back && orders.get(order).is_some_and(Order::is_sold)
        });
        let asked: Vec<OrderId> = asked.map(|((order, _), _)| *order).collect();
        let mut refunds: HashMap<OrderId, Vec<Refund>> = HashMap::new();
        for refund in self.aside.refunds().of_orders(&asked).await? {
            refunds.entry(refund.order).or_default().push(refund);
        }
        Ok(refunds)
    }

    /// The pace: so many a second, and in a rush a page every now and then.
    async fn rest(&self, notices: usize) {
        let paced = Duration::from_secs(notices as u64) / NOTICES_PER_S;
        let rest = if self.house.flush.is_behind() { RUSH_REST } else { paced };
        self.sleep(rest).await;
    }

    /// Or until the end.
    async fn sleep(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.signals.stopped.notified()).await;
    }

    /// Counts what waits, drops what is too much, and forgets what is long past.
    async fn chores(&mut self) -> Result<(), StoreError> {
        let now = self.house.clock.now();
        if now.0 - self.counted_at.0 < COUNT_EVERY_MS {
            return Ok(());
        }
        self.counted_at = now;
        let waiting = self.aside.waiting().await?;
        let Waiting { slices, sold, oldest } = waiting;
        self.metrics.notices_waiting.set((slices + sold) as f64);
        let age_ms = oldest.map_or(0, |oldest| (now.0 - oldest.0).max(0));
        self.metrics.notices_oldest_seconds.set(age_ms as f64 / 1e3);
        self.reminders = self.aside.reminders().await?;
        self.make_room(waiting).await?;
        if now >= self.sweep_at {
            let old = self.aside.told_before(now.plus(-TOLD_MS), PAGE).await?;
            self.rows.forget_told(&old).await?;
            self.sweep_at = if old.len() < PAGE { now.plus(SWEEP_EVERY_MS) } else { now };
        }
        Ok(())
    }

    /// Nothing grows for ever.
    async fn make_room(&self, Waiting { mut slices, mut sold, .. }: Waiting) -> Result<(), StoreError> {
        while slices > WAITING_MAX && !self.signals.stopping() {
            let oldest = self.aside.oldest_slices(1).await?;
            let Some(slice) = oldest.first() else { break };
            let count = slice.notices.len() as u64 + slice.damaged;
            self.hand.forget(Gone::SlicesUpTo(slice.pos)).await?;
            dropped(count);
            slices = slices.saturating_sub(count.max(1));
        }
        while sold > WAITING_MAX && !self.signals.stopping() {
            let oldest = self.aside.oldest_sold(PAGE as u32).await?;
            let count = oldest.len() as u64;
            self.hand.forget(Gone::Sold(oldest.into_iter().map(|(row, _)| row).collect())).await?;
            dropped(count);
            sold = sold.saturating_sub(count.max(1));
        }
        Ok(())
    }
}

fn dropped(count: u64) {
    warn!(count, "{count} notices were dropped untold: more than {WAITING_MAX} wait");
    notice_dropped("no_room", count);
}
