//! What a request about money may say.
//!
//! A card number is refused where it is read, and neither the refusal nor any log repeats it: cards are entered at the
//! provider, and only its word for one comes here.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::domain::amount::Money;
use crate::domain::payment::{Method, Restock};
use crate::http::idempotency::Fingerprint;
use crate::http::shapes::MoneySchema;

/// How an order is paid.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PayRequest {
    pub method: MethodRequest,
}

/// A means of payment: the provider's word for a card. Never the card's own number.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PaymentMethod)]
#[serde(deny_unknown_fields)]
pub struct MethodRequest {
    #[serde(rename = "type")]
    pub kind: MethodKind,
    #[serde(deserialize_with = "token")]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]{1,255}$", example = "tok_ok")]
    pub token: Method,
}

/// What kind of means it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PaymentMethodType)]
pub enum MethodKind {
    Card,
}

/// Money that a clerk gives back. Without a line and an amount: all that is left.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    pub amount: Option<Money>,
    /// The line it is about; its price, if no amount is named.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 50)]
    pub line: Option<u8>,
    /// What becomes of the units: a decision of its own.
    #[serde(deserialize_with = "restock")]
    #[schema(value_type = RestockSchema)]
    pub restock: Restock,
    /// Why, in a few words that name nobody: the same request has the same, and nobody keeps them.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    pub reason: String,
}

/// `leave`: the buyer keeps them; `to_stock`: they are on sale again; `write_off`: they are gone.
#[derive(ToSchema)]
#[schema(as = Restock, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum RestockSchema {
    Leave,
    ToStock,
    WriteOff,
}

/// Says nothing of what it has seen.
fn token<'de, D: Deserializer<'de>>(d: D) -> Result<Method, D::Error> {
    struct Token;

    const NO_WORD: &str = "expected the provider's token, a string";

    impl Visitor<'_> for Token {
        type Value = Method;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("the provider's token")
        }

        fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Method, E> {
            Method::card(word).map_err(E::custom)
        }

        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Method, E> {
            Err(E::custom(NO_WORD))
        }

        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Method, E> {
            Err(E::custom(NO_WORD))
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Method, E> {
            Err(E::custom(NO_WORD))
        }
    }

    d.deserialize_any(Token)
}

fn restock<'de, D: Deserializer<'de>>(d: D) -> Result<Restock, D::Error> {
    let word = std::borrow::Cow::<str>::deserialize(d)?;
    Restock::from_word(&word).ok_or_else(|| D::Error::custom("expected leave, to_stock or write_off"))
}

impl MethodRequest {
    /// Adds it to what a request asks for.
    pub fn into(self, asked: Fingerprint) -> (Fingerprint, Method) {
        let MethodRequest { kind: MethodKind::Card, token } = self;
        (asked.bytes(b"card").bytes(token.token().as_bytes()), token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str) -> Result<PayRequest, String> {
        serde_json::from_str(&format!(r#"{{"method":{method}}}"#)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_taken_and_nothing_else_is() {
        assert_eq!(read(r#"{"type":"card","token":"tok_ok"}"#).unwrap().method.token.token(), "tok_ok");
        for method in [
            r#"{"type":"card"}"#,
            r#"{"token":"tok_ok"}"#,
            r#"{"type":"cash","token":"tok_ok"}"#,
            r#"{"type":"card","token":""}"#,
            r#"{"type":"card","token":"two words"}"#,
            r#"{"type":"card","token":null}"#,
            r#"{"type":"card","token":"tok_ok","cvc":"123"}"#,
        ] {
            assert!(read(method).is_err(), "{method}");
        }
    }

    #[test]
    fn a_card_number_is_refused_and_not_repeated() {
        for token in [
            r#""4242424242424242""#,
            r#""4242 4242 4242 4242""#,
            r#""4242-4242-4242-4242""#,
            "4242424242424242",
            "-4242424242424242",
            "4242424242424242.0",
        ] {
            let told = read(&format!(r#"{{"type":"card","token":{token}}}"#)).unwrap_err();
            assert!(!told.contains("4242"), "{told}");
        }
        let asked = read(r#"{"type":"card","token":"tok_ok"}"#).unwrap();
        assert!(!format!("{asked:?}").contains("tok_ok"));
    }
}
