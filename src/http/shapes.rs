//! How a few things look in the API's description that are known to the domain under other names.

use serde::Serialize;
use utoipa::ToSchema;

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

/// What one unit costs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Price)]
#[serde(deny_unknown_fields)]
pub struct PriceSchema {
    #[schema(minimum = 0, maximum = 100_000_000_000_000_i64, example = 19900)]
    amount: i64,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "KRW")]
    currency: String,
}

/// Where a parcel goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Address)]
#[serde(deny_unknown_fields)]
pub struct AddressSchema {
    /// Who takes the parcel, if not the customer.
    #[schema(min_length = 1, max_length = 100)]
    recipient: Option<String>,
    #[schema(min_length = 1, max_length = 120, example = "Teheran-ro 152")]
    line1: String,
    #[schema(min_length = 1, max_length = 120)]
    line2: Option<String>,
    #[schema(min_length = 1, max_length = 120, example = "Seoul")]
    city: String,
    #[schema(min_length = 1, max_length = 120)]
    region: Option<String>,
    #[schema(min_length = 2, max_length = 12, example = "06236")]
    postal_code: String,
    /// ISO 3166-1, two letters.
    #[schema(pattern = "^[A-Z]{2}$", example = "KR")]
    country: String,
}
