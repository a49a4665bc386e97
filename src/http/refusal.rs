//! What the engine's *no* is called outside: one exhaustive table, without a wildcard arm.
//!
//! A new refusal does not compile until somebody has decided what the client hears.

use super::problem::{Code, Fact, Problem};
use crate::actors::order::NotAddressed;
use crate::actors::stock::NotDone;
use crate::domain::id::ProductId;
use crate::domain::stock::{Cause, Refusal, Refused, Sequence};

/// How long a client waits before it asks an owner again that was not there.
pub(super) const RETRY_MS: u64 = 1_000;

impl From<NotDone> for Problem {
    fn from(why: NotDone) -> Problem {
        match why {
            // What no ledger has decided has no place in one: there is none yet, or the key alone was known.
            NotDone::Refused { product, refused: Refused { at: Sequence(0), why } } => refusal(product, why),
            NotDone::Refused { product, refused: Refused { at, why } } => {
                refusal(product, why).number("sequence", at.0)
            }
            NotDone::Busy { retry_after_ms } => {
                Problem::new(Code::Overloaded, "Too much is waiting. Nothing was done: try again.")
                    .retry_after(retry_after_ms)
            }
            NotDone::Unavailable => {
                Problem::new(Code::OwnerUnavailable, "Nothing was done: try again.").retry_after(RETRY_MS)
            }
            NotDone::Unknown => Problem::new(
                Code::OutcomeUnknown,
                "It may have been done. Ask again with the same Idempotency-Key to hear the truth.",
            )
            .retry_after(RETRY_MS),
            NotDone::Quarantined | NotDone::Internal => internal(),
        }
    }
}

impl From<NotAddressed> for Problem {
    fn from(why: NotAddressed) -> Problem {
        match why {
            NotAddressed::NoUser => Problem::not_found("There is no such account."),
            NotAddressed::NotDone(why) => why.into(),
        }
    }
}

/// 500, and nothing about why.
pub fn internal() -> Problem {
    Problem::new(Code::Internal, "It is in our log under the request's id.")
}

