//! The mirror: of each product the view that its owner has published last, and a beat that says how new all of them are.
//!
//! | key | what |
//! |---|---|
//! | `stockade:{<product id>}:view` | `version` (epoch and sequence), `generation`, `view` as JSON |
//! | `stockade:{mirror}:beat` | `epoch`, `generation`, `at`: until when, after Redis's own clock, everything published is in the mirror |
//!
//! Always true: an older version never takes the place of a newer one. A view is told only while its generation is the beat's: whoever
//! cannot be sure that all it wrote is still there begins another generation, and what is left of the one before is worth nothing.
//! Redis takes commands of one connection in their order, so a view that is read behind the beat is as new as the beat says. No
//! key lapses: what is told of one is told by its beat.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{FromRedisValue, Script, Value};
use serde::{Deserialize, Serialize};

use super::wire::call;
use super::{Link, NoRedis};
use crate::domain::id::ProductId;
use crate::domain::stock::{Counts, Epoch, Millis, Sequence, Settings};

const BEAT_KEY: &str = "stockade:{mirror}:beat";

/// Refuses what is older, and tells those who listen in the same breath.
const WRITE: &str = r"
local known = redis.call('HGET', KEYS[1], 'version')
if known and known > ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'generation', ARGV[2], 'view', ARGV[3])
if known == ARGV[1] then return 1 end
redis.call('PUBLISH', ARGV[4], ARGV[1] .. ' ' .. ARGV[3])
return 2
";

/// Moves the beat, unless somebody newer has it, or it is not the one that was set before.
const BEAT: &str = r"
local known = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if known[1] and known[1] > ARGV[1] then return 0 end
if ARGV[4] == '0' and known[2] ~= ARGV[2] then return 1 end
local now = redis.call('TIME')
local at = now[1] * 1000000 + now[2] - ARGV[3]
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[2], 'at', string.format('%.0f', at))
return 2
";

/// The beat, and how many microseconds ago it was, after one and the same clock.
const LOOK: &str = r"
local beat = redis.call('HMGET', KEYS[1], 'generation', 'at')
if not beat[1] or not beat[2] then return {} end
local now = redis.call('TIME')
return {beat[1], string.format('%.0f', now[1] * 1000000 + now[2] - beat[2])}
";

static WRITE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(WRITE));
static BEAT_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(BEAT));
static LOOK_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(LOOK));
pub(super) static SCRIPTS: [&LazyLock<Script>; 3] = [&WRITE_SCRIPT, &BEAT_SCRIPT, &LOOK_SCRIPT];

/// How new a view is: first by its owner, then by its event. As a word it sorts as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub epoch: Epoch,
    pub sequence: Sequence,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:020}.{:020}", self.epoch.0, self.sequence.0)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(word: &str) -> Result<Version, ()> {
        let (epoch, sequence) = word.split_once('.').ok_or(())?;
        let number = |word: &str| word.parse().map_err(drop);
        Ok(Version { epoch: Epoch(number(epoch)?), sequence: Sequence(number(sequence)?) })
    }
}

/// A view on its way to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    pub version: Version,
    pub counts: Counts,
    pub settings: Arc<Settings>,
    pub paused: bool,
    pub archived: bool,
    pub as_of: Millis,
}

/// What stands behind the version.
#[derive(Serialize, Deserialize)]
struct Body {
    counts: Counts,
    settings: Arc<Settings>,
    paused: bool,
    archived: bool,
    as_of: Millis,
}

impl Mirrored {
    fn body(&self) -> Result<String, NoRedis> {
        let body = Body {
            counts: self.counts,
            settings: self.settings.clone(),
            paused: self.paused,
            archived: self.archived,
            as_of: self.as_of,
        };
        serde_json::to_string(&body).map_err(|error| NoRedis::Damaged(error.to_string()))
    }

