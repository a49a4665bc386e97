//! What people may say about themselves. Parsed once, here, into values that cannot hold nonsense.

use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::actors::user::Change;
use crate::domain::user::{Address, Email, PersonName, Phone, WeakPassword};
use crate::http::problem::Problem;
use crate::http::shapes::AddressSchema;

/// Somebody who wants an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpRequest {
    #[schema(value_type = String, format = "email", max_length = 254, example = "mina@example.com")]
    pub email: Email,
    /// 8 characters to 128 bytes, of any kind.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128, example = "four foxes fly far")]
    pub password: SecretString,
    #[schema(value_type = String, min_length = 1, max_length = 100, example = "Mina Park")]
    pub name: PersonName,
    /// `010-1234-5678`, or `+` with the country's code.
    #[schema(value_type = String, example = "010-1234-5678")]
    pub phone: Phone,
    #[schema(value_type = AddressSchema)]
    pub address: Address,
}

/// A token from the link of a letter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    #[schema(value_type = String)]
    pub token: SecretString,
}

/// Somebody's address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailRequest {
    #[schema(value_type = String, format = "email", max_length = 254, example = "mina@example.com")]
    pub email: Email,
}

/// What shall be otherwise; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfilePatch {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100)]
    name: Option<PersonName>,
    #[schema(value_type = Option<String>, example = "010-1234-5678")]
    phone: Option<Phone>,
    #[schema(value_type = Option<AddressSchema>)]
    address: Option<Address>,
}

impl ProfilePatch {
    pub fn change(self) -> Change {
        let ProfilePatch { name, phone, address } = self;
        Change { name, phone, address }
    }
}

/// The old password, and the one that shall take its place.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    #[schema(value_type = String, format = Password)]
    pub current_password: SecretString,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    pub new_password: SecretString,
}

/// A token from the link of a reset letter, and the new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    #[schema(value_type = String)]
    pub token: SecretString,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    pub new_password: SecretString,
}

/// The address that shall count, and the password that says who asks.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEmailRequest {
    #[schema(value_type = String, format = "email", max_length = 254)]
    pub email: Email,
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// The password that says who asks.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// A password that is too weak is 422 under the field it came in.
pub fn weak(pointer: &'static str) -> impl FnOnce(WeakPassword) -> Problem {
    move |why| Problem::field(pointer, why.to_string())
}