#[rustfmt::skip]
fn refusal(product: ProductId, why: Refusal) -> Problem {
    let of_product = |code, detail: &'static str| {
        Problem::new(code, detail).with("product_id", Fact::Word(product.to_string()))
    };
    let conflict = |detail: &'static str| Problem::new(Code::OrderStateConflict, detail);
    match why {
        Refusal::NoProduct => of_product(Code::NotFound, "The product does not exist."),
        Refusal::ProductExists => of_product(Code::OrderStateConflict, "The product exists already."),
        Refusal::Archived => of_product(Code::SaleClosed, "The product is off sale for good."),
        Refusal::Paused => of_product(Code::SalePaused, "The sale of this product is paused."),
        Refusal::NotOpen { opens_at } =>
            of_product(Code::SaleNotOpen, "The sale of this product opens later.").with("opens_at", Fact::Time(opens_at)).retry_at(opens_at),
        Refusal::Closed { closed_at } =>
            of_product(Code::SaleClosed, "The sale of this product is over.").with("closed_at", Fact::Time(closed_at)),
        Refusal::LimitExceeded { limit, has, requested } =>
            of_product(Code::CustomerLimitExceeded, "Together with what you hold or bought it is more than one customer may have.")
                .number("limit", limit).number("has", has).number("requested", requested),
        Refusal::SoldOut { available, requested } =>
            of_product(Code::SoldOut, "Fewer units are available than were asked for.")
                .number("available", available).number("requested", requested),
        Refusal::PriceChanged { expected, actual } =>
            Problem::new(Code::PriceChanged, "The order costs something else than expected.")
                .with("expected", Fact::Money(expected)).with("actual", Fact::Money(actual)),
        Refusal::TwoCurrencies => Problem::field("/items", "an order has one currency, and these products have several"),
        Refusal::AmountTooLarge => Problem::field("/items", "the amount is too large"),
        Refusal::KeyReused { order: None } =>
            Problem::new(Code::IdempotencyKeyReused, "This Idempotency-Key came before, with another body."),
        Refusal::KeyReused { order: Some(order) } =>
            Problem::new(Code::IdempotencyKeyReused, "This Idempotency-Key came before, with another body.")
                .with("order_id", Fact::Word(order.to_string())),
        Refusal::KeyInProgress =>
            Problem::new(Code::IdempotencyInProgress, "Ask again in a moment to hear how it ended.").retry_after(RETRY_MS),
        Refusal::OrderIdTaken => internal(),
        Refusal::NoSuchOrder => Problem::not_found("There is no such order."),
        Refusal::HoldExpired => Problem::new(Code::HoldExpired, "The hold has expired; its units are available again."),
        Refusal::AlreadyReleased { cause: Cause::Cancelled } => conflict("The order was cancelled already."),
        Refusal::AlreadyReleased { cause: Cause::NotPlaced } => conflict("The order was never placed."),
        Refusal::AlreadyReleased { cause: Cause::PaymentFailed } => conflict("The order ended because its payment failed."),
        Refusal::AlreadySold => conflict("The order is paid."),
        Refusal::PaymentRunning => conflict("A payment of this order is running."),
        Refusal::NotPinned => conflict("No payment of this order is running."),
        Refusal::AttemptOver => conflict("This attempt to pay the order is over."),
        Refusal::StillPlacing => conflict("The order is still being placed."),
        Refusal::MoreThanHeld { confirmed, held } =>
            conflict("More than is held.").number("confirmed", confirmed).number("held", held),
        Refusal::MoreThanSold { returned, sold } =>
            conflict("More than was sold.").number("returned", returned).number("sold", sold),
        Refusal::BelowPromised { promised, would_be } =>
            conflict("Units that are held or sold cannot be taken away.")
                .number("promised", promised).with("would_be", Fact::Signed(would_be)),
        Refusal::TooMuchStock { limit } =>
            Problem::field("/delta", format!("no more than {limit} units can be on hand")).number("limit", limit),
        Refusal::NothingToDo => Problem::field("/delta", "zero changes nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Money};
    use crate::domain::stock::{Millis, Sequence};

    #[test]
    fn what_the_client_hears() {
        let won = |amount| Money { amount, currency: Currency::KRW };
        let refusals = [
            Refusal::NoProduct,
            Refusal::Archived,
            Refusal::Paused,
            Refusal::NotOpen { opens_at: Millis(0) },
            Refusal::Closed { closed_at: Millis(0) },
            Refusal::LimitExceeded { limit: 3, has: 2, requested: 2 },
            Refusal::SoldOut { available: 1, requested: 2 },
            Refusal::PriceChanged { expected: won(1), actual: won(2) },
            Refusal::TwoCurrencies,
            Refusal::KeyReused { order: None },
            Refusal::KeyInProgress,
            Refusal::NoSuchOrder,
            Refusal::HoldExpired,
            Refusal::AlreadyReleased { cause: Cause::Cancelled },
            Refusal::AlreadySold,
            Refusal::PaymentRunning,
            Refusal::BelowPromised { promised: 3, would_be: 2 },
            Refusal::TooMuchStock { limit: 9 },
            Refusal::OrderIdTaken,
        ];
        let product = ProductId::from_bytes([0; 16]);
        let refused = |why: Refusal| NotDone::Refused { product, refused: Refused { at: Sequence(7), why } };
        let others = [
            NotDone::Busy { retry_after_ms: 200 },
            NotDone::Unavailable,
            NotDone::Unknown,
            NotDone::Quarantined,
            NotDone::Internal,
        ];
        let heard: Vec<String> = refusals
            .into_iter()
            .map(refused)
            .chain(others)
            .map(|why| Problem::from(why).code())
            .map(|code| format!("{} {}", code.status(), code.word()))
            .collect();
        assert_eq!(
            heard,
            [
                "404 not_found",
                "409 sale_closed",
                "409 sale_paused",
                "409 sale_not_open",
                "409 sale_closed",
                "409 customer_limit_exceeded",
                "409 sold_out",
                "409 price_changed",
                "422 validation_failed",
                "422 idempotency_key_reused",
                "409 idempotency_in_progress",
                "404 not_found",
                "410 hold_expired",
                "409 order_state_conflict",
                "409 order_state_conflict",
                "409 order_state_conflict",
                "409 order_state_conflict",
                "422 validation_failed",
                "500 internal",
                "503 overloaded",
                "503 owner_unavailable",
                "503 outcome_unknown",
                "500 internal",
                "500 internal",
            ]
        );
    }
}
