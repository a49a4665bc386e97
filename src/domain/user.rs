//! Who asks: a shopper or an administrator. The engine knows people by id alone.

use serde::{Deserialize, Serialize};

/// What a caller may do. The words are those of the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Shopper,
    Admin,
}
