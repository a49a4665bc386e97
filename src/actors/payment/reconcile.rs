//! Our payments and refunds against the provider's books, both ways: nothing is taken that we do not know of, and nothing is
//! missing that we believe was taken or given back. It changes nothing, here or there.
//!
//! The books come leaf by leaf, and a few hundred rows are read at a time. What is remembered is the bare id of whatever was
//! taken and given back: sixteen bytes each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::TryStreamExt;

use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::payment::{Payment, PaymentState, Refund, RefundState};
use crate::domain::stock::Millis;
use crate::persistence::{StoreError, Tables};
use crate::provider::{Books, Charged, KnownRefund, Leaf, ProviderError};

/// Entries of a book that are compared at a time.
const ENTRIES_AT_ONCE: usize = 256;
/// Ten million of a hundred entries each: a book that does not end by then is none.
const LEAVES_MAX: u64 = 100_000;
/// How often a leaf is asked for, with twice the pause each time.
const ASKS_MAX: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What the comparison has looked at, and every difference as a line to print.
#[derive(Debug, Default)]
pub struct Reconciled {
    pub charges: u64,
    pub refunds: u64,
    /// Payments and refunds here that have not ended: the provider may be ahead of them.
    pub under_way: u64,
    pub differences: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotReconciled {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the provider's book does not end")]
    Endless,
}

/// Compares everything. Nobody may write the tables meanwhile.
pub async fn reconcile(tables: &Tables, books: &Books) -> Result<Reconciled, NotReconciled> {
    let mut comparison = Comparison { tables, books, told: Reconciled::default() };
    let since = tables.payments().first_at().await?.unwrap_or(Millis(0));
    comparison.charges(since).await?;
    comparison.refunds(since).await?;
    Ok(comparison.told)
}

struct Comparison<'c> {
    tables: &'c Tables,
    books: &'c Books,
    told: Reconciled,
}

