//! Names of things: sixteen bytes inside, a typed and time-sortable word outside.
//!
//! An id is a UUIDv7 shown as a TypeID (<https://github.com/jetify-com/typeid>): a prefix, an underscore and
//! 26 letters of lower-case Crockford base 32. A word with a foreign prefix never parses, so an order's id can
//! never be mistaken for a product's.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::stock::Millis;

/// Products are spread over this many shards; an order carries the shard of its home.
pub const SHARDS: u16 = 1024;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LEN: usize = 26;
/// The longest word: prefix, underscore, suffix.
const WORD_LEN_MAX: usize = 8 + SUFFIX_LEN;

/// The word is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct NotAnId;

/// Sixteen bytes as 26 letters, most significant first.
fn encode(bytes: [u8; 16]) -> [u8; SUFFIX_LEN] {
    let value = u128::from_be_bytes(bytes);
    let mut out = [0u8; SUFFIX_LEN];
    // Twelve letters at a time: 60 bits fit a register.
    for (at, slots) in out.rchunks_mut(12).enumerate() {
        let mut part = (value >> (60 * at)) as u64;
        for slot in slots.iter_mut().rev() {
            *slot = ALPHABET[(part & 31) as usize];
            part >>= 5;
        }
    }
    out
}

fn decode(suffix: &str) -> Result<[u8; 16], NotAnId> {
    let letters = suffix.as_bytes();
    // 26 letters hold 130 bits: a first letter above 7 would overflow the 128.
    if letters.len() != SUFFIX_LEN || letters[0] > b'7' {
        return Err(NotAnId);
    }
    let mut value = 0u128;
    for letter in letters {
        let digit = match letter {
            b'0'..=b'9' => letter - b'0',
            b'a'..=b'h' => letter - b'a' + 10,
            b'j' | b'k' => letter - b'j' + 18,
            b'm' | b'n' => letter - b'm' + 20,
            b'p'..=b't' => letter - b'p' + 22,
            b'v'..=b'z' => letter - b'v' + 27,
            _ => return Err(NotAnId),
        };
        value = (value << 5) | u128::from(digit);
    }
    Ok(value.to_be_bytes())
}

/// A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then version, variant and 74 bits of chance.
fn uuid_v7(at: Millis, chance: u128) -> [u8; 16] {
    let millis = (at.0.max(0) as u128) & 0xffff_ffff_ffff;
    let rand_a = (chance >> 64) & 0xfff;
    let rand_b = chance & 0x3fff_ffff_ffff_ffff;
    ((millis << 80) | (7 << 76) | (rand_a << 64) | (2 << 62) | rand_b).to_be_bytes()
}

pub(in crate::domain) struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = [u8; 16];

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("sixteen bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<[u8; 16], E> {
        v.try_into().map_err(|_| E::custom("not sixteen bytes"))
    }
}

/// Any of these ids: a word that says what it names and nothing about it.
pub trait TypedId: fmt::Display {
    /// The sixteen bytes, as a table keeps them.
    fn sixteen(&self) -> &[u8; 16];
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The word before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id from the time and 128 bits of chance, both handed in.
            pub fn new(at: Millis, chance: u128) -> Self {
                Self(uuid_v7(at, chance))
            }

            /// The id with these sixteen bytes, as a table keeps it.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The sixteen bytes, as a table keeps them.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The lowest that an id made at this time can be.
            pub fn first_at(at: Millis) -> Self {
                let millis = (at.0.max(0) as u128) & 0xffff_ffff_ffff;
                Self((millis << 80).to_be_bytes())
            }

