//! One request to Stripe and its answer, sorted into what is certain and what is not.
//!
//! Always true: an answer is read to a limit and no further, and nothing of a request or an answer is logged but its status, a
//! code, and Stripe's own number of the request.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use super::shapes::{ErrorBody, Failure};
use crate::config::StripeAccount;
use crate::provider::{NoProvider, ProviderError, client};

/// What we were written against; another one is another commit.
const API_VERSION: &str = "2025-06-30.basil";
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// One request; a bank may take its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Something in the request is not as they want it.
pub const WRONG: u16 = 400;
/// The request was good, and the card is not.
pub const DECLINED: u16 = 402;
/// They do not know our key, or it may not do this.
const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
/// Another request with this key is being worked on.
const KEY_IN_USE: u16 = 409;
const TOO_MANY: u16 = 429;
/// From here on it is they who failed.
pub const FAILED: u16 = 500;
/// An object, and a hundred of them.
pub const OBJECT_BYTES_MAX: usize = 64 << 10;
pub const LIST_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub struct Wire {
    client: Client,
    url: String,
    key: SecretString,
}

/// An answer that is one: what was asked for, or a no with its reason.
#[derive(Debug)]
pub enum Answer<T> {
    Yes {
        object: T,
        /// It is what an earlier request with the same key was told, and may have changed since.
        replayed: bool,
    },
    No {
        status: u16,
        why: Failure,
    },
}

impl Wire {
    pub fn new(account: &StripeAccount) -> Result<Wire, NoProvider> {
        let tests = account.url.starts_with("http://");
        let builder = client()
            .https_only(!tests)
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .pool_idle_timeout(IDLE_FOR);
        // This machine is not reached through a proxy.
        let builder = if tests { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| NoProvider::Client(error.to_string()))?;
        Ok(Wire { client, url: account.url.clone(), key: account.secret_key.clone() })
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        bytes_max: usize,
    ) -> Result<Answer<T>, ProviderError> {
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", form(query)) };
        self.answer(self.request(Method::GET, &path), bytes_max).await
    }

    /// `key`: the same request with the same key has its effect once.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        key: Option<&str>,
    ) -> Result<Answer<T>, ProviderError> {
        let mut request = self.request(Method::POST, path);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(fields));
        self.answer(request, OBJECT_BYTES_MAX).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.key.expose_secret())
            .header("Stripe-Version", API_VERSION)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Answer<T>, ProviderError> {
        let mut response = request.send().await.map_err(|error| unsent(&error))?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let replayed = header("Idempotent-Replayed") == Some("true");
        let number = header("Request-Id").unwrap_or_default().to_owned();
        match status {
            200..=299 => {}
            // This one was not looked at.
            KEY_IN_USE | TOO_MANY => {
                tracing::info!(status, request = %number, "Stripe does not take a request now");
                return Err(ProviderError::NotNow);
            }
            // Ours to mend, and mended soon: whoever pays meanwhile waits, and loses nothing by it.
            UNAUTHORIZED | FORBIDDEN => {
                tracing::error!(status, request = %number, "Stripe does not take our key; is it the right one?");
                return Err(ProviderError::NotNow);
            }
            400..=499 => {}
            // That it once failed is all that it will ever say under this key.
            FAILED..=599 if replayed => {}
            FAILED..=599 => {
                tracing::warn!(status, request = %number, "Stripe failed, and nobody knows how far it came");
                return Err(ProviderError::Unknown);
            }
            // It answered from elsewhere.
            _ => return Err(ProviderError::Refused { code: format!("status_{status}") }),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| ProviderError::Unknown)? {
            if body.len() + chunk.len() > bytes_max {
                tracing::warn!(status, request = %number, "an answer of Stripe is longer than any should be");
                return Err(ProviderError::Unknown);
            }
            body.extend_from_slice(&chunk);
        }
        if (200..=299).contains(&status) {
            let object = serde_json::from_slice(&body).map_err(|error| {
                // Only where it went wrong: what stands there is somebody's payment.
                tracing::warn!(
                    line = error.line(), column = error.column(), request = %number,
                    "an answer of Stripe cannot be understood",
                );
                ProviderError::Unknown
            })?;
            return Ok(Answer::Yes { object, replayed });
        }
        let why = serde_json::from_slice::<ErrorBody>(&body).unwrap_or_default().error;
        tracing::info!(status, code = %why.code("none"), request = %number, "Stripe said no");
        Ok(Answer::No { status, why })
    }
}

impl<T> Answer<T> {
    /// What was asked for; a no means that our request is wrong.
    pub fn object(self) -> Result<T, ProviderError> {
        match self {
            Answer::Yes { object, .. } => Ok(object),
            Answer::No { status: FAILED.., .. } => Err(ProviderError::Unknown),
            Answer::No { status, why } => Err(no(status, &why)),
        }
    }

    /// The same where *not found* is an answer.
    pub fn found(self) -> Result<Option<T>, ProviderError> {
        match self {
            Answer::No { status: NOT_FOUND, .. } => Ok(None),
            other => other.object().map(Some),
        }
    }
}

pub fn no(status: u16, why: &Failure) -> ProviderError {
    ProviderError::Refused { code: why.code(&format!("status_{status}")) }
}

/// Whoever was not reached has done nothing.
fn unsent(error: &reqwest::Error) -> ProviderError {
    if error.is_builder() {
        return ProviderError::Refused { code: "not_a_request".to_owned() };
    }
    let why = match (error.is_connect(), error.is_timeout()) {
        (true, _) => "connect",
        (false, true) => "time-out",
        (false, false) => "connection lost",
    };
    tracing::warn!(why, "Stripe was not reached, or did not answer");
    if error.is_connect() { ProviderError::NotNow } else { ProviderError::Unknown }
}

/// `application/x-www-form-urlencoded`, brackets in names included.
fn form(fields: &[(&str, &str)]) -> String {
    let encode = |word: &str, out: &mut String| {
        for byte in word.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte))
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    };
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        encode(name, &mut out);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_carries_every_letter() {
        assert_eq!(
            form(&[("metadata[a]", "1 + 1 = 2&"), ("b", "ö")]),
            "metadata%5Ba%5D=1%20%2B%201%20%3D%202%26&b=%C3%B6"
        );
    }
}