impl Comparison<'_> {
    fn differs(&mut self, what: String) {
        self.told.differences.push(what);
    }

    async fn charges(&mut self, since: Millis) -> Result<(), NotReconciled> {
        let (mut taken, mut from) = (HashSet::new(), None);
        for _ in 0..LEAVES_MAX {
            let leaf = patiently(|| self.books.charges(since, from.as_deref())).await?;
            for piece in leaf.entries.chunks(ENTRIES_AT_ONCE) {
                self.charges_of(piece, &mut taken).await?;
            }
            from = leaf.next;
            if from.is_none() {
                return self.missing_charges(&taken).await;
            }
        }
        Err(NotReconciled::Endless)
    }

    async fn charges_of(
        &mut self,
        piece: &[Charged],
        taken: &mut HashSet<PaymentId>,
    ) -> Result<(), NotReconciled> {
        self.told.charges += piece.len() as u64;
        let ids: Vec<PaymentId> = piece.iter().map(|charge| charge.payment).collect();
        let rows = self.tables.payments().find_many(&distinct(ids)).await?;
        let orders: Vec<OrderId> = rows.iter().map(|row| row.order).collect();
        let mut given_back: HashMap<PaymentId, i64> = HashMap::new();
        for refund in self.tables.refunds().of_orders(&orders).await? {
            // What a person gave back did not go through the provider.
            if refund.state == RefundState::Done && !refund.is_settled_by_hand() {
                *given_back.entry(refund.payment).or_default() += refund.amount.amount;
            }
        }
        let rows: BTreeMap<PaymentId, Payment> = rows.into_iter().map(|row| (row.id, row)).collect();
        for charge in piece {
            let id = charge.payment;
            if charge.captured > 0 && !taken.insert(id) {
                self.differs(format!("{id}: the provider has taken money for it twice"));
            }
            match rows.get(&id) {
                None => self.differs(format!(
                    "{id}: the provider knows it and has taken {} {}, we do not",
                    charge.captured, charge.amount.currency
                )),
                Some(row) => self.charge(row, given_back.get(&id).copied().unwrap_or(0), charge),
            }
        }
        Ok(())
    }

    /// `given_back`: what our refunds come to that the provider has done.
    fn charge(&mut self, row: &Payment, given_back: i64, charge: &Charged) {
        let id = row.id;
        if is_under_way(row) {
            self.told.under_way += 1;
            return;
        }
        if charge.captured != row.captured {
            let state = row.state.as_str();
            self.differs(format!(
                "{id}: the provider has taken {}, here it is {state} with {}",
                charge.captured, row.captured
            ));
        }
        if charge.captured > 0 && charge.amount.currency != row.captured_in {
            let (there, here) = (charge.amount.currency, row.captured_in);
            self.differs(format!("{id}: is in {there} at the provider, in {here} here"));
        }
        if !(given_back..=row.refunded).contains(&charge.refunded) {
            self.differs(format!(
                "{id}: the provider has given back {}, here {given_back} of {} are done",
                charge.refunded, row.refunded
            ));
        }
    }

    async fn missing_charges(&mut self, taken: &HashSet<PaymentId>) -> Result<(), NotReconciled> {
        let payments = self.tables.payments();
        let mut rows = std::pin::pin!(payments.all());
        while let Some(row) = rows.try_next().await? {
            if row.captured > 0 && !taken.contains(&row.id) {
                let (id, captured) = (row.id, row.captured);
                self.differs(format!("{id}: {captured} are taken here, the provider knows of nothing"));
            }
        }
        Ok(())
    }

    async fn refunds(&mut self, since: Millis) -> Result<(), NotReconciled> {
        let (mut made, mut from) = (HashSet::new(), None);
        for _ in 0..LEAVES_MAX {
            let leaf = patiently(|| self.books.refunds(since, from.as_deref())).await?;
            for piece in leaf.entries.chunks(ENTRIES_AT_ONCE) {
                self.refunds_of(piece, &mut made).await?;
            }
            from = leaf.next;
            if from.is_none() {
                return self.missing_refunds(&made).await;
            }
        }
        Err(NotReconciled::Endless)
    }

    async fn refunds_of(
        &mut self,
        piece: &[KnownRefund],
        made: &mut HashSet<RefundId>,
    ) -> Result<(), NotReconciled> {
        self.told.refunds += piece.len() as u64;
        let ids: Vec<RefundId> = piece.iter().map(|refund| refund.refund).collect();
        let rows = self.tables.refunds().find_many(&distinct(ids)).await?;
        let rows: BTreeMap<RefundId, Refund> = rows.into_iter().map(|row| (row.id, row)).collect();
        for known in piece {
            let (id, there) = (known.refund, known.amount);
            if !made.insert(id) {
                self.differs(format!("{id}: the provider has given it back twice"));
            }
            match rows.get(&id) {
                None => self.differs(format!(
                    "{id}: the provider gives back {} {}, we do not know it",
                    there.amount, there.currency
                )),
                // It was of another amount, and somebody has looked into it.
                Some(row) if row.is_settled_by_hand() && row.amount != there => {}
                Some(row) if row.payment != known.payment || row.amount.amount != there.amount => {
                    self.differs(format!(
                        "{id}: the provider gives back {} of {}, here it is {} of {}",
                        there.amount, known.payment, row.amount.amount, row.payment
                    ));
                }
                Some(row) if row.is_settled_by_hand() => {
                    self.differs(format!(
                        "{id}: is settled by hand here, and the provider gives it back as well"
                    ));
                }
                Some(row) => self.told.under_way += u64::from(row.state != RefundState::Done),
            }
        }
        Ok(())
    }

    async fn missing_refunds(&mut self, made: &HashSet<RefundId>) -> Result<(), NotReconciled> {
        let refunds = self.tables.refunds();
        let mut rows = std::pin::pin!(refunds.all());
        while let Some(row) = rows.try_next().await? {
            // Of what cost nothing only units came back, and what was settled by hand went another way.
            let moved_money = row.state == RefundState::Done && row.amount.amount > 0;
            if moved_money && !row.is_settled_by_hand() && !made.contains(&row.id) {
                self.differs(format!("{}: is done here, the provider knows of nothing", row.id));
            }
        }
        Ok(())
    }
}

/// What the provider knows of it may be newer than what we do.
fn is_under_way(row: &Payment) -> bool {
    matches!(row.state, PaymentState::Started | PaymentState::Unknown)
        || row.state.has_failed() && row.due_at.is_some()
}

fn distinct<T: Ord>(mut ids: Vec<T>) -> Vec<T> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Asks for a leaf until it comes, a few times.
async fn patiently<T, F: Future<Output = Result<Leaf<T>, ProviderError>>>(
    ask: impl Fn() -> F,
) -> Result<Leaf<T>, ProviderError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ASKS_MAX {
        match ask().await {
            Err(ProviderError::Unknown | ProviderError::NotNow | ProviderError::Spent) => {}
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    ask().await
}
