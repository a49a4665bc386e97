//! Words to pay with, and an auditor who knows nothing of the shop but what it says: orders by the door, money by the provider.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::id::{OrderId, RefundId};
use stockade::domain::payment::{Cause, Payment, PaymentState, Refund};
use stockade::domain::user::Role;
use stockade::persistence::audit::audit;
use stockade::provider::{KnownCharge, RefundAsk, Signatures};

use super::{Ask, Shop, id, one_line};

/// What every test signs the provider's webhooks with.
pub const WEBHOOK_SECRET: &str = "whsec_for_tests_long_enough_to_be_one";

/// Longer than any pause before something is tried again, and than any claim.
const PAUSE_MS: i64 = 61_000;

pub fn card(token: &str) -> Value {
    json!({ "method": { "type": "card", "token": token } })
}

/// An order of one line that is paid in the same call.
pub fn paid_with(product: &str, quantity: u32, token: &str) -> Value {
    let mut body = one_line(product, quantity);
    body["payment"] = card(token);
    body
}

/// A webhook about this payment and its signature of this moment.
pub fn signed_event(event: &str, kind: &str, payment: &str, clock: &Clock) -> (String, String) {
    let object = json!({ "id": "sim_1", "metadata": { "stockade_payment": payment } });
    signed(event, kind, &object, clock)
}

/// The same about whatever else.
pub fn signed(event: &str, kind: &str, object: &Value, clock: &Clock) -> (String, String) {
    let body = json!({ "id": event, "type": kind, "data": { "object": object } }).to_string();
    let secret = SecretString::from(WEBHOOK_SECRET);
    let signature = Signatures::new(&secret).sign(body.as_bytes(), clock.now());
    (body, signature)
}

impl Shop {
    /// Orders one line and pays it in the same call.
    pub fn buy(&self, who: u64, product: &str, quantity: u32, token: &str) -> Ask {
        self.by(who, "POST", "/v1/orders").json(&paid_with(product, quantity, token))
    }

    pub fn pay(&self, who: u64, order: &str, token: &str) -> Ask {
        self.by(who, "POST", &format!("/v1/orders/{order}/payment")).json(&card(token))
    }

    /// All that was paid for an order goes back at the provider's own desk, and the shop does not know.
    pub async fn refund_at_the_desk(&self, order: &str) -> Payment {
        let payments = self.app().payments();
        let paid = payments.paid(order.parse().unwrap()).await.unwrap().unwrap();
        let theirs = RefundAsk {
            refund: RefundId::of(paid.id, Cause::Clerk([7; 16])),
            payment: paid.id,
            order: paid.order,
            provider_ref: paid.provider_ref.as_deref().unwrap(),
            amount: paid.amount,
            started_at: paid.created_at,
            again: false,
            made_anew: 0,
        };
        payments.provider().refund(&theirs).await.unwrap();
        paid
    }

    pub async fn order_of(&self, who: u64, order: &str) -> Value {
        self.by(who, "GET", &format!("/v1/orders/{order}")).send().await.ok(200)
    }

    pub async fn hear(&self, body: &str, signature: &str) -> super::Reply {
        let ask = self.ask("POST", "/v1/payments/webhook").header("Stripe-Signature", signature);
        ask.body(body.to_owned()).send().await
    }

    /// What is due is taken up now, and walked as far as it goes.
    pub async fn take_up(&self) {
        let payments = self.app().payments();
        payments.look().await.unwrap();
        payments.at_rest().await;
    }

    /// The rows of all payments and refunds.
    pub async fn money(&self) -> (Vec<Payment>, Vec<Refund>) {
        let rows = self.app().payments().rows();
        let (payments, refunds) = (rows.payments(), rows.refunds());
        (payments.all().try_collect().await.unwrap(), refunds.all().try_collect().await.unwrap())
    }

    pub fn charges(&self) -> Vec<KnownCharge> {
        self.app().payments().provider().simulated().unwrap().charges()
    }

    /// What a crowd orders that pays in the same call, once all of it is paid: the orders, from the first buyer on.
    pub async fn all_paid(&self, asks: impl Iterator<Item = Ask>) -> Vec<String> {
        let placed = join_all(asks.map(Ask::send)).await;
        self.settle().await;
        let mut paid = Vec::new();
        for (who, reply) in (1..).zip(&placed) {
            // In a crowd it may take so long that somebody hears only that his payment is on its way.
            assert!([201, 202].contains(&reply.status.as_u16()), "{reply:?}");
            let order = id(&reply.json());
            assert_eq!(self.order_of(who, &order).await["status"], "paid");
            paid.push(order);
        }
        paid
    }

