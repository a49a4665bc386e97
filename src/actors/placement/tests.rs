//! A lead, and a node that owned something before: what it wrote until it followed, or until it went, is known before its keys count as new.

use super::*;
use crate::actors::stock::testing::{self, Line, OneJournal};
use crate::actors::stock::{Used, UsedKeys};
use crate::clock::Clock;
use crate::domain::stock::Fingerprint;
use crate::persistence::journal::{Appended, DatabaseConfig, Neighbours, Timing};
use crate::persistence::testing::{Owner, T0, append, buyer, new_database, order};

/// Whoever is told that this node leads follows it, or does not answer.
struct Ways {
    follow: Cell<bool>,
}

impl Leading for Ways {
    fn lead(&self, _: &NodeName, _: Word) -> Told {
        let heard = if self.follow.get() { Ok(()) } else { Err(NotAsked::NotSent) };
        Box::pin(async move { heard })
    }

    fn let_go(&self, _: &NodeName, _: Word, _: Vec<u16>) -> Told {
        Box::pin(async { Ok(()) })
    }

    fn views(&self, _: &Directory, _: &NodeName, _: u64) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

struct Story {
    lead: Journal,
    owner: Journal,
    tables: Tables,
    ways: Rc<Ways>,
    shop: Owner,
    keys: UsedKeys,
    placing: Placing,
    stop: watch::Sender<bool>,
}

impl Story {
    /// The owner has written an order, the first, for the lead before this one.
    async fn begin(follow: bool) -> Story {
        let url = new_database().await;
        let timing = Timing { dead_after: Duration::from_secs(3_600), ..Timing::default() };
        let config = || DatabaseConfig { timing, ..DatabaseConfig::new(&url, Clock::start()) };
        let lead = Journal::connect(config()).await.unwrap().0;
        let neighbours = Arc::new(Neighbours::new(Some("127.0.0.1:1".to_owned()), true));
        let owner = Journal::join(DatabaseConfig { neighbours, ..config() }).await.unwrap().0;
        let (mut shop, tables) = (Owner::stocked(1, 1_000), Tables::connect(&url).await.unwrap());
        let own = lead.epoch().0;
        let other = owner.epoch().0.cast_signed();
        lead.give(&[shop.product.shard()], own.cast_signed(), other).await.unwrap();
        write(&owner, &mut shop, 1..2);

        let line = Arc::new(Line(Arc::default()));
        let directory = testing::directory(line, &OneJournal::default(), &Clock::start(), own);
        let keys = directory.house().keys.clone();
        let ways = Rc::new(Ways { follow: Cell::new(follow) });
        let house = PlacementHouse {
            journal: lead.clone(),
            directory: directory.clone(),
            tables: tables.clone(),
            nodes: ways.clone(),
            following: Following::new(lead.clone(), directory),
            hot: Arc::default(),
            shares: Arc::default(),
        };
        let mut placing = Placing::of(house, Keys::behind(0, &lead, &keys)).await.unwrap();
        placing.begin().await.unwrap();
        Story { lead, owner, tables, ways, shop, keys, placing, stop: watch::Sender::new(false) }
    }

    fn used(&self, number: u128) -> Used {
        let key = *order(number, self.shop.product).as_bytes();
        self.keys.used(Fingerprint::of(buyer(number), key))
    }

    /// Its session is ended.
    async fn owner_goes(&self) {
        assert!(self.lead.end_session(self.owner.epoch().0.cast_signed()).await.unwrap());
    }

    async fn looks(&mut self) {
        let peers = self.lead.peers_now().await.unwrap();
        self.placing.step(&peers, &self.stop.subscribe()).await.unwrap();
    }

    async fn ends(self) {
        drop(self.placing);
        self.owner.close().await;
        self.lead.close().await;
        self.tables.close().await.unwrap();
    }
}

/// Orders with these numbers, each under a key of its own.
fn write(journal: &Journal, shop: &mut Owner, numbers: std::ops::Range<u128>) {
    for number in numbers {
        shop.hold(order(number, shop.product), buyer(number), 1, T0);
    }
    assert_eq!(append(journal, shop.seal(T0)), Appended::Written);
}

#[actix::test]
async fn nothing_is_read_again_when_somebody_goes_who_had_followed() {
    let mut story = Story::begin(true).await;
    let product = story.shop.product;
    assert_eq!((story.used(1), story.keys.len()), (Used::For(product), (1, 0)));
    // As a lead asks for them for weeks: it knows the keys of whatever it asks, and has put these by since.
    write(&story.owner, &mut story.shop, 2..200);
    story.owner_goes().await;
    story.looks().await;
    assert_eq!(story.keys.len(), (1, 0));
    assert!(story.keys.owners_are_heard());
    story.ends().await;
}

#[rstest::rstest]
#[actix::test]
async fn no_key_is_new_until_whoever_owned_something_follows_or_has_gone(#[values(true, false)] goes: bool) {
    let mut story = Story::begin(false).await;
    let product = story.shop.product;
    assert_eq!((story.used(1), story.used(9)), (Used::For(product), Used::Unheard));
    // The lead before had asked for it.
    write(&story.owner, &mut story.shop, 2..3);
    story.looks().await;
    assert_eq!((story.used(2), story.used(9)), (Used::Unheard, Used::Unheard));
    match goes {
        true => story.owner_goes().await,
        false => story.ways.follow.set(true),
    }
    story.looks().await;
    assert_eq!((story.used(2), story.used(9)), (Used::For(product), Used::Never));
    story.ends().await;
}
