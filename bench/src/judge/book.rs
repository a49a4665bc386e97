//! A product's ledger, read page by page from the shop and replayed here: what was available after every movement,
//! whether the books ever failed to balance, how each order went, and how much each buyer had.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::answer::OrderId;
use crate::client::Client;

/// The movements of one product, by sequence, without gaps.
pub struct Book {
    movements: Vec<Movement>,
}

#[derive(Deserialize)]
struct Movement {
    sequence: u64,
    kind: String,
    #[serde(default, deserialize_with = "order_id")]
    order_id: Option<OrderId>,
    #[serde(default)]
    quantity: Option<i64>,
    on_hand: i64,
    available: i64,
    held: i64,
    sold: i64,
}

/// How an order stands.
#[derive(Clone, Copy)]
enum Hold {
    Held(i64),
    Sold(i64),
    Over,
}

fn order_id<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OrderId>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    let read =
        |text: String| OrderId::read(&text).ok_or_else(|| D::Error::custom(format!("no order id: {text}")));
    text.map(read).transpose()
}

impl Book {
    pub async fn read(client: &mut Client, product: &str, admin: &str) -> Result<Self> {
        let mut movements: Vec<Movement> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let more = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let path = format!("/v1/admin/products/{product}/ledger?from=1&limit=100{more}");
            let mut page = client.get_json(&path, Some(admin)).await?;
            let rows: Vec<Movement> =
                serde_json::from_value(page["data"].take()).with_context(|| path.clone())?;
            ensure!(
                !rows.is_empty() || page["next_cursor"].is_null(),
                "{path}: an empty page with a next one"
            );
            movements.extend(rows);
            match &page["next_cursor"] {
                Value::String(next) => cursor = Some(next.clone()),
                _ => break,
            }
        }
        movements.sort_by_key(|movement| movement.sequence);
        Ok(Self { movements })
    }

    #[cfg(test)]
    pub fn told(rows: Value) -> Self {
        Self { movements: serde_json::from_value(rows).unwrap() }
    }

    /// What was available once the movement `sequence` had happened; nothing if the ledger does not have it.
    pub fn available_at(&self, sequence: u64) -> Option<i64> {
        match self.movements.partition_point(|movement| movement.sequence <= sequence).checked_sub(1) {
            Some(place) => {
                (self.movements[place].sequence == sequence).then(|| self.movements[place].available)
            }
            None => (sequence == 0).then_some(0),
        }
    }

    /// The first movement after which the counters do not add up, fall below zero, or leave a gap, and otherwise the first that its
    /// order cannot have made.
    pub fn first_imbalance(&self) -> Option<String> {
        let mut before: Option<&Movement> = None;
        for now in &self.movements {
            let at = now.sequence;
            if now.on_hand != now.available + now.held + now.sold
                || now.available < 0
                || now.held < 0
                || now.sold < 0
            {
                return Some(format!(
                    "after sequence {at}: {} on hand, {} available, {} held, {} sold",
                    now.on_hand, now.available, now.held, now.sold
                ));
            }
            if let Some(before) = before {
                if at > before.sequence + 1 {
                    return Some(format!("sequence {at} follows {}", before.sequence));
                }
                let taken = before.available - now.available;
                if now.kind == "held" && now.quantity.is_some_and(|quantity| quantity != taken) {
                    return Some(format!("sequence {at} held {:?} units and took {taken}", now.quantity));
                }
            }
            before = Some(now);
        }
        self.first_stray()
    }

    /// An order is held once and ends once, with all that it held; of what is sold no more comes back than there is.
    fn first_stray(&self) -> Option<String> {
        let mut holds: HashMap<OrderId, Hold> = HashMap::new();
        for now in &self.movements {
            let (Some(order), Some(quantity)) = (now.order_id, now.quantity) else { continue };
            let after = match (now.kind.as_str(), holds.get(&order)) {
                ("held", None) => Hold::Held(quantity),
                ("confirmed", Some(Hold::Held(held))) if *held == quantity => Hold::Sold(quantity),
                ("released" | "expired", Some(Hold::Held(held))) if *held == quantity => Hold::Over,
                ("returned", Some(Hold::Sold(sold))) if *sold > quantity => Hold::Sold(sold - quantity),
                ("returned", Some(Hold::Sold(sold))) if *sold == quantity => Hold::Over,
                ("held" | "confirmed" | "released" | "expired" | "returned", _) => {
                    return Some(format!(
                        "at sequence {} {quantity} units of {order:?} are {}, which it did not stand for",
                        now.sequence, now.kind
                    ));
                }
                _ => continue,
            };
            holds.insert(order, after);
        }
        None
    }

    /// The first movement after which somebody has more than `limit` units. `buyer_of` says whose an order is; one that nobody was told
    /// of is counted for nobody.
    pub fn first_beyond(&self, limit: u64, buyer_of: impl Fn(OrderId) -> Option<usize>) -> Option<String> {
        let mut all: HashMap<usize, i64> = HashMap::new();
        for now in &self.movements {
            let (Some(order), Some(quantity)) = (now.order_id, now.quantity) else { continue };
            let change = match now.kind.as_str() {
                "held" => quantity,
                "released" | "expired" | "returned" => -quantity,
                _ => continue,
            };
            let Some(buyer) = buyer_of(order) else { continue };
            let has = all.entry(buyer).or_default();
            *has += change;
            if *has > limit as i64 {
                return Some(format!(
                    "after sequence {} buyer {buyer} has {has} units, and {limit} are the limit",
                    now.sequence
                ));
            }
        }
        None
    }

    /// Some hold ended without a sale, so one unit may have been promised to several buyers, one after the other.
    pub fn units_came_back(&self) -> bool {
        self.movements
            .windows(2)
            .any(|pair| pair[1].available > pair[0].available && pair[1].on_hand == pair[0].on_hand)
    }

    /// Somebody held a unit until the time for it was over.
    pub fn holds_lapsed(&self) -> bool {
        self.movements.iter().any(|movement| movement.kind == "expired")
    }

    /// Every order that a unit was ever held for.
    pub fn orders(&self) -> HashSet<OrderId> {
        self.of_kind("held").collect()
    }

    /// Every order that is sold and has not come back.
    pub fn sold_orders(&self) -> HashSet<OrderId> {
        let returned: HashSet<OrderId> = self.of_kind("returned").collect();
        self.of_kind("confirmed").filter(|order| !returned.contains(order)).collect()
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = OrderId> {
        let movements = self.movements.iter().filter(move |movement| movement.kind == kind);
        movements.filter_map(|movement| movement.order_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movement(sequence: u64, kind: &str, quantity: i64, available: i64, held: i64) -> Movement {
        let order_id = OrderId::read("order_x");
        Movement {
            sequence,
            kind: kind.into(),
            order_id,
            quantity: Some(quantity),
            on_hand: 3,
            available,
            held,
            sold: 0,
        }
    }

    #[test]
    fn a_ledger_tells_what_was_available_at_any_sequence() {
        let book = Book {
            movements: vec![
                movement(1, "restocked", 3, 3, 0),
                movement(2, "held", 2, 1, 2),
                movement(3, "expired", 2, 3, 0),
            ],
        };
        assert_eq!(
            (0..5).map(|s| book.available_at(s)).collect::<Vec<_>>(),
            [Some(0), Some(3), Some(1), Some(3), None]
        );
        assert_eq!(book.first_imbalance(), None);
        assert!(book.units_came_back());
        assert_eq!(book.orders().len(), 1);
    }

    #[test]
    fn an_order_ends_once_with_what_it_held() {
        let stray = |end: &str, quantity, again: &[Movement]| {
            let mut movements = vec![movement(1, "restocked", 3, 3, 0), movement(2, "held", 2, 1, 2)];
            movements.push(movement(3, end, quantity, 3, 0));
            movements.extend(again.iter().map(|row| movement(row.sequence, &row.kind, 2, 3, 0)));
            Book { movements }.first_stray()
        };
        for end in ["released", "expired", "confirmed"] {
            assert_eq!(stray(end, 2, &[]), None);
            assert!(stray(end, 1, &[]).is_some(), "{end} with another quantity");
            assert!(stray(end, 2, &[movement(4, "expired", 2, 3, 0)]).is_some(), "{end}, and then expired");
            assert!(stray(end, 2, &[movement(4, "held", 2, 3, 0)]).is_some(), "{end}, and then held again");
        }
        let back = || movement(4, "returned", 2, 3, 0);
        assert_eq!(stray("confirmed", 2, &[back()]), None);
        assert!(stray("confirmed", 2, &[back(), movement(5, "returned", 2, 3, 0)]).is_some());
        assert!(stray("expired", 2, &[back()]).is_some(), "it was never sold");
    }

    #[test]
    fn a_buyer_has_what_he_holds_and_has_bought_and_nothing_that_came_back() {
        let of = |order: &str, sequence: u64, kind: &str| Movement {
            order_id: OrderId::read(order),
            ..movement(sequence, kind, 1, 0, 0)
        };
        let a = OrderId::read("order_a");
        let beyond = |between: &str, owners: [Option<usize>; 2]| {
            let movements =
                vec![of("order_a", 1, "held"), of("order_a", 2, between), of("order_b", 3, "held")];
            Book { movements }.first_beyond(1, |order| owners[usize::from(Some(order) != a)])
        };
        assert!(beyond("confirmed", [Some(7), Some(7)]).is_some());
        assert_eq!(beyond("expired", [Some(7), Some(7)]), None);
        assert_eq!(beyond("confirmed", [Some(7), Some(8)]), None);
        assert_eq!(beyond("confirmed", [Some(7), None]), None, "nobody was told of the second");
    }

    #[test]
    fn a_gap_and_a_unit_out_of_nowhere_are_found() {
        let gap = Book { movements: vec![movement(1, "restocked", 3, 3, 0), movement(3, "held", 1, 2, 1)] };
        assert!(gap.first_imbalance().is_some());
        let lost = Book { movements: vec![movement(1, "restocked", 3, 3, 0), movement(2, "held", 1, 1, 2)] };
        assert!(lost.first_imbalance().is_some());
    }
}
