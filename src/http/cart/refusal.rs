//! What a cart's *no* is called outside: one exhaustive table, without a wildcard arm.

use crate::actors::cart::NotCarted;
use crate::domain::cart::NotPut;
use crate::http::problem::{Code, Fact, Problem};

/// When to come back while a checkout is not decided: payments in doubt take longer than holds that lapse.
const RETRY_MS: u64 = 5_000;

impl From<NotCarted> for Problem {
    fn from(why: NotCarted) -> Problem {
        match why {
            NotCarted::NoUser => Problem::not_found("There is no such account."),
            NotCarted::NoProduct => Problem::not_found("The product does not exist."),
            NotCarted::NotPut(why @ NotPut::TooManyLines { limit }) => {
                Problem::new(Code::ValidationFailed, "The cart is full.")
                    .and_field("", why.to_string())
                    .number("limit", limit as u64)
            }
            NotCarted::NotPut(why @ NotPut::TooManyUnits { limit, has, requested }) => {
                Problem::field("/quantity", why.to_string())
                    .number("limit", limit)
                    .number("has", has)
                    .number("requested", requested)
            }
            NotCarted::KeyReused => Problem::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key came before, with another body.",
            ),
            NotCarted::Empty => Problem::new(Code::ValidationFailed, "There is nothing in the cart.")
                .and_field("/product_ids", "the cart is empty"),
            NotCarted::NotThere(product) => {
                Problem::new(Code::ValidationFailed, "A product that was chosen is not in the cart.")
                    .and_field("/product_ids", "not in the cart")
                    .with("product_id", Fact::Word(product.to_string()))
            }
            NotCarted::Undecided(order) => {
                let detail = "An order of this cart is not decided yet. Send the request that began it again with its \
                    Idempotency-Key, or cancel the order.";
                let problem = Problem::new(Code::IdempotencyInProgress, detail).retry_after(RETRY_MS);
                match order {
                    Some(order) => problem.with("order_id", Fact::Word(order.to_string())),
                    None => problem,
                }
            }
            NotCarted::NotDone(why) => why.into(),
        }
    }
}
