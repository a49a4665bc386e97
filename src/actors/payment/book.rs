//! The book: whoever has something to write about money hands it in here, and one task writes all that waits as one group.
//!
//! A sync costs about the same for one row as for hundreds, so those who come while a group is being written form the next.
//! Always true: at most [`WAITING_MAX`] wait, and who comes when they do is told at once; an answer that is heard is on the disk.

use std::time::Duration;

use actix_web::rt;
use tokio::sync::{mpsc, oneshot};

use crate::actors::stock::NotDone;
use crate::actors::turns::turn;
use crate::clock::Clock;
use crate::domain::payment::{Move, Payment, Refund, RefundStep};
use crate::domain::stock::Millis;
use crate::persistence::money::{MoneyBook, NotWritten, Write, Written};
use crate::telemetry::Metrics;

/// Writes that wait, at most: about a second of them.
pub const WAITING_MAX: usize = 8_192;
/// Writes of one group, at most.
pub const GROUP_MAX: usize = 512;
/// After so many groups it is looked whether the WAL is to be copied into its file: by the one who writes, so that nobody else
/// ever holds the writer for it.
const CHECKPOINT_EVERY: u64 = 8;
/// So long nobody has come: then the WAL may be emptied of what was erased, which keeps nobody waiting.
const QUIET: Duration = Duration::from_millis(250);
/// When to come back after the book was full.
const RETRY_MS: u64 = 500;

/// Why nobody can say that it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// Certainly not written.
    #[error("too much is to be written")]
    Full,
    /// It may have been written.
    #[error("nobody knows whether it was written")]
    Unknown,
    /// Certainly not written, now or later.
    #[error(transparent)]
    Wrong(#[from] NotWritten),
}

impl From<Unkept> for NotDone {
    fn from(why: Unkept) -> NotDone {
        match why {
            Unkept::Full => NotDone::Busy { retry_after_ms: RETRY_MS },
            Unkept::Unknown => NotDone::Unknown,
            Unkept::Wrong(_) => NotDone::Internal,
        }
    }
}

type Answer = Result<Written, Unkept>;

struct Question {
    write: Write,
    answer: oneshot::Sender<Answer>,
}

/// Takes writes in. Cheap to clone; the task ends with the last of them.
#[derive(Clone)]
pub struct Book {
    waiting: mpsc::Sender<Question>,
}

impl Book {
    /// Starts the task that writes, on this thread. It does little more than wait for the disk.
    pub fn open(rows: MoneyBook, clock: Clock, metrics: Metrics) -> Book {
        let (waiting, questions) = mpsc::channel(WAITING_MAX);
        rt::spawn(write(rows, clock, metrics, questions));
        Book { waiting }
    }

    /// Writes, and waits until it is on the disk.
    pub async fn write(&self, write: Write) -> Answer {
        let (answer, heard) = oneshot::channel();
        self.waiting.try_send(Question { write, answer }).map_err(|_| Unkept::Full)?;
        heard.await.unwrap_or(Err(Unkept::Unknown))
    }

    /// Moves a payment on; `None`: somebody else has moved it.
    pub async fn step(
        &self,
        payment: &Payment,
        step: Move,
        due_at: Option<Millis>,
    ) -> Result<Option<Payment>, Unkept> {
        let write = Write::Move { payment: payment.id, version: payment.version, step, due_at };
        Ok(payment_in(self.write(write).await?))
    }

    /// Lets go of a payment.
    pub async fn rest(&self, payment: &Payment, due_at: Option<Millis>) -> Result<Option<Payment>, Unkept> {
        let write = Write::Rest { payment: payment.id, version: payment.version, due_at };
        Ok(payment_in(self.write(write).await?))
    }

    /// Takes a payment up; `None`: somebody else has.
    pub async fn claim(&self, payment: &Payment, until: Millis) -> Result<Option<Payment>, Unkept> {
        let write = Write::Claim { payment: payment.id, version: payment.version, until };
        Ok(payment_in(self.write(write).await?))
    }

    pub async fn step_refund(
        &self,
        refund: &Refund,
        step: RefundStep,
        due_at: Option<Millis>,
    ) -> Result<Option<Refund>, Unkept> {
        let RefundStep { to, provider_ref, reason } = step;
        let (id, version) = (refund.id, refund.version);
        let write = Write::MoveRefund { refund: id, version, to, provider_ref, reason, due_at };
        Ok(refund_in(self.write(write).await?))
    }

    pub async fn rest_refund(
        &self,
        refund: &Refund,
        due_at: Millis,
        reason: Option<String>,
    ) -> Result<Option<Refund>, Unkept> {
        let write = Write::RestRefund { refund: refund.id, version: refund.version, due_at, reason };
        Ok(refund_in(self.write(write).await?))
    }

    pub async fn claim_refund(&self, refund: &Refund, until: Millis) -> Result<Option<Refund>, Unkept> {
        let write = Write::ClaimRefund { refund: refund.id, version: refund.version, until };
        Ok(refund_in(self.write(write).await?))
    }
}

fn payment_in(written: Written) -> Option<Payment> {
    match written {
        Written::Row(payment) => Some(*payment),
        _ => None,
    }
}

fn refund_in(written: Written) -> Option<Refund> {
    match written {
        Written::RefundRow(refund) => Some(*refund),
        _ => None,
    }
}

/// Takes what waits, and says how much that is. What was erased leaves the WAL while nobody comes.
async fn next(
    rows: &MoneyBook,
    questions: &mut mpsc::Receiver<Question>,
    taken: &mut Vec<Question>,
) -> usize {
    while rows.has_former() {
        match rt::time::timeout(QUIET, questions.recv_many(taken, GROUP_MAX)).await {
            Ok(came) => return came,
            Err(_) => rows.checkpoint_if_due().await,
        }
    }
    questions.recv_many(taken, GROUP_MAX).await
}

async fn write(rows: MoneyBook, clock: Clock, metrics: Metrics, mut questions: mpsc::Receiver<Question>) {
    let (mut taken, mut writes, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    let mut groups: u64 = 0;
    while next(&rows, &mut questions, &mut taken).await > 0 {
        for Question { write, answer } in taken.drain(..) {
            writes.push(write);
            heard.push(answer);
        }
        let began = clock.nanos();
        match turn("the book of payments", rows.write_group(&writes, clock.now())).await {
            Some(Ok(answers)) => {
                for (answer, said) in heard.drain(..).zip(answers) {
                    // Whoever does not wait any more finds it in the row.
                    let _ = answer.send(said.map_err(Unkept::Wrong));
                }
            }
            failed => {
                let error = failed.and_then(Result::err).map(tracing::field::display);
                tracing::error!(error, rows = writes.len(), "rows of money may not have been written");
                for answer in heard.drain(..) {
                    let _ = answer.send(Err(Unkept::Unknown));
                }
            }
        }
        metrics.money_group_rows.record(writes.len() as f64);
        metrics.money_write_seconds.record(clock.nanos().saturating_sub(began) as f64 / 1e9);
        writes.clear();
        groups += 1;
        if groups.is_multiple_of(CHECKPOINT_EVERY) {
            rows.checkpoint_if_due().await;
        }
    }
}
