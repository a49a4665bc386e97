//! A lead, and a node that owned something before: what it wrote until it followed, or until it went, is known before its keys count as new.

use tokio::sync::Notify;

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
    /// A session that answers when it is let, and not before.
    slow: Cell<u64>,
    let_answer: Rc<Notify>,
}

impl Leading for Ways {
    fn lead(&self, node: &NodeName, _: Word) -> Told {
        if node.session == self.slow.get() {
            let may_answer = self.let_answer.clone();
            return Box::pin(async move {
                may_answer.notified().await;
                Ok(())
            });
        }
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
    url: String,
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
        let lead = Journal::connect(config(&url)).await.unwrap().0;
        let owner = beside(&url).await;
        let (mut shop, tables) = (Owner::stocked(1, 1_000), Tables::connect(&url).await.unwrap());
        let own = lead.epoch().0;
        let other = owner.epoch().0.cast_signed();
        lead.give(&[shop.product.shard()], own.cast_signed(), other).await.unwrap();
        write(&owner, &mut shop, 1..2);

        let line = Arc::new(Line(Arc::default()));
        let directory = testing::directory(line, &OneJournal::default(), &Clock::start(), own);
        let keys = directory.house().keys.clone();
        let ways = Rc::new(Ways { follow: Cell::new(follow), slow: Cell::new(0), let_answer: Rc::default() });
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
        Story { url, lead, owner, tables, ways, shop, keys, placing, stop: watch::Sender::new(false) }
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

/// Nobody's heart is seen to stop.
fn config(url: &str) -> DatabaseConfig {
    let timing = Timing { dead_after: Duration::from_secs(3_600), ..Timing::default() };
    DatabaseConfig { timing, ..DatabaseConfig::new(url, Clock::start()) }
}

/// A node that may own.
async fn beside(url: &str) -> Journal {
    let neighbours = Arc::new(Neighbours::new(Some("127.0.0.1:1".to_owned()), true));
    Journal::join(DatabaseConfig { neighbours, ..config(url) }).await.unwrap().0
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

#[actix::test]
async fn what_the_dead_have_left_waits_for_nobody_who_owns_nothing() {
    let mut story = Story::begin(true).await;
    let stranger = beside(&story.url).await;
    let session = stranger.epoch().0;
    story.ways.slow.set(session);
    story.owner_goes().await;
    story.looks().await;
    assert_eq!(Rc::strong_count(&story.ways.let_answer), 2, "its answer was waited for until there was none");
    assert!(story.placing.unsettled.is_empty() && !story.placing.told.contains_key(&session));
    // It answers late, and is one of many then.
    story.ways.slow.set(0);
    story.ways.let_answer.notify_one();
    let following = async {
        while story.placing.shards_of(session).is_empty() {
            story.looks().await;
        }
    };
    timeout(Duration::from_secs(30), following).await.expect("it follows, and is given its share");
    stranger.close().await;
    story.ends().await;
}