    fn parse(version: &str, body: &str) -> Option<Mirrored> {
        let Body { counts, settings, paused, archived, as_of } = serde_json::from_str(body).ok()?;
        Some(Mirrored { version: version.parse().ok()?, counts, settings, paused, archived, as_of })
    }

    /// What was said on a product's channel.
    pub(super) fn heard(message: &str) -> Option<Mirrored> {
        let (version, body) = message.split_once(' ')?;
        Mirrored::parse(version, body)
    }
}

/// One unbroken run of one writer, named by chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation(String);

impl Generation {
    pub fn new(chance: u128) -> Generation {
        Generation(format!("{chance:032x}"))
    }
}

/// A beat as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    pub epoch: Epoch,
    pub generation: Generation,
    /// All that was published until then is in the mirror, by Redis's own clock.
    pub at: Millis,
}

/// What became of a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    Kept,
    /// It is not there any more, or another's: what was written may be gone as well.
    Lost,
    /// A newer owner has taken the mirror over.
    Older,
}

/// What became of views that were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrote {
    pub changed: u64,
    pub same: u64,
    /// Refused: something newer stands there.
    pub older: u64,
}

/// What the mirror shows of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub view: Mirrored,
    /// It was the newest this long ago, or later.
    pub age: Duration,
}

fn key(product: ProductId) -> String {
    format!("stockade:{{{product}}}:view")
}

/// The channel of a product's changes.
pub(super) fn channel(product: ProductId) -> String {
    format!("stockade:{{{product}}}:stock")
}

impl Link {
    /// Writes views, all in one round trip.
    pub async fn write(
        &self,
        generation: &Generation,
        views: &[(ProductId, Mirrored)],
    ) -> Result<Wrote, NoRedis> {
        let mut calls = Vec::with_capacity(views.len());
        for (product, view) in views {
            let mut command = call(&WRITE_SCRIPT, &key(*product));
            command.arg(view.version.to_string()).arg(&generation.0).arg(view.body()?).arg(channel(*product));
            calls.push(command);
        }
        let mut wrote = Wrote::default();
        for answer in self.wire.call_all(&calls).await? {
            match u64::from_redis_value(answer).map_err(redis::RedisError::from)? {
                0 => wrote.older += 1,
                1 => wrote.same += 1,
                _ => wrote.changed += 1,
            }
        }
        Ok(wrote)
    }

    /// Says that everything published until `behind` ago is in the mirror. `first`: of this generation.
    pub async fn beat(
        &self,
        epoch: Epoch,
        generation: &Generation,
        behind: Duration,
        first: bool,
    ) -> Result<Beat, NoRedis> {
        let mut command = call(&BEAT_SCRIPT, BEAT_KEY);
        command.arg(format!("{:020}", epoch.0)).arg(&generation.0);
        command.arg(behind.as_micros().to_string()).arg(u8::from(first));
        let answer = self.wire.call_all(&[command]).await?.pop().unwrap_or(Value::Nil);
        Ok(match u64::from_redis_value(answer).map_err(redis::RedisError::from)? {
            0 => Beat::Older,
            1 => Beat::Lost,
            _ => Beat::Kept,
        })
    }

    /// What the mirror shows of a product, if it can tell how old that is. `age` does not count the way here.
    pub async fn look(&self, product: ProductId) -> Result<Option<Sighting>, NoRedis> {
        let mut fields = redis::cmd("HMGET");
        fields.arg(key(product)).arg(&["version", "generation", "view"]);
        // The beat first: a view that is read behind it can only be newer than it says.
        let (beat, fields) = self.wire.call_in_order(call(&LOOK_SCRIPT, BEAT_KEY), fields).await?;
        let beat: Vec<String> = Vec::from_redis_value(beat).map_err(redis::RedisError::from)?;
        let [current, elapsed] = &beat[..] else { return Ok(None) };
        let age = Duration::from_micros(elapsed.parse().unwrap_or(0));
        Ok(match stored(fields, product)? {
            Some((generation, view)) if generation.0 == *current => Some(Sighting { view, age }),
            _ => None,
        })
    }

