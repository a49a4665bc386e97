//! How a cart looks to its owner: every line with the price and the stock of this moment. It promises neither.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::cart::CartSeen;
use crate::actors::catalogue::Found;
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::cart::{Cart, CartLine};
use crate::domain::id::ProductId;
use crate::domain::stock::{Millis, SaleState};
use crate::http::product::{SaleStateSchema, state_word};
use crate::http::shapes::MoneySchema;
use crate::http::time::Stamp;

/// A cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartShown {
    /// What was put in first stands first.
    #[schema(max_items = 50)]
    lines: Vec<CartLineShown>,
    /// What all lines cost together. Null where there are none, or of several currencies.
    #[schema(value_type = Option<MoneySchema>)]
    subtotal: Option<Money>,
    /// What those lines cost that can be ordered at this moment: what an order of them would cost. Null where there are none, or
    /// of several currencies.
    #[schema(value_type = Option<MoneySchema>)]
    total: Option<Money>,
    /// The lines have several currencies: one order has one, so choose the lines of one with `product_ids`.
    mixed_currencies: bool,
    /// What the lines of each currency cost together.
    #[schema(value_type = Vec<MoneySchema>)]
    subtotals: Vec<Money>,
    /// Whether an order of the whole cart could be held at this moment.
    orderable: bool,
    /// One more for each change.
    version: u64,
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Stamp>,
}

/// One line of a cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartLineShown {
    #[schema(value_type = String, example = "prod_01h455vb4pex5vsknk084sn02q")]
    product_id: ProductId,
    sku: String,
    name: String,
    thumbnail_url: Option<String>,
    #[schema(value_type = u32, minimum = 1, maximum = 1000)]
    quantity: Quantity,
    /// What one unit costs now. Null where the product cannot be found any more.
    #[schema(value_type = Option<MoneySchema>)]
    unit_price: Option<Money>,
    #[schema(value_type = Option<MoneySchema>)]
    subtotal: Option<Money>,
    available: u64,
    /// Units that are missing.
    short: u64,
    /// `open`, or why it cannot be ordered now.
    #[schema(value_type = SaleStateSchema)]
    sale_state: &'static str,
    /// When the sale opens or opened, if it has a time for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Stamp>,
    /// Whether this line could be held at this moment.
    orderable: bool,
    #[schema(value_type = String, format = DateTime)]
    added_at: Stamp,
}

/// A cart as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartKept {
    lines: Vec<CartLineKept>,
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Stamp>,
}

/// One line of a cart as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartLineKept {
    #[schema(value_type = String)]
    product_id: ProductId,
    #[schema(value_type = u32)]
    quantity: Quantity,
    #[schema(value_type = String, format = DateTime)]
    added_at: Stamp,
}

impl From<Cart> for CartKept {
    fn from(cart: Cart) -> CartKept {
        let line = |line: &CartLine| CartLineKept {
            product_id: line.product,
            quantity: line.quantity,
            added_at: Stamp(line.added_at),
        };
        CartKept { lines: cart.lines.iter().map(line).collect(), updated_at: cart.updated_at.map(Stamp) }
    }
}

impl CartShown {
    pub fn of(seen: CartSeen, now: Millis) -> CartShown {
        let CartSeen { cart, lines } = seen;
        let lines: Vec<CartLineShown> =
            lines.iter().map(|(line, found)| CartLineShown::of(line, found.as_ref(), now)).collect();
        let subtotals = sums(lines.iter());
        let mixed_currencies = subtotals.len() > 1;
        let one = |sums: Vec<Money>| if mixed_currencies { None } else { sums.first().copied() };
        CartShown {
            subtotal: one(subtotals.clone()),
            total: one(sums(lines.iter().filter(|line| line.orderable))),
            mixed_currencies,
            subtotals,
            orderable: !lines.is_empty() && !mixed_currencies && lines.iter().all(|line| line.orderable),
            lines,
            version: cart.version,
            updated_at: cart.updated_at.map(Stamp),
        }
    }
}

/// What lines cost together, in each currency. Fifty lines of a thousand units at the highest price still fit.
fn sums<'l>(lines: impl Iterator<Item = &'l CartLineShown>) -> Vec<Money> {
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for money in lines.filter_map(|line| line.subtotal) {
        let sum = sums.entry(money.currency).or_default();
        *sum = sum.saturating_add(money.amount);
    }
    sums.into_iter().map(|(currency, amount)| Money { amount, currency }).collect()
}

impl CartLineShown {
    fn of(line: &CartLine, found: Option<&Found>, now: Millis) -> CartLineShown {
        let blank = CartLineShown {
            product_id: line.product,
            sku: String::new(),
            name: String::new(),
            thumbnail_url: None,
            quantity: line.quantity,
            unit_price: None,
            subtotal: None,
            available: 0,
            short: u64::from(line.quantity.get()),
            sale_state: state_word(SaleState::Archived),
            opens_at: None,
            orderable: false,
            added_at: Stamp(line.added_at),
        };
        let Some(Found { text, view }) = found else { return blank };
        let (available, state) = (view.counts.available(), view.sale_state(now));
        let short = u64::from(line.quantity.get()).saturating_sub(available);
        CartLineShown {
            sku: text.sku.clone(),
            name: text.name.clone(),
            thumbnail_url: text.thumbnail_url.clone(),
            unit_price: Some(view.settings.price),
            subtotal: view.settings.price.times(line.quantity),
            available,
            short,
            sale_state: state_word(state),
            opens_at: view.settings.opens_at.map(Stamp),
            orderable: short == 0 && state == SaleState::Open,
            ..blank
        }
    }
}
