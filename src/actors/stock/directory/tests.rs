//! What a directory does with an owner that is about to go.

use super::*;
use crate::actors::stock::Route;
use crate::actors::stock::testing::{OneJournal, all_shards, node, product, settings};

#[actix::test]
async fn whoever_wants_to_watch_does_not_stay_with_an_owner_that_goes() {
    let (net, journal, clock) = (Arc::default(), OneJournal::default(), Clock::start());
    let owners = node(&net, &journal, &clock, 1, 1).await;
    owners.settle(&all_shards(), Route::Here).await;
    let product = product(1);
    let create = Command::Create { settings: settings(), stock: 1 };
    assert!(matches!(owners.ask(product, create).await, Ok(Answer::Done { .. })));
    let owner = owners.owner(product).unwrap();
    // As one does that rests, a moment before it is forgotten.
    assert!(owner.inbox.close_if_empty());
    let watch = owners.watch(product).await.unwrap();
    assert!(!watch.is_over());
}
