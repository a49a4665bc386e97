//! Two writers and a reader of one mirror, with the shop's own scripts.

use std::sync::Arc;
use std::time::Duration;

use stockade::config;
use stockade::domain::amount::{Currency, Money};
use stockade::domain::id::ProductId;
use stockade::domain::stock::{Counts, Epoch, Millis, Sequence, Settings};
use stockade::persistence::redis::{Generation, Link, Mirrored, NoRedis, Redis as Shop, Version};
use stockade::telemetry::Metrics;
use stockade_servers::Redis;
use stockade_sim::chance::Chance;
use stockade_sim::mirror::{Flaw, Store};

const STEPS: usize = 300;
const SEEDS: u64 = 4;
const HUNT_SEEDS: u64 = 8;
const PRODUCTS: u64 = 3;
const GENERATIONS: u64 = 3;
const LOST_MAX: usize = 8;

fn view(version: Version) -> Mirrored {
    let price = Money { amount: 1_000, currency: Currency::KRW };
    let settings =
        Settings { price, opens_at: None, closes_at: None, per_customer_limit: None, hold_ms: 60_000 };
    let counts = Counts { on_hand: 1_000, held: version.sequence.0, sold: version.epoch.0 };
    Mirrored {
        version,
        counts,
        settings: Arc::new(settings),
        paused: false,
        archived: false,
        as_of: Millis(1),
    }
}

fn product(number: u64) -> ProductId {
    ProductId::new(Millis(1), number.into())
}

/// One schedule; the first answer that differs. A word that is lost on the way may have been heard, so the schedule begins anew; a
/// server that is never in time is a finding.
async fn play(shops: &[Shop; 2], url: &str, seed: u64, flaw: Option<Flaw>) -> Result<(), String> {
    for _ in 0..LOST_MAX {
        match try_play(&links(shops).await, url, seed, flaw).await {
            Ok(found) => return found,
            Err(why) if is_lost(&why) => shops.iter().for_each(Shop::doubt),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    panic!("seed {seed}: {LOST_MAX} times a word was lost")
}

/// It was not refused: it was not heard, or its answer was not.
fn is_lost(why: &NoRedis) -> bool {
    match why {
        NoRedis::Away | NoRedis::Late => true,
        NoRedis::Failed(error) => error.is_timeout() || error.is_io_error() || error.is_connection_dropped(),
        NoRedis::Damaged(_) => false,
    }
}

/// A link of each.
async fn links(shops: &[Shop; 2]) -> [Arc<Link>; 2] {
    let link = async |shop: &Shop| {
        let mut up = shop.watch();
        let coming = async {
            loop {
                up.wait_for(|up| *up).await.unwrap();
                match shop.link() {
                    Some(link) => return link,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), coming).await.expect("it answers")
    };
    [link(&shops[0]).await, link(&shops[1]).await]
}

/// The same, unless a word is lost.
async fn try_play(
    links: &[Arc<Link>; 2],
    url: &str,
    seed: u64,
    flaw: Option<Flaw>,
) -> Result<Result<(), String>, NoRedis> {
    let client = redis::Client::open(url).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let mut keeper = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let mut flush = async || redis::cmd("FLUSHALL").query_async::<()>(&mut keeper).await.unwrap();
    flush().await;
    let (mut model, mut chance) = (Store::new(flaw), Chance::new(seed, 78));
    for step in 0..STEPS {
        let link = &links[chance.index(links.len())];
        let generation = Generation::new(chance.below(GENERATIONS).into());
        let which = chance.below(PRODUCTS);
        let differs = match chance.below(100) {
            0..35 => {
                let count = chance.between(1, 3) as u64;
                let views: Vec<(u64, Version)> = (0..count)
                    .map(|at| {
                        let epoch = Epoch(chance.between(1, 3) as u64);
                        ((which + at) % PRODUCTS, Version { epoch, sequence: Sequence(chance.below(12)) })
                    })
                    .collect();
                let sent: Vec<_> = views.iter().map(|(at, version)| (product(*at), view(*version))).collect();
                let found = link.write(&generation, &sent).await?;
                let told = model
                    .write(&generation, views.into_iter().map(|(at, version)| (at, version, view(version))));
                (found != told).then(|| format!("a write: {told:?}, and {found:?}"))
            }
            35..55 => {
                let (epoch, first) = (Epoch(chance.between(1, 2) as u64), chance.percent(40));
                let found = link.beat(epoch, &generation, Duration::ZERO, first).await?;
                let told = model.beat(epoch, &generation, first);
                (found != told).then(|| format!("a beat: {told:?}, and {found:?}"))
            }
            55..85 => {
                let found = link.look(product(which)).await?.map(|sighting| sighting.view);
                let told = model.look(&which);
                (found != told).then(|| format!("a look: {told:?}, and {found:?}"))
            }
            85..94 => {
                let found = link.stored(&[product(which)]).await?.pop().flatten();
                let told = model.stored(&which);
                (found != told).then(|| format!("what is stored: {told:?}, and {found:?}"))
            }
            94..98 => {
                link.forget(product(which)).await?;
                model.forget(&which);
                None
            }
            _ => {
                flush().await;
                model.flush();
                None
            }
        };
        if let Some(what) = differs {
            return Ok(Err(format!("step {step}: {what}")));
        }
    }
    Ok(Ok(()))
}

#[tokio::test]
async fn the_model_of_the_mirror_answers_as_a_real_one() {
    let server = Redis::started().await.unwrap();
    let place: config::Redis = server.url().parse().unwrap();
    let open = || Shop::open(&place).unwrap();
    let shops = [open(), open()];
    let kept = shops.clone().map(|shop| tokio::spawn(async move { shop.keep(Metrics::global()).await }));
    for seed in 1..=SEEDS {
        if let Err(what) = play(&shops, &server.url(), seed, None).await {
            panic!("seed {seed}: {what}");
        }
    }
    for flaw in Flaw::ALL {
        let mut seen = None;
        for seed in 1..=HUNT_SEEDS {
            if let Err(what) = play(&shops, &server.url(), seed, Some(flaw)).await {
                seen = Some(what);
                break;
            }
        }
        assert!(seen.is_some(), "{flaw:?} is not noticed");
    }
    kept.into_iter().for_each(|task| task.abort());
}
