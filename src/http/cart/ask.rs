//! What may be said to a cart. Parsed once, here.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::actors::cart::CheckOut;
use crate::actors::order::Orders;
use crate::domain::amount::{Money, Quantity};
use crate::domain::cart::LINES_MAX;
use crate::domain::id::{ProductId, UserId};
use crate::domain::user::Address;
use crate::http::body::Named;
use crate::http::idempotency::{Fingerprint, IdempotencyKey};
use crate::http::order::{ItemRequest, expected_total, line_quantity};
use crate::http::payment::PayRequest;
use crate::http::problem::{Code, Fact, Problem};
use crate::http::shapes::{AddressSchema, MoneySchema};

/// How many units.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantityRequest {
    #[serde(deserialize_with = "line_quantity")]
    #[schema(value_type = u32, minimum = 1, maximum = 1000)]
    pub quantity: Quantity,
}

/// An order out of the cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckoutRequest {
    /// These lines of the cart; without it all of them.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 50)]
    product_ids: Option<Vec<Named<ProductId>>>,
    /// Where this order goes, if not to the address of the account.
    #[serde(default)]
    #[schema(value_type = Option<AddressSchema>)]
    address: Option<Box<Address>>,
    /// Pays at once. Without it the order is held, to be paid before the hold lapses.
    #[serde(default)]
    payment: Option<PayRequest>,
    /// What the whole order is expected to cost; if it costs something else it is refused.
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    expected_total: Option<Money>,
}

/// The product that a request names.
pub fn product(asked: &ItemRequest) -> Result<ProductId, Problem> {
    let Named(Some(product)) = asked.product_id else {
        return Err(Problem::new(Code::NotFound, "The product does not exist.")
            .and_field("/product_id", "no product has this id"));
    };
    Ok(product)
}

/// What somebody asks for who adds units to a cart.
pub fn addition(product: ProductId, quantity: Quantity) -> Fingerprint {
    Fingerprint::of("POST /v1/cart/items").bytes(product.as_bytes()).number(i64::from(quantity.get()))
}

impl CheckoutRequest {
    /// What is asked for, and what stands for it where two requests with one key are compared: whatever is in the cart by then.
    pub fn parsed(self, user: UserId, key: IdempotencyKey, orders: &Orders) -> Result<CheckOut, Problem> {
        let CheckoutRequest { product_ids, address, payment, expected_total: total } = self;
        let products = product_ids.map(|ids| chosen(&ids)).transpose()?;
        let expected_total = expected_total(total)?;
        let mut print = Fingerprint::of("POST /v1/cart/checkout");
        print = match &products {
            None => print.number(-1),
            Some(products) => {
                let mut sorted = products.clone();
                sorted.sort_unstable();
                let counted = print.number(sorted.len() as i64);
                sorted.iter().fold(counted, |print, product| print.bytes(product.as_bytes()))
            }
        };
        print = match expected_total {
            None => print.number(0),
            Some(money) => print.number(1).number(money.amount).bytes(money.currency.as_str().as_bytes()),
        };
        print = match &address {
            None => print.number(0),
            Some(address) => print.number(1).bytes(&orders.mark_of(address)),
        };
        let (print, method) = match payment {
            None => (print, None),
            Some(payment) => {
                let (print, method) = payment.method.into(print);
                (print, Some(method))
            }
        };
        let (key, body) = (key.0, print.digest());
        Ok(CheckOut { user, key, body, products, expected_total, address: address.map(|it| *it), method })
    }
}

fn chosen(ids: &[Named<ProductId>]) -> Result<Vec<ProductId>, Problem> {
    if ids.is_empty() || ids.len() > LINES_MAX {
        let told = format!("1 to {LINES_MAX} lines are chosen; leave it out for all of them");
        return Err(Problem::field("/product_ids", told).number("limit", LINES_MAX as u64));
    }
    let mut products = Vec::with_capacity(ids.len());
    for (at, Named(id)) in ids.iter().enumerate() {
        let pointer = format!("/product_ids/{at}");
        let Some(product) = *id else {
            return Err(Problem::new(Code::NotFound, "The product does not exist.")
                .and_field(pointer, "no product has this id"));
        };
        if products.contains(&product) {
            return Err(Problem::field(pointer, "each product stands in one line")
                .with("product_id", Fact::Word(product.to_string())));
        }
        products.push(product);
    }
    Ok(products)
}
