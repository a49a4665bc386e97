//! The setting of one history: what is for sale, who comes, how the network and the disk behave.
//!
//! Everything follows from the seed.

use stockade::domain::amount::{Currency, Money};
use stockade::domain::id::{ProductId, UserId};
use stockade::domain::stock::Settings;

use crate::chance::Chance;
use crate::time::{MS, Micros, SECOND, shown};

/// Load and faults come until here.
pub const FAULTS_END: Micros = 60 * SECOND;
/// By then everything must have come to rest (I14).
pub const REST_BY: Micros = FAULTS_END + 60 * SECOND;
/// What came to nothing is remembered for so long. A question is answered, and an order of several lines is born, long before.
pub const ENDED_REMEMBERED_MS: i64 = 15_000;
/// The least faults a history must have met.
pub const FAULTS_MIN: u64 = 8;

#[derive(Debug, Clone)]
pub struct ProductPlan {
    pub id: ProductId,
    pub settings: Settings,
    pub stock: u64,
}

/// Very many buyers of one product at one moment, while the disk stands still.
#[derive(Debug, Clone, Copy)]
pub struct Rush {
    pub at: Micros,
    pub buyers: usize,
    pub stall: Micros,
    /// Nobody pays: all of it lapses, and is forgotten.
    pub idle: bool,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub products: Vec<ProductPlan>,
    pub shoppers: usize,
    pub rush: Option<Rush>,
    /// The most questions that wait at one owner.
    pub mailbox_max: usize,
    /// Faults planned.
    pub faults: usize,
    /// Of a hundred answers, how many are lost on their way.
    pub loss_percent: u64,
    pub drift_ppm: i64,
    /// The usual time of one journal write.
    pub write_us: Micros,
    /// Questions an owner takes out of its mailbox in one turn.
    pub batch: usize,
    /// Of a hundred answers to a placement, how many find it gone; and how many *keep*s are lost.
    pub walk_away_percent: u64,
    /// Mean pause of a shopper between two wishes.
    pub think: Micros,
}

pub fn user(chance: &mut Chance) -> UserId {
    UserId::new(shown(0), chance.wide())
}

fn settings(chance: &mut Chance) -> Settings {
    let opens_at = chance.percent(25).then(|| shown(chance.between(2, 9) * SECOND));
    let closes_at = chance.percent(25).then(|| shown(chance.between(30, 75) * SECOND));
    Settings {
        price: Money { amount: chance.between(1, 50) * 100, currency: Currency::KRW },
        opens_at,
        closes_at,
        per_customer_limit: chance.percent(40).then(|| chance.between(1, 6) as u32),
        hold_ms: chance.one_of([900, 1_500, 3_000, 8_000, 20_000, 600_000]),
    }
}

fn product(chance: &mut Chance) -> ProductPlan {
    let id = ProductId::new(shown(0), chance.wide());
    let stock = chance.between(0, 12) as u64 * chance.one_of([1, 1, 3, 8]);
    ProductPlan { id, settings: settings(chance), stock }
}

impl Scenario {
    /// Of the questions that wait at one owner, how many may be reservations.
    pub fn reserves_max(&self) -> usize {
        self.mailbox_max * 4 / 5
    }

    pub fn of(seed: u64) -> Scenario {
        let mut chance = Chance::new(seed, 1);
        let count = chance.between(2, 4);
        let mut products: Vec<ProductPlan> = (0..count).map(|_| product(&mut chance)).collect();
        products.sort_by_key(|product| product.id);
        let rush = chance.percent(4).then(|| {
            let idle = chance.percent(50);
            Rush {
                at: chance.between(10, if idle { 25 } else { 40 }) * SECOND,
                // An owner forgets by itself what is more than a thousand.
                buyers: if idle { 1_500 } else { 800 },
                stall: chance.between(1_200, 2_200) * MS,
                idle,
            }
        });
        if let (Some(rush), Some(hot)) = (rush, products.first_mut()) {
            hot.stock = if rush.idle { 1_300 } else { 650 };
            hot.settings = Settings {
                opens_at: None,
                closes_at: None,
                per_customer_limit: None,
                hold_ms: 3_000,
                ..hot.settings.clone()
            };
        }
        Scenario {
            products,
            shoppers: chance.between(20, 60) as usize,
            rush,
            mailbox_max: if rush.is_none() && chance.percent(20) {
                chance.between(2, 8) as usize
            } else {
                4_096
            },
            faults: chance.between(10, 16) as usize,
            loss_percent: chance.one_of([0, 1, 3, 10]),
            drift_ppm: chance.between(-200, 200),
            write_us: chance.one_of([150, 400, 1_500, 6_000]),
            batch: chance.one_of([1, 4, 512, 512]),
            walk_away_percent: chance.one_of([0, 0, 1, 4]),
            think: chance.one_of([400, 1_200, 3_000]) * MS,
        }
    }
}
