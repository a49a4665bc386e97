//! `DPoP`: the key with which somebody logs in, or goes on (RFC 9449).
//!
//! Always true: a request without the header has no key, and one with it has a good proof or is refused before anything is looked
//! up, so what it hears then says nothing about a token or an account.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, web};

use super::problem::{Code, Fact, Problem};
use super::refusal::internal;
use crate::clock::Clock;
use crate::dpop::{self, BadProof, Door, Thumbprint};

const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Where people reach the shop, without a slash at the end, if somebody has said so.
#[derive(Debug, Clone)]
pub struct PublicUrl(pub Option<String>);

/// The key that whoever asks has proved to have, if the request came with a proof.
pub fn key(request: &HttpRequest) -> Result<Option<Thumbprint>, Problem> {
    let mut all = request.headers().get_all(DPOP);
    let Some(given) = all.next() else { return Ok(None) };
    let (Some(clock), Some(public_url)) =
        (request.app_data::<web::Data<Clock>>(), request.app_data::<web::Data<PublicUrl>>())
    else {
        return Err(internal());
    };
    let only = all.next().is_none().then_some(given);
    let door =
        Door { method: request.method().as_str(), path: request.path(), public_url: public_url.0.as_deref() };
    let told = text(only).and_then(|proof| dpop::check(proof, door, clock.now()));
    told.map(Some).map_err(|why| {
        Problem::new(Code::InvalidDpopProof, format!("The proof is not valid: {why}."))
            .with("reason", Fact::Word(why.word().to_owned()))
    })
}

fn text(value: Option<&HeaderValue>) -> Result<&str, BadProof> {
    value.and_then(|value| value.to_str().ok()).ok_or(BadProof::Malformed)
}
