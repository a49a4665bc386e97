//! What may be said of a product besides its texts: its tags.

use serde::{Deserialize, Serialize};

/// What a shopper may narrow the catalogue to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    New,
    Best,
}

impl Tag {
    pub const ALL: &'static [Tag] = &[Tag::New, Tag::Best];

    pub fn as_str(self) -> &'static str {
        match self {
            Tag::New => "new",
            Tag::Best => "best",
        }
    }

    pub fn from_word(word: &str) -> Option<Tag> {
        Tag::ALL.iter().copied().find(|tag| tag.as_str() == word)
    }
}