    /// Lets time pass until nothing waits any more.
    pub async fn settle(&self) {
        for _ in 0..40 {
            self.take_up().await;
            let (payments, refunds) = self.money().await;
            if payments.iter().all(|payment| payment.due_at.is_none())
                && refunds.iter().all(|refund| refund.due_at.is_none())
            {
                return;
            }
            self.clock.advance(PAUSE_MS);
        }
        let (payments, refunds) = self.money().await;
        panic!("something waits for ever: {payments:#?} {refunds:#?}");
    }

    /// Stops when nothing waits any more; the audit finds nothing wrong.
    pub async fn audited(self) {
        self.settle().await;
        let folder = self.stop().await;
        let report = audit(folder.path()).await.unwrap();
        assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);
    }

    /// Waits until nothing of a product is held any more.
    pub async fn until_nothing_is_held(&self, product: &str) {
        let mut heard = String::new();
        while !heard.contains(r#""held":0,"#) {
            let mut events = self.listen(product, None).await;
            // Its owner sleeps by another clock than ours: a question wakes it.
            self.admin("POST", &format!("/v1/admin/products/{product}/resume")).send().await.ok(200);
            // A stream ends when the owner rests: then it is listened to anew.
            while !heard.contains(r#""held":0,"#)
                && let Ok(Some(piece)) = events.chunk().await
            {
                heard += std::str::from_utf8(&piece).unwrap();
            }
        }
    }

    /// Nothing waits, stock adds up, and money is where the units are: what the provider has taken and not given back is the price
    /// of what is sold, order by order. `products` are all there are, with their stock.
    pub async fn assert_settled(&self, products: &[(&str, u64)]) {
        let (payments, refunds) = self.money().await;
        for payment in &payments {
            let ended = !payment.state.is_open() && payment.state != PaymentState::Review;
            assert!(ended && payment.due_at.is_none() && payment.method.is_none(), "{payment:#?}");
            assert!((0..=payment.captured).contains(&payment.refunded), "{payment:#?}");
        }
        assert!(refunds.iter().all(|refund| refund.due_at.is_none()), "{refunds:#?}");

        let mut kept: BTreeMap<OrderId, i64> = BTreeMap::new();
        for charge in self.charges() {
            *kept.entry(charge.order).or_default() += charge.captured - charge.refunded;
            let row =
                payments.iter().find(|payment| payment.id == charge.payment).expect("a charge without a row");
            assert_eq!(
                (row.captured, row.refunded),
                (charge.captured, charge.refunded),
                "{row:#?} {charge:?}"
            );
        }
        // A list waits for the tables to catch up; then they show how every order ended.
        self.by(1, "GET", "/v1/orders").send().await.ok(200);
        let mut sold: BTreeMap<&str, u64> = BTreeMap::new();
        let by_order: BTreeMap<OrderId, &Payment> =
            payments.iter().map(|payment| (payment.order, payment)).collect();
        for payment in by_order.values() {
            let token = self.app().tokens().sign(
                payment.buyer,
                Role::Shopper,
                900,
                self.clock.now(),
                self.clock.chance(),
            );
            let order = self
                .get(&format!("/v1/orders/{}", payment.order))
                .bearer(&token.unwrap())
                .send()
                .await
                .ok(200);
            let mut worth = 0;
            for line in order["lines"].as_array().unwrap() {
                assert_ne!(line["status"], "held", "{order}");
                if line["status"] == "ordered" || line["status"] == "return_requested" {
                    let quantity = line["quantity"].as_u64().unwrap();
                    worth += line["unit_price"]["amount"].as_i64().unwrap() * quantity as i64;
                    let known = products.iter().find(|(id, _)| line["product_id"] == **id).unwrap();
                    *sold.entry(known.0).or_default() += quantity;
                }
            }
            assert_eq!(order["status"] == "paid", worth > 0, "{order}");
            if worth > 0 {
                assert_eq!(order["total"]["amount"], worth, "{order}");
            }
            assert_eq!(kept.get(&payment.order).copied().unwrap_or_default(), worth, "{order}");
        }
        for (product, stock) in products {
            let [available, held, units, _] = self.counters(product).await;
            let expected = sold.get(product).copied().unwrap_or_default();
            assert_eq!((available, held, units), (stock - expected, 0, expected), "{product}");
        }
    }
}
