//! A payment provider that is not one: it decides by the token, and goes wrong as often as it is told to.
//!
//! | token | what happens |
//! |---|---|
//! | `tok_ok` | the money is taken |
//! | `tok_declined` | the bank says no |
//! | `tok_timeout_then_ok`, `tok_timeout_then_declined` | the same, and the answer is lost |
//! | `tok_pending_then_ok`, `tok_pending_then_declined` | it is decided when somebody asks |
//! | `tok_random_<percent>` | declined as often as that |
//! | `tok_wrong_amount`, `tok_wrong_currency` | something else is taken than was asked for |
//! | `tok_refused` | it does not take the request, as if it were not configured rightly |
//! | `tok_refund_fails_twice`, `…_always`, `…_<n>` | taken; each refund fails so often first |
//!
//! Any other token is declined as invalid. Always true: what happens follows from the seed and the id alone, so the same
//! purchase comes to the same end in every run; and an effect is in the book before anybody hears of it.

mod book;
mod post;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::webhook::Signatures;
use super::{Charge, NoProvider, ProviderError, RefundAsk, RefundSeen, RefundStatus, Seen, Status};
use crate::clock::Clock;
use crate::config::SimulatedPayment;
use crate::domain::amount::Money;
use crate::domain::id::{OrderId, PaymentId, RefundId};
use book::{Book, Entry, No, Return, State};
use post::Post;
use token::Token;

/// The simulated provider. Cheap to clone.
#[derive(Clone)]
pub struct Simulated(Arc<Inner>);

struct Inner {
    /// Held for one line's write, never while anybody waits.
    book: Mutex<Book>,
    faults: SimulatedPayment,
    post: Option<Post>,
    unreachable: AtomicBool,
}

/// A payment as the book has it, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCharge {
    pub payment: PaymentId,
    pub order: OrderId,
    /// In whose currency, and how much of it was asked for or taken.
    pub amount: Money,
    pub state: KnownState,
    pub captured: i64,
    pub refunded: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownState {
    Pending,
    Captured,
    Declined,
    Cancelled,
}

/// A refund that was made, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRefund {
    pub refund: RefundId,
    pub payment: PaymentId,
    pub amount: Money,
}

impl Simulated {
    /// Opens the book in this directory.
    pub fn open(
        data_dir: &Path,
        faults: &SimulatedPayment,
        signatures: &Signatures,
        shop: SocketAddr,
        clock: &Clock,
    ) -> Result<Simulated, NoProvider> {
        let path = data_dir.join(book::FILE);
        let book = Book::open(&path).map_err(|error| unreadable(&path, &error))?;
        let post = faults.webhooks.then(|| Post::to(shop, faults, signatures, clock)).transpose()?;
        let unreachable = AtomicBool::new(false);
        Ok(Simulated(Arc::new(Inner { book: Mutex::new(book), faults: faults.clone(), post, unreachable })))
    }

