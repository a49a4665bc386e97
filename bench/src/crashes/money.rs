//! What those who paid were told, against the provider's own book. It stands for somebody else's and outlives every crash, so after
//! each of them, once what is to be undone has been, it says of every order what its buyer heard: paid, and charged once; or not
//! paid, and nothing kept.

use std::collections::HashMap;

use serde_json::Value;

use crate::answer::OrderId;
use crate::judge::Statement;

/// What the provider keeps of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Minor units.
    money: u64,
    /// Payments that took some and have not given all of it back.
    charges: u64,
}

pub fn is_paid(order: &Value) -> bool {
    order["status"] == "paid"
}

/// Its buyer's card was no good, and its units are on sale again.
pub fn is_declined(order: &Value) -> bool {
    order["status"] == "payment_failed"
}

/// The first thing that is not so. `orders`: all that any buyer knows of.
pub fn first_error<'o>(book: &Statement, orders: impl Iterator<Item = &'o Value>) -> Option<String> {
    let mut kept: HashMap<OrderId, Kept> = HashMap::new();
    for charge in book.charges().filter(|charge| charge.captured() > charge.refunded) {
        let of_order = kept.entry(charge.order).or_default();
        of_order.money += charge.captured() - charge.refunded;
        of_order.charges += 1;
    }
    for order in orders {
        let Some(id) = order["id"].as_str().and_then(OrderId::read) else {
            return Some(format!("an order without an id: {order}"));
        };
        let expected = if is_paid(order) {
            Kept { money: order["total"]["amount"].as_u64().unwrap_or_default(), charges: 1 }
        } else {
            Kept::default()
        };
        let kept = kept.remove(&id).unwrap_or_default();
        if kept != expected {
            let Kept { money, charges } = kept;
            let status = &order["status"];
            return Some(format!(
                "{id:?} is {status}, {expected:?}, and the provider keeps {money} of {charges} payments"
            ));
        }
    }
    let stranger = kept.into_iter().next();
    stranger.map(|(id, kept)| format!("the provider keeps {} for {id:?}, of which nobody knows", kept.money))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn book(lines: &[&str]) -> Statement {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("stockade simulated provider 1\n{}\n", lines.join("\n"));
        std::fs::write(file.path(), text).unwrap();
        Statement::read(file.path()).unwrap()
    }

    #[test]
    fn who_paid_is_charged_once_and_nobody_else_is() {
        let order = |id: &str, status: &str| json!({ "id": id, "status": status, "total": { "amount": 100, "currency": "KRW" } });
        let told = [
            order("order_a", "paid"),
            order("order_b", "payment_failed"),
            order("order_c", "pending_payment"),
        ];
        let error = |lines: &[&str]| first_error(&book(lines), told.iter());
        let paid = "charge pay_a order_a 100 KRW 100 KRW captured 0";
        let declined = "charge pay_b order_b 100 KRW 100 KRW card_declined 0";
        assert_eq!(error(&[paid, declined]), None);
        let given_back =
            [paid, "charge pay_c order_c 100 KRW 100 KRW captured 0", "refund ref_c pay_c 100 KRW 0 done"];
        assert_eq!(error(&given_back), None);
        for wrong in [
            &[declined][..],
            &[paid, "charge pay_d order_a 100 KRW 100 KRW captured 0"],
            &["charge pay_a order_a 100 KRW 99 KRW captured 0"],
            &[paid, "charge pay_b order_b 100 KRW 100 KRW captured 0"],
            &[paid, "charge pay_c order_c 100 KRW 100 KRW captured 0"],
            &[paid, "charge pay_d order_d 100 KRW 100 KRW captured 0"],
        ] {
            assert!(error(wrong).is_some(), "{wrong:?}");
        }
    }
}
