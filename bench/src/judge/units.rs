//! Units: what the shop says it has, holds and has sold, against what buyers were told is theirs.

use std::collections::{HashMap, HashSet};

use super::book::Book;
use super::{Evidence, Stock, Verdict};
use crate::answer::OrderId;
use crate::drive::grouped;

impl Evidence<'_> {
    pub fn oversell(&self, stocks: &[Stock], books: &[Option<Book>]) -> Verdict {
        let mut complaints = Vec::new();
        let mut promised = vec![0u64; self.products.len()];
        self.history.acknowledged.iter().for_each(|order| promised[order.product as usize] += self.quantity);
        let open = self.history.unresolved.len() as u64 * self.quantity;
        let (mut read, mut unexplained) = (0, None);
        for (place, product) in self.products.iter().enumerate() {
            let (stock, on_hand, promised) = (stocks[place], self.on_hand[place], promised[place]);
            let book = books[place].as_ref();
            read += usize::from(book.is_some());
            if stock.available < 0 || stock.available + stock.held + stock.sold != on_hand as i64 {
                complaints.push(format!("{product}: {stock:?} does not add up to {on_hand} units"));
            }
            complaints.extend(book.and_then(Book::first_imbalance).map(|what| format!("{product}: {what}")));
            // What is only held may lapse and find another buyer; what is paid stays sold.
            if !self.requests.pays() && book.is_some_and(Book::units_came_back) {
                continue;
            }
            let taken = (stock.held + stock.sold) as u64;
            if promised > on_hand {
                complaints.push(format!("{product}: {promised} units were promised out of {on_hand}"));
            } else if taken < promised {
                let what = format!("{product}: {promised} units were promised, {taken} are taken");
                match self.requests.pays() || book.is_some() {
                    true => complaints.push(what),
                    false => _ = unexplained.get_or_insert(what),
                }
            } else if taken > promised + open {
                complaints.push(format!("{product}: {taken} units are taken, buyers know of {promised}"));
            }
        }
        if let (Some(what), []) = (unexplained, complaints.as_slice()) {
            return Verdict::skip(
                "oversell",
                format!("{what}, and no ledger was read that would say which came back"),
            );
        }
        let units = self.history.acknowledged.len() as u64 * self.quantity;
        let stock: u64 = self.on_hand.iter().sum();
        let ledgers = match self.products.len() {
            all if read == all => "every ledger adds up".to_owned(),
            _ if read == 0 => "as many are taken; no ledger was read".to_owned(),
            all => format!("as many are taken; {read} of {all} ledgers were read and add up"),
        };
        Verdict::of("oversell", complaints, format!("{units} units promised, {stock} in stock; {ledgers}"))
    }

    pub fn undersell(&self, stocks: &[Stock], books: &[Option<Book>]) -> Verdict {
        let mut complaints = Vec::new();
        let (mut judged, mut unjudged) = (0, 0);
        for refused in self.history.refused.iter().filter(|refused| refused.sold_out) {
            let product = &self.products[refused.product as usize];
            let Some(book) = &books[refused.product as usize] else {
                unjudged += 1;
                continue;
            };
            judged += 1;
            match book.available_at(refused.sequence) {
                Some(available) if available >= self.quantity as i64 => complaints.push(format!(
                    "{product}: sold out at sequence {}, where {available} were available",
                    refused.sequence
                )),
                Some(_) => {}
                None => complaints.push(format!(
                    "{product}: sold out at sequence {}, which the ledger does not have",
                    refused.sequence
                )),
            }
        }
        // Whoever was declined comes back for what he gave back; after a hold that lapsed nobody may.
        let leaves = if self.requests.pays() { Book::holds_lapsed } else { Book::units_came_back };
        let unsold: i64 = stocks.iter().map(|stock| stock.available).sum();
        if self.demand_covers_stock && self.products.len() == 1 && unsold >= self.quantity as i64 {
            match &books[0] {
                Some(book) if leaves(book) => {}
                Some(_) => complaints.push(format!("{unsold} units are unsold, although enough buyers came")),
                None => unjudged += 1,
            }
        }
        if unjudged > 0 && complaints.is_empty() {
            let why = "the ledger cannot be read: no admin token, or too long to replay";
            return Verdict::skip("undersell", why);
        }
        let fine = match judged {
            0 => format!("nobody was told sold out, {unsold} units unsold at the end"),
            _ => format!("refusals at {judged} sequences replayed, {unsold} units unsold at the end"),
        };
        Verdict::of("undersell", complaints, fine)
    }

    /// Nobody ever had more than one customer may, as far as it is known whose an order is.
    pub fn limit(&self, limit: u64, books: &[Option<Book>]) -> Verdict {
        let told = self.history.orders().map(|order| (order.order, self.requests.user_of(order.key.attempt)));
        let buyers: HashMap<OrderId, usize> = told.collect();
        let (mut complaints, mut read) = (Vec::new(), 0);
        for (product, book) in self.products.iter().zip(books) {
            let Some(book) = book else { continue };
            read += 1;
            let beyond = book.first_beyond(limit, |order| buyers.get(&order).copied());
            complaints.extend(beyond.map(|what| format!("{product}: {what}")));
        }
        if read == 0 {
            return Verdict::skip("limit", "no ledger was read that would say who had how much");
        }
        let fine = format!("nobody had more than {limit}, after every movement of {read} ledgers");
        Verdict::of("limit", complaints, fine)
    }

    /// After a crowd that pays nothing is held any more, and what is sold is what somebody heard he has paid.
    pub fn sold_and_paid(&self, stocks: &[Stock], books: &[Option<Book>]) -> Verdict {
        let mut complaints = Vec::new();
        let open = self.history.unresolved.len() as u64 * self.quantity;
        let mut paid: Vec<HashSet<OrderId>> = vec![HashSet::new(); self.products.len()];
        for order in &self.history.acknowledged {
            paid[order.product as usize].insert(order.order);
        }
        let mut sold = 0;
        for (place, product) in self.products.iter().enumerate() {
            let (stock, paid) = (stocks[place], &paid[place]);
            let units = paid.len() as u64 * self.quantity;
            sold += stock.sold as u64;
            if stock.held as u64 > open {
                complaints.push(format!("{product}: {} units are held, and nobody is paying", stock.held));
            }
            if !(units..=units + open).contains(&(stock.sold as u64)) {
                complaints.push(format!("{product}: {} units are sold, {units} are paid", stock.sold));
            }
            let Some(book) = &books[place] else { continue };
            let confirmed = book.sold_orders();
            let unpaid = confirmed.difference(paid);
            if unpaid.clone().count() > self.history.unresolved.len() {
                complaints.extend(unpaid.map(|order| format!("{order:?} is sold, and no buyer has paid it")));
            }
            let unsold = paid.difference(&confirmed);
            complaints
                .extend(unsold.map(|order| format!("{order:?} is paid, and the ledger has not sold it")));
        }
        let stock: u64 = self.on_hand.iter().sum();
        let fine = format!("{} of {} units, each of them sold and paid", grouped(sold), grouped(stock));
        Verdict::of("sold and paid", complaints, fine)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::OrderState;
    use crate::engine::{History, Ordered};
    use crate::judge::Ruling::{self, Fail, Pass, Skip};
    use crate::wire::{Key, OrderRequests};

    /// A crowd at one product with two units. Orders are named by their letters.
    struct Scene {
        history: History,
        requests: OrderRequests,
        products: Vec<String>,
    }

    impl Scene {
        fn new(paid: &str, card: Option<&str>) -> Self {
            let products = vec!["prod_x".to_owned()];
            let mut history = History::new(1, 0);
            history.acknowledged.extend(paid.chars().map(|letter| Ordered {
                key: Key { attempt: 0, round: 0 },
                product: 0,
                sequence: 2,
                asked_ns: 1,
                answered_ns: 2,
                order: OrderId::read(&format!("order_{letter}")).unwrap(),
                state: OrderState::Paid,
                total: 100,
                was_uncertain: false,
            }));
            let requests = OrderRequests::new("h:1", &["token".to_owned()], &products, 1, card, 1);
            Self { history, requests, products }
        }

        fn evidence(&self) -> Evidence<'_> {
            Evidence {
                target: ([127, 0, 0, 1], 1).into(),
                history: &self.history,
                requests: &self.requests,
                tokens: &[],
                admin: None,
                products: &self.products,
                on_hand: &[2],
                quantity: 1,
                limit: None,
                demand_covers_stock: true,
                read_back: 0,
                provider_book: None,
            }
        }

        fn sold_and_paid(&self, stock: (i64, i64, i64), sold: &str) -> Ruling {
            let ledger = ledger(sold);
            self.evidence().sold_and_paid(&[counts(stock)], &[Some(ledger)]).ruling
        }
    }

    fn counts((available, held, sold): (i64, i64, i64)) -> Stock {
        Stock { available, held, sold, sequence: 9 }
    }

    /// Two units, each held and sold in turn.
    fn ledger(sold: &str) -> Book {
        let mut rows = vec![
            json!({ "sequence": 1, "kind": "created", "quantity": 2, "on_hand": 2, "available": 2, "held": 0, "sold": 0 }),
        ];
        for (before, letter) in sold.chars().enumerate() {
            let row = |sequence: usize, kind: &str, held: usize, sold: usize| {
                json!({ "sequence": sequence, "kind": kind, "order_id": format!("order_{letter}"), "quantity": 1,
                    "on_hand": 2, "available": 2 - held - sold, "held": held, "sold": sold })
            };
            rows.extend([
                row(2 * before + 2, "held", 1, before),
                row(2 * before + 3, "confirmed", 0, before + 1),
            ]);
        }
        Book::told(rows.into())
    }

    #[test]
    fn every_unit_is_sold_to_whoever_paid_it() {
        let scene = Scene::new("ab", Some("tok_ok"));
        assert_eq!(scene.sold_and_paid((0, 0, 2), "ab"), Pass);
        assert_eq!(scene.sold_and_paid((0, 1, 1), "a"), Fail, "b is paid and only held");
        assert_eq!(scene.sold_and_paid((0, 0, 2), "ac"), Fail, "c never paid, b is not sold");
        assert_eq!(Scene::new("a", Some("tok_ok")).sold_and_paid((0, 0, 2), "ab"), Fail, "b never paid");
        assert_eq!(
            Scene::new("a", Some("tok_ok")).sold_and_paid((0, 1, 1), "a"),
            Fail,
            "one is held for ever"
        );
    }

    #[test]
    fn whoever_left_without_knowing_may_have_bought() {
        let mut scene = Scene::new("a", Some("tok_ok"));
        scene.history.unresolved.push(7);
        assert_eq!(scene.sold_and_paid((0, 0, 2), "ab"), Pass);
        assert_eq!(scene.sold_and_paid((0, 1, 1), "a"), Pass);
    }

    #[test]
    fn a_unit_that_came_back_excuses_nobody_who_was_paid() {
        let row = |sequence: u32, kind: &str, available: u32, held: u32| {
            json!({ "sequence": sequence, "kind": kind, "order_id": "order_d", "quantity": 1,
                "on_hand": 2, "available": available, "held": held, "sold": 0 })
        };
        let came_back = |kind| {
            vec![Some(Book::told(json!([row(1, "created", 2, 0), row(2, "held", 1, 1), row(3, kind, 2, 0)])))]
        };
        let oversell = |card| {
            let scene = Scene::new("abc", card);
            scene.evidence().oversell(&[counts((0, 0, 2))], &came_back("released")).ruling
        };
        assert_eq!(oversell(None), Pass, "held by one after the other");
        assert_eq!(oversell(Some("tok_ok")), Fail, "three paid for two units");
        let undersell = |card, kind| {
            let scene = Scene::new("a", card);
            scene.evidence().undersell(&[counts((1, 0, 1))], &came_back(kind)).ruling
        };
        assert_eq!(undersell(Some("tok_ok"), "released"), Fail, "whoever was declined comes back");
        assert_eq!(undersell(Some("tok_ok"), "expired"), Pass);
        assert_eq!(undersell(None, "released"), Pass);
    }

    #[test]
    fn a_hold_that_ends_twice_is_found_though_every_sum_is_right() {
        let row = |sequence: u32, kind: &str, order: &str, available: u32| {
            json!({ "sequence": sequence, "kind": kind, "order_id": order, "quantity": 1,
                "on_hand": 2, "available": available, "held": 2 - available, "sold": 0 })
        };
        let oversell = |last: &str| {
            let rows = json!([
                row(1, "created", "order_d", 2),
                row(2, "held", "order_d", 1),
                row(3, "held", "order_e", 0),
                row(4, "expired", "order_d", 1),
                row(5, "expired", last, 2)
            ]);
            let (scene, books) = (Scene::new("", None), [Some(Book::told(rows))]);
            scene.evidence().oversell(&[counts((2, 0, 0))], &books).ruling
        };
        assert_eq!(oversell("order_e"), Pass);
        assert_eq!(oversell("order_d"), Fail, "and e is held for ever");
    }

    #[test]
    fn whoever_has_more_than_a_customer_may_is_found() {
        // Both are the only buyer's.
        let scene = Scene::new("ab", Some("tok_ok"));
        let limit = |limit, books: &[Option<Book>]| scene.evidence().limit(limit, books).ruling;
        assert_eq!(limit(2, &[Some(ledger("ab"))]), Pass);
        assert_eq!(limit(1, &[Some(ledger("ab"))]), Fail);
        assert_eq!(limit(1, &[Some(ledger("ac"))]), Pass, "nobody knows whose c is");
        assert_eq!(limit(1, &[None]), Skip);
    }

    #[test]
    fn a_ledger_that_nobody_has_read_adds_up_for_nobody() {
        let oversell = |card, stock, books: &[Option<Book>]| {
            let verdict = Scene::new("ab", card).evidence().oversell(&[counts(stock)], books);
            (verdict.ruling, verdict.detail)
        };
        let (ruling, said) = oversell(None, (0, 2, 0), &[None]);
        assert!(ruling == Pass && said.ends_with("no ledger was read"), "{said}");
        let (ruling, said) = oversell(None, (0, 2, 0), &[Some(ledger(""))]);
        assert!(ruling == Pass && said.ends_with("every ledger adds up"), "{said}");
        assert_eq!(oversell(None, (1, 1, 0), &[None]).0, Skip, "one may have lapsed");
        assert_eq!(oversell(None, (1, 1, 0), &[Some(ledger(""))]).0, Fail, "none has");
        assert_eq!(oversell(Some("tok_ok"), (1, 0, 1), &[None]).0, Fail, "what is paid stays sold");
        assert_eq!(oversell(None, (0, 1, 0), &[None]).0, Fail, "one is nowhere");
        let undersell = |stock| Scene::new("ab", None).evidence().undersell(&[counts(stock)], &[None]).ruling;
        assert_eq!(undersell((0, 2, 0)), Pass);
        assert_eq!(undersell((1, 1, 0)), Skip, "it may have come back when all had gone");
    }

    #[test]
    fn ledgers_are_read_as_far_as_there_is_room() {
        let mut scene = Scene::new("a", None);
        scene.products = ["prod_x", "prod_y", "prod_z"].map(str::to_owned).to_vec();
        let long = |sequences: [u64; 3]| sequences.map(|sequence| Stock { sequence, ..Stock::default() });
        let chosen = |scene: &Scene, sequences| scene.evidence().ledgers_to_read(&long(sequences));
        assert_eq!(chosen(&scene, [9, 9, 9]), [true; 3], "nobody was refused");
        assert_eq!(chosen(&scene, [150_000, 150_000, 9]), [true, false, true]);
        scene.history = History::new(3, 0);
        scene.history.refuse(1, 7, true, 1, 2);
        assert_eq!(chosen(&scene, [9, 1_500_000, 150_000]), [true, true, true]);
        assert_eq!(chosen(&scene, [9, 2_500_000, 9]), [false; 3]);
    }
}
