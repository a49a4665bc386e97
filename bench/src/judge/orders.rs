//! Orders: each of them one buyer's, once, and readable as it was answered.

use std::collections::HashSet;

use anyhow::Result;

use super::book::Book;
use super::{CONNECTIONS, Evidence, Verdict};
use crate::answer::{OrderId, OrderState, sequence, total};
use crate::client::{Client, each};
use crate::engine::Ordered;

/// Keys that are tried once more, beside all whose first try had no certain answer.
const RETRIED_KEYS: usize = 1_000;

impl Evidence<'_> {
    pub async fn duplicates(&self, books: &[Option<Book>]) -> Result<Verdict> {
        let orders: Vec<Ordered> = self.history.orders().copied().collect();
        let mut complaints = Vec::new();
        let mut ids = HashSet::with_capacity(orders.len());
        let mut places = HashSet::with_capacity(orders.len());
        for order in &orders {
            if !ids.insert(order.order) {
                complaints.push(format!("{:?} was given to two keys", order.order));
            }
            if !places.insert((order.product, order.sequence)) {
                complaints.push(format!(
                    "sequence {} of {} was given twice",
                    order.sequence, self.products[order.product as usize]
                ));
            }
        }
        let held = books.iter().flatten().flat_map(Book::orders);
        let ghosts = held.filter(|id| !ids.contains(id)).count();
        if ghosts > self.history.unresolved.len() {
            complaints.push(format!("the ledgers hold {ghosts} orders that no key was ever told of"));
        }
        let retried = keys_to_retry(&orders);
        let answers =
            each(self.target, CONNECTIONS, &retried, async |client, order| self.retry(client, order).await)
                .await?;
        complaints.extend(answers.into_iter().flatten());
        let fine = format!("{} orders, {} keys tried again", orders.len(), retried.len());
        Ok(Verdict::of("duplicate orders", complaints, fine))
    }

    /// A winner who lost the answer asks again, and must hear of the same order; so must whoever was declined.
    async fn retry(&self, client: &mut Client, order: &Ordered) -> Result<Option<String>> {
        let mut request = Vec::new();
        self.requests.write(order.key, order.product, &mut request);
        let reply = client.send(&request).await?;
        let said_so = match (order.state, reply.status) {
            (OrderState::PendingPayment | OrderState::Paid, 201) => true,
            (OrderState::PaymentFailed, 402) => true,
            // What the first answer was, if that was given while the payment was open.
            (OrderState::Paid | OrderState::PaymentFailed, 202) => order.was_uncertain,
            _ => false,
        };
        let same = said_so && OrderId::of(&reply.body) == Some(order.order) && reply.replayed;
        Ok((!same).then(|| {
            let key = self.requests.key_of(order.key);
            format!(
                "key {key} made {:?}, and asked again heard {} {}",
                order.order,
                reply.status,
                reply.text()
            )
        }))
    }

    pub async fn read_back(&self) -> Result<Verdict> {
        let count = self.history.orders().count();
        let step = count.div_ceil(self.read_back.max(1)).max(1);
        let chosen: Vec<Ordered> = self.history.orders().copied().step_by(step).collect();
        let read = each(self.target, CONNECTIONS, &chosen, async |client, order| {
            let token = &self.tokens[self.requests.user_of(order.key.attempt)];
            let reply = client.get(&format!("/v1/orders/{}", order.order.as_str()), Some(token)).await?;
            let same = OrderId::of(&reply.body) == Some(order.order)
                && sequence(&reply.body) == Some(order.sequence)
                && (!self.requests.pays() || ended_alike(order, &reply.body));
            Ok((reply.status != 200 || !same).then(|| {
                format!(
                    "{:?} (sequence {}, {:?}) reads {} {}",
                    order.order,
                    order.sequence,
                    order.state,
                    reply.status,
                    reply.text()
                )
            }))
        });
        let mut complaints: Vec<String> = read.await?.into_iter().flatten().collect();
        complaints.extend(self.told_otherwise());
        if self.history.unreadable > 0 {
            complaints.push(format!(
                "{} answers spoke of an order without its id, sequence or total",
                self.history.unreadable
            ));
        }
        let fine = format!("{} of {count} orders read again", chosen.len());
        Ok(Verdict::of("read back", complaints, fine))
    }

    /// Where ordering and paying is one call, a *yes* says that the order is paid, and a *no* with an order that it is not.
    fn told_otherwise(&self) -> Vec<String> {
        if !self.requests.pays() {
            return Vec::new();
        }
        let unpaid = self.history.acknowledged.iter().filter(|order| order.state != OrderState::Paid);
        let standing = self.history.declined.iter().filter(|order| order.state != OrderState::PaymentFailed);
        let unpaid = unpaid.map(|order| format!("{:?} was a yes, and {:?}", order.order, order.state));
        unpaid
            .chain(standing.map(|order| format!("{:?} was declined, and {:?}", order.order, order.state)))
            .collect()
    }
}

fn keys_to_retry(orders: &[Ordered]) -> Vec<Ordered> {
    let step = (orders.len() / RETRIED_KEYS).max(1);
    let uncertain = orders.iter().filter(|order| order.was_uncertain);
    let sample = orders.iter().step_by(step).filter(|order| !order.was_uncertain);
    uncertain.chain(sample).copied().collect()
}

/// Nothing may have changed behind its buyer's back.
fn ended_alike(order: &Ordered, body: &[u8]) -> bool {
    OrderState::of(body) == order.state && total(body) == Some(order.total)
}
