//! What is particular to the doors of wishes and carts.

use serde_json::{Value, json};

use super::doors::{Door, body, cursor, idempotency_key, limit, told};
use super::examples;
use crate::http::problem::Code;

const WISH: &str = "^[0-9]{1,15}-prod_[0-7][0-9a-hjkmnp-tv-z]{25}$";

const READ: &[Code] = &[Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown];
const CHANGE: &[Code] =
    &[Code::NotFound, Code::RateLimited, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown];
const PUT_IN: &[Code] = &[
    Code::NotFound,
    Code::SaleClosed,
    Code::ValidationFailed,
    Code::IdempotencyKeyReused,
    Code::Overloaded,
    Code::OwnerUnavailable,
    Code::OutcomeUnknown,
];

/// The description of the door with this name.
#[rustfmt::skip]
pub fn of(door: &str) -> Option<Door> {
    let item = || json!({ "product_id": "prod_01h455vb4pex5vsknk084sn02q", "quantity": 2 });
    Some(match door {
        "wish::list" => Door {
            parameters: vec![limit(), cursor(WISH)],
            refuses: READ,
            ..told("cart", "One's wishes", "The products as the catalogue shows them, newest wish first; archived ones too, and \
                they say so.")
        }
        .gives(200, "A page.", "ProductPage", Value::Null),
        "wish::put" => Door {
            refuses: &[Code::ValidationFailed, Code::RateLimited, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown],
            ..told("cart", "Wish for a product", "Asked for twice it is done once. At most 200.")
        }
        .gives_nothing(204, "It is wished for."),
        "wish::remove" => Door { refuses: CHANGE, ..told("cart", "Wish for it no more", "Also where it was not wished for.") }
            .gives_nothing(204, "It is not wished for."),
        "cart::find" => Door {
            refuses: READ,
            ..told("cart", "One's cart", "With the price and the stock of this moment. It holds nothing: an order does.")
        }
        .gives(200, "The cart.", "CartShown", Value::Null),
        "cart::clear" => Door { refuses: CHANGE, ..told("cart", "Empty the cart", "Takes everything out.") }
            .gives(200, "The cart.", "CartShown", Value::Null),
        "cart::add" => Door {
            body: body("ItemRequest", item()),
            parameters: vec![idempotency_key(false)],
            refuses: PUT_IN,
            ..told("cart", "Put more of a product into the cart", "Adds up with what is in it. More than 1,000 units of one product, or \
                more than 50 lines, are refused and not cut down. A key is remembered for a day.")
        }
        .gives(200, "The cart.", "CartShown", Value::Null)
        .with_header(200, "Idempotent-Replayed", "`true` when the key had added it before."),
        "cart::put" => Door {
            body: body("QuantityRequest", json!({ "quantity": 2 })),
            refuses: PUT_IN,
            ..told("cart", "So many units of a product", "Whatever was in the cart before.")
        }
        .gives(200, "The cart.", "CartShown", Value::Null),
        "cart::take_out" => Door { refuses: CHANGE, ..told("cart", "Take a product out of the cart", "Also where it was not in it.") }
            .gives(200, "The cart.", "CartShown", Value::Null),
        "cart::check_out" => Door {
            body: body("CheckoutRequest", json!({
                "product_ids": ["prod_01h455vb4pex5vsknk084sn02q"],
                "payment": { "method": { "type": "card", "token": "tok_ok" } },
            })),
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::NotFound, Code::SoldOut, Code::SaleNotOpen, Code::SaleClosed, Code::SalePaused,
                Code::CustomerLimitExceeded, Code::PriceChanged, Code::OrderStateConflict, Code::IdempotencyInProgress,
                Code::IdempotencyKeyReused, Code::HoldExpired, Code::PaymentDeclined, Code::RateLimited, Code::Overloaded,
                Code::OwnerUnavailable, Code::PaymentUnavailable, Code::OutcomeUnknown,
            ],
            ..told("cart", "Order out of the cart", "The chosen lines, or all of them: all are held, or none. They leave the cart \
                once the order stands (201 or 202); after a 402, and after any other refusal, they are still in it. With an \
                Idempotency-Key the same request may be sent again: it hears of the same order, whatever is in the cart by then, as it \
                was answered first, with the order as it is now. The key belongs to the order: to POST /v1/orders this is another body.")
        }
        .gives(201, "The order; its units are held, or with `payment` sold.", "OrderShown", examples::order("paid"))
        .gives(202, "The order. It is not known yet whether its payment is taken, and `payment.status` is `unknown`.", "OrderShown",
            examples::order("unknown"))
        .with_header(201, "Idempotent-Replayed", "`true` when the key had made this order before.")
        .with_header(202, "Idempotent-Replayed", "`true` when the key had made this order before."),
        _ => return None,
    })
}