    /// The last beat, however long ago it was.
    pub async fn beaten(&self) -> Result<Option<Beaten>, NoRedis> {
        let mut fields = redis::cmd("HMGET");
        fields.arg(BEAT_KEY).arg(&["epoch", "generation", "at"]);
        let fields = self.wire.ask(&fields).await?;
        let fields: Vec<Option<String>> = Vec::from_redis_value(fields).map_err(redis::RedisError::from)?;
        let [Some(epoch), Some(generation), Some(at)] = &fields[..] else { return Ok(None) };
        let (Ok(epoch), Ok(at_us)) = (epoch.parse(), at.parse::<i64>()) else {
            return Err(NoRedis::Damaged(BEAT_KEY.to_owned()));
        };
        let generation = Generation(generation.clone());
        Ok(Some(Beaten { epoch: Epoch(epoch), generation, at: Millis(at_us / 1_000) }))
    }

    /// Takes a product out of the mirror.
    pub async fn forget(&self, product: ProductId) -> Result<(), NoRedis> {
        let mut command = redis::cmd("DEL");
        command.arg(key(product));
        self.wire.ask(&command).await.map(drop)
    }

    /// What stands in the mirror under these products, whatever it is worth; what cannot be read is worth nothing.
    pub async fn stored(
        &self,
        products: &[ProductId],
    ) -> Result<Vec<Option<(Generation, Mirrored)>>, NoRedis> {
        let reads = products.iter().map(|product| {
            let mut fields = redis::cmd("HMGET");
            fields.arg(key(*product)).arg(&["version", "generation", "view"]);
            fields
        });
        let answers = self.wire.ask_all(&reads.collect::<Vec<_>>()).await?;
        answers
            .into_iter()
            .zip(products)
            .map(|(fields, product)| readable(stored(fields, *product)))
            .collect()
    }
}

fn readable<T>(stored: Result<Option<T>, NoRedis>) -> Result<Option<T>, NoRedis> {
    match stored {
        Err(NoRedis::Damaged(_)) => Ok(None),
        stored => stored,
    }
}

fn stored(fields: Value, product: ProductId) -> Result<Option<(Generation, Mirrored)>, NoRedis> {
    let fields: Vec<Option<String>> = Vec::from_redis_value(fields).map_err(redis::RedisError::from)?;
    let [Some(version), Some(generation), Some(body)] = &fields[..] else { return Ok(None) };
    match Mirrored::parse(version, body) {
        Some(view) => Ok(Some((Generation(generation.clone()), view))),
        None => Err(NoRedis::Damaged(key(product))),
    }
}

/// A version, a newline and a view; and an answer of Redis as it came.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_views(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((version, body)) = text.split_once('\n')
        && let Some(view) = Mirrored::parse(version, body)
    {
        let again = view.body().ok().and_then(|body| Mirrored::parse(&view.version.to_string(), &body));
        assert_eq!(again, Some(view), "what was read is written and read again");
    }
    let _ = Mirrored::heard(&text);
    if let Ok(answer) = redis::parse_redis_value(bytes) {
        let _ = stored(answer, ProductId::from_bytes([1; 16]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, sequence: u64) -> Version {
        Version { epoch: Epoch(epoch), sequence: Sequence(sequence) }
    }

    #[test]
    fn versions_sort_as_words_as_they_do_as_numbers() {
        let rising = [version(0, u64::MAX), version(1, 0), version(1, 9), version(1, 10), version(10, 1)];
        for pair in rising.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string(), "{pair:?}");
            assert_eq!(pair[0].to_string().parse(), Ok(pair[0]));
        }
    }

    #[test]
    fn all_keys_of_a_product_share_its_hash_tag() {
        let product = ProductId::new(Millis(1), 1);
        let tag = format!("{{{product}}}");
        assert!(key(product).contains(&tag) && channel(product).contains(&tag));
    }
}
