//! What a buyer may ask for: lines of products and quantities, and what he expects to pay.
//!
//! Parsed once, here; behind this a quantity is 1 to 1,000, a product stands in one line, and there are 1 to 50 lines.

use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::actors::order::Item;
use crate::domain::amount::{LINE_QUANTITY_MAX, Money, Quantity};
use crate::domain::cart::LINES_MAX;
use crate::domain::id::ProductId;
use crate::domain::user::Address;
use crate::http::body::Named;
use crate::http::idempotency::Fingerprint;
use crate::http::payment::PayRequest;
use crate::http::problem::{Code, Fact, Problem};
use crate::http::shapes::{AddressSchema, MoneySchema};

/// An order to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    #[schema(min_items = 1, max_items = 50)]
    pub items: Vec<ItemRequest>,
    /// What the whole order is expected to cost; if it costs something else it is refused.
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    pub expected_total: Option<Money>,
    /// Where this order goes, if not to the address of the account.
    #[serde(default)]
    #[schema(value_type = Option<AddressSchema>)]
    pub address: Option<Box<Address>>,
    /// Pays at once. Without it the order is held, to be paid before the hold lapses.
    #[serde(default)]
    pub payment: Option<PayRequest>,
}

/// An order to be looked at without placing it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    #[schema(min_items = 1, max_items = 50)]
    pub items: Vec<ItemRequest>,
    /// Where it would go, if not to the address of the account.
    #[serde(default)]
    #[schema(value_type = Option<AddressSchema>)]
    pub address: Option<Box<Address>>,
}

/// One line; each product stands in one line only.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemRequest {
    #[schema(value_type = String, example = "prod_01h455vb4pex5vsknk084sn02q")]
    pub product_id: Named<ProductId>,
    #[serde(deserialize_with = "line_quantity")]
    #[schema(value_type = u32, minimum = 1, maximum = 1000)]
    pub quantity: Quantity,
}

pub fn line_quantity<'de, D: Deserializer<'de>>(d: D) -> Result<Quantity, D::Error> {
    struct Units;

    impl Visitor<'_> for Units {
        type Value = Quantity;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "an integer from 1 to {LINE_QUANTITY_MAX}")
        }

        fn visit_u64<E: serde::de::Error>(self, units: u64) -> Result<Quantity, E> {
            let known = u32::try_from(units).ok().and_then(Quantity::of_line);
            known.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(units), &self))
        }
    }

    d.deserialize_u64(Units)
}

/// The lines as the engine takes them.
pub fn items(asked: &[ItemRequest]) -> Result<Vec<Item>, Problem> {
    if asked.is_empty() || asked.len() > LINES_MAX {
        let told = format!("an order has 1 to {LINES_MAX} lines, this has {}", asked.len());
        return Err(Problem::field("/items", told).number("limit", LINES_MAX as u64));
    }
    let mut items: Vec<Item> = Vec::with_capacity(asked.len());
    for (at, line) in asked.iter().enumerate() {
        let Named(Some(product)) = line.product_id else {
            return Err(Problem::new(Code::NotFound, "The product does not exist.")
                .and_field(format!("/items/{at}/product_id"), "no product has this id"));
        };
        // At most fifty: looking through them is quicker than a table.
        if items.iter().any(|item| item.product == product) {
            return Err(Problem::field(format!("/items/{at}/product_id"), "each product stands in one line")
                .with("product_id", Fact::Word(product.to_string())));
        }
        items.push(Item { product, quantity: line.quantity });
    }
    Ok(items)
}

/// A total that could ever be one.
pub fn expected_total(asked: Option<Money>) -> Result<Option<Money>, Problem> {
    match asked {
        Some(money) if money.amount < 0 => {
            Err(Problem::field("/expected_total/amount", "an amount is never negative"))
        }
        _ => Ok(asked),
    }
}

/// What is asked for, whatever the order of its lines and of its fields. What it is paid with is added to it.
pub fn fingerprint(items: &[Item], expected_total: Option<Money>) -> Fingerprint {
    let mut asked = Fingerprint::of("POST /v1/orders");
    let put = |asked: Fingerprint, item: &Item| {
        asked.bytes(item.product.as_bytes()).number(i64::from(item.quantity.get()))
    };
    if let [only] = items {
        asked = put(asked, only);
    } else {
        let mut sorted = items.to_vec();
        sorted.sort_by_key(|item| item.product);
        asked = sorted.iter().fold(asked, put);
    }
    match expected_total {
        None => asked,
        Some(money) => asked.number(money.amount).bytes(money.currency.as_str().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    fn line(chance: u128, units: u32) -> Item {
        Item { product: ProductId::new(Millis(0), chance), quantity: Quantity::of_line(units).unwrap() }
    }

    #[test]
    fn the_order_of_lines_does_not_matter_and_everything_else_does() {
        let print = |items: &[Item], total| format!("{:?}", fingerprint(items, total).digest());
        let both = print(&[line(1, 1), line(2, 2)], None);
        assert_eq!(both, print(&[line(2, 2), line(1, 1)], None));
        for other in [vec![line(1, 2), line(2, 1)], vec![line(1, 1)], vec![line(1, 1), line(3, 2)]] {
            assert_ne!(both, print(&other, None));
        }
        let won = Some(Money { amount: 5, currency: crate::domain::amount::Currency::KRW });
        assert_ne!(both, print(&[line(1, 1), line(2, 2)], won));
    }

    #[test]
    fn a_quantity_is_an_integer_from_one_to_a_thousand() {
        let read = |units: &str| {
            let json = format!(r#"{{"product_id":"x","quantity":{units}}}"#);
            serde_json::from_str::<ItemRequest>(&json)
        };
        assert!(read("1").is_ok() && read("1000").is_ok());
        for units in
            ["0", "1001", "-1", "2147483648", "18446744073709551616", "1.0", "1e2", "\"1\"", "null", "[1]"]
        {
            assert!(read(units).is_err(), "{units}");
        }
    }
}