    /// From now on nobody reaches it, or everybody does again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.0.unreachable.store(unreachable, Ordering::Relaxed);
    }

    /// The bank changes its mind about a payment that it had declined: money that nobody expects any more.
    pub fn capture_after_all(&self, payment: PaymentId) {
        let mut book = self.book();
        if let Some(entry) = book.charge(payment).filter(|entry| matches!(entry.state, State::Declined(_))) {
            // A book that cannot be written has changed nothing.
            let _ = book.put_charge(payment, Entry { state: State::Captured, ..entry });
        }
    }

    /// Every payment it has done something about.
    pub fn charges(&self) -> Vec<KnownCharge> {
        charges_in(&self.book())
    }

    /// Every refund it has made.
    pub fn refunds(&self) -> Vec<KnownRefund> {
        refunds_in(&self.book())
    }

    pub async fn charge(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        self.arrive().await?;
        let answer = self.charge_now(ask);
        self.leave(answer).await
    }

    pub async fn find(&self, ask: &Charge<'_>) -> Result<Option<Seen>, ProviderError> {
        self.arrive().await?;
        self.find_now(ask.payment)
    }

    pub async fn cancel(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        self.arrive().await?;
        let answer = self.cancel_now(ask);
        self.leave(answer).await
    }

    pub async fn refund(&self, ask: &RefundAsk<'_>) -> Result<RefundSeen, ProviderError> {
        self.arrive().await?;
        let answer = self.refund_now(ask);
        self.leave(answer).await
    }

    pub async fn find_refund(&self, ask: &RefundAsk<'_>) -> Result<Option<RefundSeen>, ProviderError> {
        self.arrive().await?;
        Ok(self.book().refund(ask.refund).filter(|refund| refund.done).map(|it| given_back(ask.refund, &it)))
    }

    // --- the way in and the way out -----------------------------------------------------------------------------------------

    async fn arrive(&self) -> Result<(), ProviderError> {
        wait(self.0.faults.latency).await;
        if self.0.unreachable.load(Ordering::Relaxed) { Err(ProviderError::NotNow) } else { Ok(()) }
    }

    async fn leave<T>(&self, answer: Result<T, ProviderError>) -> Result<T, ProviderError> {
        if matches!(answer, Err(ProviderError::Unknown)) {
            wait(self.0.faults.timeout).await;
        }
        answer
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below a hundred that follows from the seed, the purpose and the id.
    fn chance(&self, purpose: &str, id: &[u8; 16]) -> u8 {
        let mut name = Vec::with_capacity(16 + purpose.len());
        name.extend_from_slice(id);
        name.extend_from_slice(purpose.as_bytes());
        (xxh3_64_with_seed(&name, self.0.faults.seed) % 100) as u8
    }

    // --- what happens, at once ------------------------------------------------------------------------------------------------

    fn charge_now(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        let id = ask.payment;
        let mut book = self.book();
        let known = book.charge(id);
        match known {
            None => {}
            Some(entry) if entry.state == State::Lost => {}
            Some(entry) if entry.state == State::Cancelled => return Ok(seen(id, &entry)),
            Some(entry) if entry.order != ask.order || entry.asked != ask.amount => {
                return Err(refused("idempotency_error"));
            }
            Some(entry) => return Ok(seen(id, &entry)),
        }
        let entry = |state| Entry {
            order: ask.order,
            asked: ask.amount,
            taken: ask.amount,
            state,
            refund_fails: 0,
            refunded: 0,
        };
        if known.is_none() && self.chance("charge lost before", id.as_bytes()) < self.0.faults.lost_before {
            book.put_charge(id, entry(State::Lost)).map_err(not_written)?;
            return Err(ProviderError::Unknown);
        }
        let token = Token::of(ask.method.ok_or_else(|| refused("no_method"))?.token());
        if token == Token::Refused {
            return Err(refused("not_configured"));
        }
        let decided = token.decide(entry(State::Captured), self.chance("decline", id.as_bytes()));
        book.put_charge(id, decided).map_err(not_written)?;
        self.tell(id, &decided, None);
        let lost = token.loses_answer()
            || self.chance("charge lost after", id.as_bytes()) < self.0.faults.lost_after;
        if lost { Err(ProviderError::Unknown) } else { Ok(seen(id, &decided)) }
    }

    fn find_now(&self, id: PaymentId) -> Result<Option<Seen>, ProviderError> {
        let mut book = self.book();
        let Some(mut entry) = book.charge(id).filter(|entry| entry.state != State::Lost) else {
            return Ok(None);
        };
        if let State::PendingThen(ok) = entry.state {
            entry.state = if ok { State::Captured } else { State::Declined(No::CardDeclined) };
            book.put_charge(id, entry).map_err(not_written)?;
            self.tell(id, &entry, None);
        }
        Ok(Some(seen(id, &entry)))
    }

    fn cancel_now(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        let id = ask.payment;
        let mut book = self.book();
        let known = book.charge(id);
        if let Some(entry) = known
            && matches!(entry.state, State::Captured | State::Declined(_) | State::Cancelled)
        {
            return Ok(seen(id, &entry));
        }
        // Also one that nobody has heard of: a charge that is still on its way finds it.
        let (order, asked) = (ask.order, ask.amount);
        let entry =
            Entry { order, asked, taken: asked, state: State::Cancelled, refund_fails: 0, refunded: 0 };
        book.put_charge(id, entry).map_err(not_written)?;
        self.tell(id, &entry, None);
        let lost = self.chance("cancel lost after", id.as_bytes()) < self.0.faults.lost_after;
        if lost { Err(ProviderError::Unknown) } else { Ok(seen(id, &entry)) }
    }

    fn refund_now(&self, ask: &RefundAsk<'_>) -> Result<RefundSeen, ProviderError> {
        let id = ask.refund;
        let mut book = self.book();
        let known = book.refund(id);
        if let Some(refund) = known {
            if (refund.payment, refund.amount) != (ask.payment, ask.amount) {
                return Err(refused("idempotency_error"));
            }
            if refund.done {
                return Ok(given_back(id, &refund));
            }
        }
        let charge = book.charge(ask.payment).filter(|entry| entry.state == State::Captured);
        let charge = charge.ok_or_else(|| refused("charge_not_captured"))?;
        if ask.amount.currency != charge.taken.currency {
            return Err(refused("currency_mismatch"));
        }
        let left = charge.captured() - charge.refunded;
        if !(1..=left).contains(&ask.amount.amount) {
            return Err(refused(if left == 0 { "charge_already_refunded" } else { "amount_too_large" }));
        }
        let tries = known.map_or(0, |refund| refund.tries);
        let made = Return { payment: ask.payment, amount: ask.amount, tries, done: true };
        let in_vain = Return { tries: tries.saturating_add(1), done: false, ..made };
        if known.is_none() && self.chance("refund lost before", id.as_bytes()) < self.0.faults.lost_before {
            book.put_refund(id, Return { tries: 0, ..in_vain }).map_err(not_written)?;
            return Err(ProviderError::Unknown);
        }
        if charge.refund_fails == u8::MAX || tries < charge.refund_fails {
            book.put_refund(id, in_vain).map_err(not_written)?;
            return Err(ProviderError::NotNow);
        }
        book.put_refund(id, made).map_err(not_written)?;
        self.tell(ask.payment, &charge, Some(id));
        let lost = self.chance("refund lost after", id.as_bytes()) < self.0.faults.lost_after;
        if lost { Err(ProviderError::Unknown) } else { Ok(given_back(id, &made)) }
    }

    fn tell(&self, payment: PaymentId, entry: &Entry, refund: Option<RefundId>) {
        let Some(post) = &self.0.post else { return };
        let kind = match (refund, entry.state) {
            (Some(_), _) => "refund.updated",
            (None, State::Captured) => "payment_intent.succeeded",
            (None, State::Declined(_)) => "payment_intent.payment_failed",
            (None, State::Cancelled) => "payment_intent.canceled",
            (None, State::PendingThen(_)) => "payment_intent.processing",
            (None, State::Lost) => return,
        };
        let id = refund.map_or(*payment.as_bytes(), |refund| *refund.as_bytes());
        let twice = self.chance("webhook twice", &id) < self.0.faults.duplicates;
        let late = self.chance("webhook late", &id) < self.0.faults.late;
        post.send(kind, payment, entry.order, refund, twice, late);
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The book could not be written, so nothing has happened.
fn not_written(error: io::Error) -> ProviderError {
    tracing::warn!(%error, "the simulated payment provider cannot write its book");
    ProviderError::NotNow
}

fn refused(code: &str) -> ProviderError {
    ProviderError::Refused { code: code.to_owned() }
}

/// What stands in the book of this directory, for whoever only looks.
pub fn look(data_dir: &Path) -> Result<(Vec<KnownCharge>, Vec<KnownRefund>), NoProvider> {
    let path = data_dir.join(book::FILE);
    let book = Book::look(&path).map_err(|error| unreadable(&path, &error))?;
    Ok((charges_in(&book), refunds_in(&book)))
}

fn unreadable(path: &Path, error: &io::Error) -> NoProvider {
    NoProvider::Book { file: path.display().to_string(), reason: error.to_string() }
}

fn charges_in(book: &Book) -> Vec<KnownCharge> {
    let known = book.charges().filter_map(|(payment, entry)| {
        let state = match entry.state {
            State::Lost => return None,
            State::PendingThen(_) => KnownState::Pending,
            State::Captured => KnownState::Captured,
            State::Declined(_) => KnownState::Declined,
            State::Cancelled => KnownState::Cancelled,
        };
        let Entry { order, taken: amount, refunded, .. } = *entry;
        Some(KnownCharge { payment, order, amount, state, captured: entry.captured(), refunded })
    });
    known.collect()
}

fn refunds_in(book: &Book) -> Vec<KnownRefund> {
    let made = book.refunds().filter(|(_, refund)| refund.done);
    made.map(|(refund, made)| KnownRefund { refund, payment: made.payment, amount: made.amount }).collect()
}

/// `sim_` and the letters of our own id.
fn name(id: &impl ToString) -> String {
    let id = id.to_string();
    format!("sim_{}", id.split_once('_').map_or("", |(_, letters)| letters))
}

fn seen(id: PaymentId, entry: &Entry) -> Seen {
    let status = match entry.state {
        State::Captured => Status::Captured,
        State::Declined(no) => Status::Declined { code: no.as_str().to_owned() },
        State::Cancelled => Status::Cancelled,
        State::PendingThen(_) | State::Lost => Status::Pending,
    };
    Seen {
        provider_ref: name(&id),
        status,
        amount: entry.taken,
        captured: entry.captured(),
        refunded: entry.refunded,
    }
}

fn given_back(id: RefundId, refund: &Return) -> RefundSeen {
    RefundSeen { provider_ref: name(&id), status: RefundStatus::Done, amount: refund.amount }
}
