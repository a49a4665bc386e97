//! How a few things look in the API's description that are known to the domain under other names.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, Schema, Type};

/// Integer minor units of one currency (for KRW the won itself).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Money)]
#[serde(deny_unknown_fields)]
pub struct MoneySchema {
    #[schema(minimum = 0, example = 19900)]
    amount: i64,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "KRW")]
    currency: String,
}

/// A field whose time has not come: always null.
pub fn null() -> Schema {
    Schema::Object(Object::with_type(Type::Null))
}
