//! An order as its buyer sees it, and what must be true of that: its moves are legal, and it adds up.

use std::fmt;

use serde_json::Value;
use stockade::domain::order::{LineStatus, OrderStatus};

/// What each unit costs.
pub const PRICE: i64 = 1_000;

/// A line as its buyer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSeen {
    pub status: LineStatus,
    pub delivery: String,
    pub quantity: u64,
    pub product: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub status: OrderStatus,
    pub lines: Vec<LineSeen>,
    pub total: i64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.status.as_str(), self.total)?;
        self.lines.iter().try_for_each(|line| write!(f, " {}/{}", line.status.as_str(), line.delivery))
    }
}

impl LineSeen {
    fn counts(&self) -> bool {
        matches!(self.status, LineStatus::Held | LineStatus::Ordered | LineStatus::ReturnRequested)
    }

    pub fn is_sold(&self) -> bool {
        matches!(self.status, LineStatus::Ordered | LineStatus::ReturnRequested)
    }

    pub fn came_back(&self) -> bool {
        matches!(self.status, LineStatus::Cancelled | LineStatus::Returned)
    }
}

impl Seen {
    pub fn of(order: &Value) -> Seen {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let line = |line: &Value| LineSeen {
            status: LineStatus::from_word(line["status"].as_str().unwrap()).unwrap(),
            delivery: word(&line["delivery_status"]),
            quantity: line["quantity"].as_u64().unwrap(),
            product: word(&line["product_id"]),
        };
        Seen {
            status: OrderStatus::from_word(order["status"].as_str().unwrap()).unwrap(),
            lines: order["lines"].as_array().unwrap().iter().map(line).collect(),
            total: order["total"]["amount"].as_i64().unwrap(),
        }
    }

    pub fn was_sold(&self) -> bool {
        self.lines.iter().any(|line| line.is_sold() || line.came_back())
    }

    /// What it must show by what it shows of its lines.
    pub fn adds_up(&self) {
        let worth = |line: &LineSeen| PRICE * line.quantity as i64;
        let counted: i64 = if self.was_sold() {
            self.lines.iter().filter(|line| line.counts()).map(worth).sum()
        } else {
            self.lines.iter().map(worth).sum()
        };
        assert_eq!(self.total, counted, "{self}");
        if self.was_sold() {
            let ended = OrderStatus::of_ended(self.lines.iter().map(|line| line.status));
            assert_eq!(self.status, ended.unwrap_or(OrderStatus::Paid), "{self}");
        }
        for line in &self.lines {
            let fits = match line.status {
                LineStatus::Held | LineStatus::Released | LineStatus::Cancelled => line.delivery == "-",
                LineStatus::Ordered => {
                    ["preparing", "shipping", "delivered"].contains(&line.delivery.as_str())
                }
                LineStatus::ReturnRequested | LineStatus::Returned => line.delivery == "delivered",
            };
            assert!(fits, "{self}");
        }
    }

    /// Every move from `before` to this is legal, or several legal ones in a row.
    pub fn follows(&self, before: &Seen) {
        let order = |from: OrderStatus, to: OrderStatus| from.moved_to(to).is_ok();
        assert!(reaches(OrderStatus::ALL, before.status, self.status, order), "{before} -> {self}");
        for (from, to) in before.lines.iter().zip(&self.lines) {
            let line = |from: LineStatus, to: LineStatus| from.moved_to(to).is_ok();
            assert!(reaches(LineStatus::ALL, from.status, to.status, line), "{before} -> {self}");
            let rank = |delivery: &str| {
                ["-", "preparing", "shipping", "delivered"].iter().position(|w| *w == delivery)
            };
            let forward = rank(&from.delivery) <= rank(&to.delivery);
            let off = from.delivery == "preparing" && to.status == LineStatus::Cancelled;
            assert!(forward || off, "{before} -> {self}");
        }
    }
}

/// Whether some legal moves lead from one to the other.
fn reaches<T: Copy + PartialEq>(all: &[T], from: T, to: T, is_legal: impl Fn(T, T) -> bool) -> bool {
    let mut reached = vec![from];
    let mut at = 0;
    while let Some(here) = reached.get(at).copied() {
        let next: Vec<T> =
            all.iter().copied().filter(|to| is_legal(here, *to) && !reached.contains(to)).collect();
        reached.extend(next);
        at += 1;
    }
    reached.contains(&to)
}
