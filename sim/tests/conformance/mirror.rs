//! Two writers and a reader of one mirror, with the shop's own scripts.

use std::sync::Arc;
use std::time::Duration;

use stockade::config;
use stockade::domain::amount::{Currency, Money};
use stockade::domain::id::ProductId;
use stockade::domain::stock::{Counts, Epoch, Millis, Sequence, Settings};
use stockade::persistence::redis::{Generation, Link, Mirrored, Redis as Shop, Version};
use stockade::telemetry::Metrics;
use stockade_servers::Redis;
use stockade_sim::chance::Chance;
use stockade_sim::mirror::{Flaw, Store};

const STEPS: usize = 300;
const SEEDS: u64 = 4;
const HUNT_SEEDS: u64 = 8;
const PRODUCTS: u64 = 3;
const GENERATIONS: u64 = 3;

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

/// One schedule; the first answer that differs.
async fn play(links: &[Arc<Link>; 2], url: &str, seed: u64, flaw: Option<Flaw>) -> Result<(), String> {
    let client = redis::Client::open(url).unwrap();
    let mut keeper = client.get_multiplexed_async_connection().await.unwrap();
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
                let found = link.write(&generation, &sent).await.unwrap();
                let told = model
                    .write(&generation, views.into_iter().map(|(at, version)| (at, version, view(version))));
                (found != told).then(|| format!("a write: {told:?}, and {found:?}"))
            }
            35..55 => {
                let (epoch, first) = (Epoch(chance.between(1, 2) as u64), chance.percent(40));
                let found = link.beat(epoch, &generation, Duration::ZERO, first).await.unwrap();
                let told = model.beat(epoch, &generation, first);
                (found != told).then(|| format!("a beat: {told:?}, and {found:?}"))
            }
            55..85 => {
                let found = link.look(product(which)).await.unwrap().map(|sighting| sighting.view);
                let told = model.look(&which);
                (found != told).then(|| format!("a look: {told:?}, and {found:?}"))
            }
            85..94 => {
                let found = link.stored(&[product(which)]).await.unwrap().pop().flatten();
                let told = model.stored(&which);
                (found != told).then(|| format!("what is stored: {told:?}, and {found:?}"))
            }
            94..98 => {
                link.forget(product(which)).await.unwrap();
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
            return Err(format!("step {step}: {what}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_model_of_the_mirror_answers_as_a_real_one() {
    let server = Redis::started().await.unwrap();
    let place: config::Redis = server.url().parse().unwrap();
    let open = || Shop::open(&place).unwrap();
    let shops = [open(), open()];
    let kept = shops.clone().map(|shop| tokio::spawn(async move { shop.keep(Metrics::global()).await }));
    let mut links = Vec::new();
    for shop in &shops {
        let mut up = shop.watch();
        tokio::time::timeout(Duration::from_secs(10), up.wait_for(|up| *up))
            .await
            .expect("it answers")
            .unwrap();
        links.push(shop.link().unwrap());
    }
    let links: [Arc<Link>; 2] = links.try_into().unwrap_or_else(|_| panic!("two"));
    for seed in 1..=SEEDS {
        if let Err(what) = play(&links, &server.url(), seed, None).await {
            panic!("seed {seed}: {what}");
        }
    }
    for flaw in Flaw::ALL {
        let mut seen = None;
        for seed in 1..=HUNT_SEEDS {
            if let Err(what) = play(&links, &server.url(), seed, Some(flaw)).await {
                seen = Some(what);
                break;
            }
        }
        assert!(seen.is_some(), "{flaw:?} is not noticed");
    }
    kept.into_iter().for_each(|task| task.abort());
}
