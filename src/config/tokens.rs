//! What access tokens are signed with: the secrets, and the algorithm that takes its keys from them.

use std::str::FromStr;

use secrecy::SecretString;

use super::{ConfigError, Layers};

#[derive(Debug, Clone)]
pub struct Tokens {
    /// Each secret is a key of this algorithm, and of no other.
    pub algorithm: JwtAlgorithm,
    /// `None` in development: one is made up on first use and kept beside the data.
    pub secret: Option<SecretString>,
    /// Believed, no longer used for signing.
    pub former: Vec<SecretString>,
}

/// By which algorithm tokens are signed, and believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 (RFC 7518, section 3.2).
    Hs256,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl JwtAlgorithm {
    /// Its name, in a token's head and as a setting.
    pub fn as_str(self) -> &'static str {
        match self {
            JwtAlgorithm::Hs256 => "HS256",
            JwtAlgorithm::EdDsa => "EdDSA",
        }
    }
}

impl FromStr for JwtAlgorithm {
    type Err = &'static str;

    /// Names of algorithms are case-sensitive (RFC 7515, section 4.1.1).
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = [JwtAlgorithm::Hs256, JwtAlgorithm::EdDsa];
        known.into_iter().find(|algorithm| algorithm.as_str() == word).ok_or("expected HS256 or EdDSA")
    }
}

impl Tokens {
    /// Every setting at its default.
    pub(super) fn development() -> Tokens {
        Tokens { algorithm: JwtAlgorithm::Hs256, secret: None, former: Vec::new() }
    }

    pub(super) fn read(layers: &Layers) -> Result<Tokens, ConfigError> {
        let former = layers.list::<String>("jwt_secrets_former")?;
        Ok(Tokens {
            algorithm: layers.parsed("jwt_algorithm")?,
            secret: layers.text("jwt_secret").map(SecretString::from),
            former: former.into_iter().map(SecretString::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_signed_by_one_of_two_algorithms() {
        let read = |word: &str| {
            let variable = ("STOCKADE_JWT_ALGORITHM".to_owned(), word.to_owned());
            let layers = Layers::of(None, [variable], []).unwrap();
            Tokens::read(&layers).map(|tokens| tokens.algorithm).map_err(|error| error.to_string())
        };
        assert_eq!(read("HS256"), Ok(Tokens::development().algorithm));
        assert_eq!(read("EdDSA"), Ok(JwtAlgorithm::EdDsa));
        assert_eq!(read(""), read("HS256"), "what is empty is not said");
        for bad in ["none", "hs256", "eddsa", "HS512", "RS256", "HS256,EdDSA"] {
            let told = read(bad).unwrap_err();
            assert!(told.contains("jwt_algorithm") && told.contains("expected HS256 or EdDSA"), "{told}");
        }
    }
}
