//! What becomes of whoever walks.
//!
//! Always true: what a process that dies leaves is what is in its files in that moment. Nothing is ended in order first, so the tables
//! are as far behind the journal as they were.

use stockade::actors::payment::LEASE_MS;

use super::support::{Held, Shop, film};
use super::{Shelf, choose};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Dies,
    Sleeps,
}
use Fault::{Dies, Sleeps};

/// Before somebody dies the tables show all that there is, and from now on nothing more.
pub(super) async fn stand_still(shelf: &Shelf, fault: Fault) -> Option<Held> {
    shelf.shop.tables_follow().await;
    match fault {
        Dies => Some(shelf.shop.hold("shop.db").await),
        Sleeps => None,
    }
}

/// Whoever walked is gone, and with him all that is not in a file; or his claims have run out. `tables`: by whom they are kept still, if they are.
pub(super) async fn die(
    shelf: Shelf,
    tables: Option<Held>,
    fault: Fault,
    faults: &str,
    attempts: u8,
) -> Shelf {
    let shop = &shelf.shop;
    match fault {
        Dies => {
            let tables = match tables {
                Some(held) => held,
                None => shop.hold("shop.db").await,
            };
            // Nobody writes to a file while it is copied: all of them are of one moment, the provider's book among them.
            let held = [tables, shop.hold("money.db").await, shop.hold("journal.db").await];
            let left = tempfile::tempdir().unwrap();
            film::copy(shop.folder(), left.path());
            for file in held {
                file.let_go().await;
            }
            shelf.shop.close().await;
            let shop = Shop::open_in_with(left, |config| choose(config, faults, attempts)).await;
            Shelf { shop, products: shelf.products }
        }
        Sleeps => {
            shop.clock.advance(LEASE_MS + 1);
            shelf
        }
    }
}
