//! Groups of writes that look like chance, written together and one by one.

use super::*;
use crate::domain::amount::Quantity;
use crate::domain::delivery::{Reason, ReturnWindow, SoldLine};

/// Two lines.
fn sold() -> Vec<SoldLine> {
    let line = |line: u8| SoldLine {
        line,
        product: product(u128::from(line)),
        quantity: Quantity::of_line(1).unwrap(),
        amount: won(400),
    };
    vec![line(1), line(2)]
}

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn write(&mut self) -> Write {
        let (number, of) = (u128::from(self.below(5)) + 1, self.below(3) as u8 + 1);
        let (version, refund_version) = (self.below(5) + 1, self.below(3) + 1);
        let id = payment(number, of).id;
        let causes = [Cause::Late, Cause::OrderCancelled, Cause::Line(1), Cause::Clerk([1; 16])];
        let cause = causes[self.below(4) as usize];
        let due_at = Some(T0.plus(self.below(100) as i64)).filter(|at| at.0 % 3 > 0);
        let refund = refund(number, cause, self.below(700) as i64);
        let line = self.below(3) as u8 + 1;
        match self.below(18) {
            0..3 => begin(number, of),
            3..6 => {
                let to = PaymentState::ALL[self.below(8) as usize];
                let captured = Some(1_000).filter(|_| to == PaymentState::Captured);
                let step = Move {
                    captured: captured.map(won),
                    give_back: self.below(2) == 0,
                    sold: sold(),
                    ..Move::to(to)
                };
                Write::Move { payment: id, version, step, due_at }
            }
            6 => Write::Rest { payment: id, version, due_at },
            7 => Write::Claim { payment: id, version, until: T0.plus(50) },
            8 => Write::Refund(Box::new(refund), sold()),
            9 => {
                let to = RefundState::ALL[self.below(3) as usize];
                let provider_ref = None;
                Write::MoveRefund {
                    refund: refund.id,
                    version: refund_version,
                    to,
                    provider_ref,
                    reason: None,
                    due_at,
                }
            }
            10 => Write::ClaimRefund { refund: refund.id, version: refund_version, until: T0.plus(60) },
            11..13 => {
                let line = Some(line).filter(|line| *line < 3);
                let (key, due_at) = (Some([number as u8; 16]), T0.plus(70));
                Write::Cancel(Box::new(Cancel { payment: id, line, sold: sold(), key, due_at }))
            }
            13..15 => {
                let (version, scheduled) = (self.below(4) + 1, T0.plus(self.below(4) as i64 * 10));
                let order = the_order(number);
                Write::Deliver(Deliver { order, line, payment: Some(id), version, scheduled })
            }
            15..17 => {
                let key = Some(KeyUse { key: [self.below(9) as u8; 16], body: 7 });
                let (window, reason) = (ReturnWindow { ms: 100 }, Some(Reason::Sealed(vec![7; 70])));
                let order = the_order(number);
                Write::RequestReturn(Box::new(RequestReturn { order, line, window, reason, key }))
            }
            _ => hint(&format!("evt_{}", self.below(40)), number),
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_group_is_as_if_each_had_been_alone(#[values(Sqlite, MySql)] home: Home) {
    for seed in 1..=12 {
        let (together, alone) = (Shop::open(home).await, Shop::open(home).await);
        let mut chance = Chance(seed);
        for _ in 0..12 {
            let writes: Vec<Write> = (0..chance.below(40)).map(|_| chance.write()).collect();
            let answers = together.write(&writes).await;
            for (write, answer) in writes.iter().zip(answers) {
                assert_eq!(
                    alone.write(std::slice::from_ref(write)).await,
                    [answer],
                    "seed {seed}: {write:?}"
                );
            }
        }
        let rows = async |shop: &Shop| {
            let payments: Vec<Payment> = shop.book.payments().all().try_collect().await.unwrap();
            let refunds: Vec<Refund> = shop.book.refunds().all().try_collect().await.unwrap();
            let deliveries: Vec<Delivery> = shop.book.deliveries().by_order().try_collect().await.unwrap();
            (payments, refunds, shop.book.payments().waiting(T0).await.unwrap(), deliveries)
        };
        let found = rows(&together).await;
        assert_eq!(found, rows(&alone).await, "seed {seed}");
        for payment in &found.0 {
            let given = found.1.iter().filter(|refund| refund.payment == payment.id);
            assert_eq!(given.map(|refund| refund.amount.amount).sum::<i64>(), payment.refunded);
        }
        // The rows are what the writer remembers of them.
        for known in together.book.known().values() {
            assert!(found.0.contains(known), "seed {seed}: {known:?}");
        }
    }
}