            /// When it was made, after the clock of whoever made it.
            pub fn made_at(&self) -> Millis {
                Millis((u128::from_be_bytes(self.0) >> 80) as i64)
            }
        }

        impl $name {
            /// The word, in the first of so many bytes.
            fn letters(&self) -> ([u8; WORD_LEN_MAX], usize) {
                let mut word = [0; WORD_LEN_MAX];
                let head = $prefix.len() + 1;
                word[..head].copy_from_slice(concat!($prefix, "_").as_bytes());
                word[head..head + SUFFIX_LEN].copy_from_slice(&encode(self.0));
                (word, head + SUFFIX_LEN)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                let (word, len) = self.letters();
                f.write_str(std::str::from_utf8(&word[..len]).unwrap_or_default())
            }
        }

        impl TypedId for $name {
            fn sixteen(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(word: &str) -> Result<Self, NotAnId> {
                let suffix = word.strip_prefix(concat!($prefix, "_")).ok_or(NotAnId)?;
                decode(suffix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if !s.is_human_readable() {
                    return s.serialize_bytes(&self.0);
                }
                let (word, len) = self.letters();
                s.serialize_str(std::str::from_utf8(&word[..len]).unwrap_or_default())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let word = std::borrow::Cow::<str>::deserialize(d)?;
                    word.parse().map_err(D::Error::custom)
                } else {
                    d.deserialize_bytes(BytesVisitor).map(Self)
                }
            }
        }
    };
}

typed_id!(
    /// A product of the catalogue; each has one stock owner.
    ProductId, "prod");
typed_id!(
    /// An order. Its lowest ten bits are the shard of its home, so that any node can find it.
    OrderId, "order");
typed_id!(
    /// One attempt to pay one order.
    PaymentId, "pay");
typed_id!(
    /// Money on its way back.
    RefundId, "ref");
typed_id!(
    /// What one administrator has asked for and another one has to ask for as well.
    ApprovalId, "apr");
typed_id!(
    /// A person who buys or administers.
    UserId, "user");
typed_id!(
    /// One log-in of one device: the family of refresh tokens that followed from it.
    SessionId, "sess");
typed_id!(
    /// A mail on its way. Its `Message-ID` is made of it, so that a mail sent twice is one mail.
    MailId, "mail");

typed_id!(
    /// Somebody's receiver of webhooks.
    EndpointId, "whe");
typed_id!(
    /// Something that happened and is told to endpoints. The same happening has the same id, however often it is told.
    EventId, "evt");
typed_id!(
    /// One event on its way to one endpoint.
    DeliveryId, "whd");

impl ProductId {
    /// The shard this product belongs to: a hash, so that neighbours in time do not share one.
    pub fn shard(&self) -> u16 {
        (xxhash_rust::xxh3::xxh3_64(&self.0) % u64::from(SHARDS)) as u16
    }
}

impl OrderId {
    /// A new id for an order whose home lies on `shard`.
    pub fn for_home(at: Millis, chance: u128, home: ProductId) -> Self {
        let value = u128::from_be_bytes(uuid_v7(at, chance)) & !u128::from(SHARDS - 1);
        Self((value | u128::from(home.shard())).to_be_bytes())
    }

    /// The shard of the order's home.
    pub fn shard(&self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]]) & (SHARDS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_and_the_bytes_are_the_same_id() {
        // The example of the TypeID specification.
        let bytes = 0x0189_0a5d_ac96_774b_bcce_b302_099a_8057_u128.to_be_bytes();
        let id = ProductId::from_bytes(bytes);
        assert_eq!(id.to_string(), "prod_01h455vb4pex5vsknk084sn02q");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_foreign_or_malformed_word_is_no_id() {
        let order = OrderId::new(Millis(1), 2).to_string();
        assert_eq!(order.parse::<ProductId>(), Err(NotAnId));
        for word in
            ["", "prod_", "prod_8zzzzzzzzzzzzzzzzzzzzzzzzz", "prod_0000000000000000000000000i", "prod"]
        {
            assert_eq!(word.parse::<ProductId>(), Err(NotAnId), "{word}");
        }
    }

    #[test]
    fn an_order_knows_the_shard_of_its_home_and_its_time() {
        let home = ProductId::new(Millis(77), 12345);
        let order = OrderId::for_home(Millis(1_700_000_000_123), u128::MAX, home);
        assert_eq!(order.shard(), home.shard());
        assert_eq!(order.made_at(), Millis(1_700_000_000_123));
    }
}
