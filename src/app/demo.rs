//! What an empty shop starts with in development, and what it says about itself: something to buy, somebody to be, and a line
//! to paste.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Result;

use super::Store;
use crate::clock::Clock;
use crate::domain::amount::{Currency, Money};
use crate::domain::id::ProductId;
use crate::domain::stock::{HOLD_MS_DEFAULT, Millis, Settings};
use crate::domain::user::Role;
use crate::persistence::product::{Along, Product};
use crate::seed::{self, Goods};
use crate::tokens::Tokens;

/// Long enough for an afternoon of trying things out.
const TOKEN_LIFE_S: i64 = 12 * 3_600;

struct Sample {
    sku: &'static str,
    name: &'static str,
    description: &'static str,
    tags: &'static [&'static str],
    won: i64,
    stock: u64,
    per_customer_limit: Option<u32>,
}

/// The last one is listed first: a hundred for everybody, at most two for each.
const SAMPLES: [Sample; 5] = [
    Sample {
        sku: "CUP-MOON-02",
        name: "Moon jar cup, pair",
        description: "Two white porcelain cups, thrown by hand; no two pairs alike.",
        tags: &["best"],
        won: 48_000,
        stock: 40,
        per_customer_limit: None,
    },
    Sample {
        sku: "TEA-UJEON-50",
        name: "Ujeon green tea, 50 g",
        description: "First picking of the year, from before the spring rain.",
        tags: &["new"],
        won: 65_000,
        stock: 250,
        per_customer_limit: Some(3),
    },
    Sample {
        sku: "VINYL-TIDE-LP",
        name: "Low Tide, 180 g vinyl, numbered",
        description: "Pressed once, five hundred copies, each with its number on the sleeve.",
        tags: &["new"],
        won: 42_000,
        stock: 500,
        per_customer_limit: Some(1),
    },
    Sample {
        sku: "SEAT-GALA-A",
        name: "New Year's Eve concert, stalls",
        description: "One seat in the stalls, doors at seven. The last units of a full house.",
        tags: &[],
        won: 180_000,
        stock: 12,
        per_customer_limit: Some(4),
    },
    Sample {
        sku: "SNEAKER-HARBOR-270",
        name: "Harbor 01 sneaker, 270 mm",
        description: "A hundred pairs, once.",
        tags: &["new", "best"],
        won: 199_000,
        stock: 100,
        per_customer_limit: Some(2),
    },
];

/// Products among which the one to try is looked for.
const NEWEST: u32 = 100;

/// Puts the samples on the shelf if there is nothing at all; says which product is the one to try.
pub async fn furnish(store: &Store, clock: &Clock) -> Result<Option<ProductId>> {
    if store.journal.head().pos == 0 && store.tables.products().count().await? == 0 {
        let now = clock.now();
        let goods = (0i64..).zip(&SAMPLES).map(|(at, sample)| sample.goods(now.plus(at), clock)).collect();
        seed::stock_up(store, goods).await?;
        seed::flush(store).await?;
    }
    let newest = store.tables.products().signs(&Along::Age, None, NEWEST).await?;
    let left = newest.iter().find(|sign| !sign.archived && sign.available > Some(0));
    Ok(left.map(|sign| sign.place.product))
}

impl Sample {
    fn goods(&self, at: Millis, clock: &Clock) -> Goods {
        Goods {
            product: Product {
                id: ProductId::new(at, clock.chance()),
                sku: self.sku.to_owned(),
                name: self.name.to_owned(),
                description: self.description.to_owned(),
                thumbnail_url: None,
                image_url: None,
                tags: self.tags.iter().map(|&tag| tag.to_owned()).collect(),
                archived: false,
                version: 1,
                created_at: at,
                updated_at: at,
            },
            settings: Settings {
                price: Money { amount: self.won, currency: Currency::KRW },
                opens_at: None,
                closes_at: None,
                per_customer_limit: self.per_customer_limit,
                hold_ms: HOLD_MS_DEFAULT,
            },
            stock: self.stock,
        }
    }
}

/// What a developer sees first, on standard output.
pub fn greeting(
    addr: SocketAddr,
    ops_addr: Option<SocketAddr>,
    tokens: &Tokens,
    clock: &Clock,
    featured: Option<ProductId>,
) -> Result<String> {
    let sign =
        |user, role| tokens.sign(seed::seed_user(user), role, TOKEN_LIFE_S, clock.now(), clock.chance());
    let (shopper, admin) = (sign(1, Role::Shopper)?, sign(0, Role::Admin)?);
    let mut text = String::new();
    writeln!(text, "\nThe shop is open: http://{addr}/v1/products")?;
    let ops = ops_addr.unwrap_or(addr);
    writeln!(text, "Reference:        http://{ops}/docs")?;
    writeln!(text, "Metrics:          http://{ops}/metrics")?;
    writeln!(text, "\nBoth tokens are good for twelve hours (`stockade token` signs more).")?;
    writeln!(text, "export TOKEN={shopper}")?;
    writeln!(text, "export ADMIN={admin}")?;
    if let Some(product) = featured {
        writeln!(text, "\nAn order:")?;
        writeln!(text, "curl -s http://{addr}/v1/orders -H \"Authorization: Bearer $TOKEN\" \\")?;
        writeln!(text, "  -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first-order' \\")?;
        writeln!(text, "  -d '{{\"items\": [{{\"product_id\": \"{product}\", \"quantity\": 1}}]}}'")?;
    }
    Ok(text)
}
