//! What an administrator may say about an endpoint, parsed into values that cannot hold nonsense.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::actors::webhooks::{EndpointChange, NewEndpoint};
use crate::domain::webhook::{EventKind, Kinds};
use crate::http::problem::Problem;

const DESCRIPTION_CHARS_MAX: usize = 200;

/// A receiver of webhooks.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointRequest {
    /// `https://`, to an address that everybody can reach, at port 443 or from 1024 on.
    #[schema(
        pattern = "^https?://[!-~]+$",
        max_length = 2048,
        example = "https://hooks.example.com/stockade"
    )]
    url: String,
    /// What it wants to be told: the words under `webhooks` in this document, such as `order.paid` and `stock.sold_out`.
    #[schema(min_items = 1, example = json!(["order.paid", "stock.sold_out"]))]
    events: Vec<String>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    description: Option<String>,
}

/// What shall be otherwise; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointPatch {
    #[schema(min_items = 1, example = json!(["order.paid"]))]
    events: Option<Vec<String>>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    /// `true` also enables an endpoint again that was disabled because it failed.
    enabled: Option<bool>,
}

impl EndpointRequest {
    pub fn parsed(self) -> Result<NewEndpoint, Problem> {
        let description = self.description.unwrap_or_default();
        Ok(NewEndpoint { kinds: kinds(&self.events)?, description: described(description)?, url: self.url })
    }
}

impl EndpointPatch {
    pub fn parsed(self) -> Result<EndpointChange, Problem> {
        Ok(EndpointChange {
            kinds: self.events.as_deref().map(kinds).transpose()?,
            description: self.description.map(described).transpose()?,
            enabled: self.enabled,
        })
    }
}

fn kinds(words: &[String]) -> Result<Kinds, Problem> {
    if words.is_empty() {
        return Err(Problem::field("/events", "expected at least one"));
    }
    let known = |(number, word): (usize, &String)| {
        EventKind::from_word(word)
            .ok_or_else(|| Problem::field(format!("/events/{number}"), "there is no such event"))
    };
    words.iter().enumerate().map(known).collect()
}

fn described(description: String) -> Result<String, Problem> {
    let fits = description.chars().count() <= DESCRIPTION_CHARS_MAX && !description.contains('\0');
    if fits { Ok(description) } else { Err(Problem::field("/description", "at most 200 characters")) }
}
