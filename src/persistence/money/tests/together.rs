//! Groups of writes that look like chance, written together and one by one.

use super::*;

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
        match self.below(12) {
            0..3 => begin(number, of),
            3..6 => {
                let to = PaymentState::ALL[self.below(8) as usize];
                let captured = Some(1_000).filter(|_| to == PaymentState::Captured);
                let step =
                    Move { captured: captured.map(won), give_back: self.below(2) == 0, ..Move::to(to) };
                Write::Move { payment: id, version, step, due_at }
            }
            6 => Write::Rest { payment: id, version, due_at },
            7 => Write::Claim { payment: id, version, until: T0.plus(50) },
            8 => Write::Refund(Box::new(refund), Vec::new()),
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
            _ => hint(&format!("evt_{}", self.below(40)), number),
        }
    }
}

#[tokio::test]
async fn a_group_is_as_if_each_had_been_alone() {
    for seed in 1..=12 {
        let (together, alone) = (Shop::open().await, Shop::open().await);
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
            (payments, refunds, shop.book.payments().waiting(T0).await.unwrap())
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
