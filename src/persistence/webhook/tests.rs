//! Endpoints, the queue behind the flush, and deliveries, as their owners use them.

use rstest::rstest;

use super::*;
use crate::clock::Clock;
use crate::config::MasterKeys;
use crate::domain::id::{DeliveryId, EndpointId, ProductId};
use crate::domain::stock::{Counts, KeyUse, Millis, Sequence};
use crate::domain::webhook::{EventKind, Happening};
use crate::persistence::Tables;
use crate::persistence::sql::mysql::Server;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{T0, new_database};
use crate::vault::Vault;

const LEASE: i64 = 1_000;

fn endpoint(number: u128, kinds: &[EventKind]) -> Endpoint {
    Endpoint {
        id: EndpointId::new(T0, number),
        url: "https://hooks.example.com/".to_owned(),
        description: "the warehouse".to_owned(),
        kinds: kinds.iter().copied().collect(),
        state: EndpointState::Enabled,
        failing_since: None,
        created_at: T0,
        updated_at: T0,
    }
}

fn secret(endpoint: EndpointId, made_of: u64) -> SecretRow {
    let vault = Vault::new(&MasterKeys::one([7; 32]), &Clock::start()).unwrap();
    let key = vault.new_key().unwrap();
    SecretRow { endpoint, number: 1, key, secret: b"sealed".to_vec(), expires_at: None, made_of }
}

fn key(byte: u8) -> Option<KeyUse> {
    Some(KeyUse { key: [byte; 16], body: u64::from(byte) })
}

fn happening(number: u128) -> Happening {
    let counts = Counts { on_hand: 5, held: 2, sold: 1 };
    Happening::of_stock(ProductId::new(T0, number), Sequence(3), T0, counts)
}

fn delivery(number: u128, endpoint: &Endpoint, made: Millis) -> Delivery {
    let event = happening(number);
    Delivery::new(DeliveryId::new(made, number), endpoint.id, event.id, event.kind, "{}".to_owned())
}

async fn rows(home: Home) -> (tempfile::TempDir, Tables, WebhookRows) {
    let (dir, tables) = home.tables().await;
    let rows = tables.webhooks();
    (dir, tables, rows)
}

async fn tell(rows: &WebhookRows, pos: i64, happenings: &[Happening]) {
    insert_events(&mut rows.store.writer().await.unwrap(), pos, happenings).await.unwrap();
}

async fn with_deliveries(home: Home, deliveries: &[Delivery]) -> (tempfile::TempDir, Tables, WebhookRows) {
    let (dir, tables, rows) = rows(home).await;
    tell(&rows, 1, &[happening(1)]).await;
    let taken = rows.events(9).await.unwrap().unwrap();
    rows.fan_out(&taken, deliveries).await.unwrap();
    (dir, tables, rows)
}

#[rstest]
#[tokio::test]
async fn what_is_written_follows_from_the_enabled_endpoints(#[values(Sqlite, MySql)] home: Home) {
    let (dir, tables, rows) = rows(home).await;
    let wanted = |rows: &WebhookRows| rows.interest().kinds().words();
    assert_eq!(wanted(&rows), "");
    let (paid, gone) = (endpoint(1, &[EventKind::OrderPaid]), endpoint(2, &[EventKind::StockSoldOut]));
    rows.register(&paid, &secret(paid.id, 0), None, 9).await.unwrap();
    rows.register(&gone, &secret(gone.id, 0), None, 9).await.unwrap();
    assert_eq!(wanted(&rows), "order.paid,stock.sold_out");
    assert!(rows.disable(gone.id, Reason::Gone, T0).await.unwrap());
    assert!(!rows.disable(gone.id, Reason::Failing, T0).await.unwrap());
    assert_eq!(wanted(&rows), "order.paid");
    assert_eq!(rows.endpoint(gone.id).await.unwrap().unwrap().state, EndpointState::Disabled(Reason::Gone));
    tables.close().await.unwrap();

    let tables = home.open(&dir).await;
    let rows = tables.webhooks();
    assert_eq!(wanted(&rows), "order.paid", "after a restart too");
    let changed = rows.change(gone.id, |gone| gone.state = EndpointState::Enabled).await.unwrap();
    assert_eq!(changed.state, EndpointState::Enabled);
    assert_eq!(wanted(&rows), "order.paid,stock.sold_out");
    rows.remove(gone.id, T0).await.unwrap();
    rows.remove(paid.id, T0).await.unwrap();
    assert!(matches!(rows.remove(paid.id, T0).await, Err(EndpointError::NoEndpoint)));
    assert_eq!((wanted(&rows), rows.endpoints().await.unwrap()), (String::new(), Vec::new()));
    assert_eq!(rows.all_secrets().await.unwrap(), [], "they are destroyed at once");
}

#[rstest]
#[tokio::test]
async fn secrets_follow_one_another_and_a_key_makes_one(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, _tables, rows) = rows(home).await;
    let endpoint = endpoint(1, &[EventKind::OrderPaid]);
    rows.register(&endpoint, &secret(endpoint.id, 1), key(1), 9).await.unwrap();
    let next = secret(endpoint.id, 2);
    rows.rotate(&next, key(2), T0, T0.plus(10), 3).await.unwrap();
    assert!(matches!(rows.rotate(&next, key(2), T0, T0.plus(10), 3).await, Err(EndpointError::KeyTaken)));
    rows.rotate(&next, None, T0.plus(1), T0.plus(11), 3).await.unwrap();
    let ends = async || {
        let secrets = rows.secrets(endpoint.id).await.unwrap();
        secrets
            .iter()
            .map(|secret| (secret.number, secret.expires_at.map(|at| at.0 - T0.0)))
            .collect::<Vec<_>>()
    };
    assert_eq!(ends().await, [(3, None), (2, Some(11)), (1, Some(10))]);
    let full = rows.rotate(&next, None, T0.plus(2), T0.plus(12), 3).await;
    assert!(matches!(full, Err(EndpointError::TooMany)));
    // Whoever has made the last one hears of that, and not that there is no room.
    let again = rows.rotate(&next, key(2), T0.plus(2), T0.plus(12), 3).await;
    assert!(matches!(again, Err(EndpointError::KeyTaken)));
    assert_eq!(ends().await, [(3, None), (2, Some(11)), (1, Some(10))]);
    rows.rotate(&next, None, T0.plus(10), T0.plus(20), 3).await.unwrap();
    assert_eq!(ends().await, [(4, None), (3, Some(20)), (2, Some(11))]);
    let found = rows.secret_by_key(key(2).unwrap().key).await.unwrap().unwrap();
    assert_eq!((found.number, found.made_of), (2, 2));
    let nobody = rows.rotate(&secret(EndpointId::new(T0, 9), 0), None, T0, T0, 3).await;
    assert!(matches!(nobody, Err(EndpointError::NoEndpoint)));
}

#[rstest]
#[tokio::test]
async fn events_become_deliveries_in_their_order_and_once(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, _tables, rows) = rows(home).await;
    assert_eq!(rows.events(9).await.unwrap(), None);
    tell(&rows, 7, &[happening(1), happening(2)]).await;
    tell(&rows, 8, &[happening(3)]).await;
    let taken = rows.events(2).await.unwrap().unwrap();
    assert_eq!(
        taken.events.iter().map(|told| told.id).collect::<Vec<_>>(),
        [happening(1).id, happening(2).id]
    );
    let product = ProductId::new(T0, 1);
    assert_eq!(
        taken.events[0].data,
        format!(r#"{{"product_id":"{product}","sequence":3,"available":2,"held":2,"sold":1}}"#)
    );
    let endpoint = endpoint(1, &[EventKind::StockChanged]);
    rows.fan_out(&taken, &[delivery(1, &endpoint, T0)]).await.unwrap();
    let rest = rows.events(9).await.unwrap().unwrap();
    assert_eq!(rest.events.iter().map(|told| told.id).collect::<Vec<_>>(), [happening(3).id]);
    rows.fan_out(&rest, &[]).await.unwrap();
    assert_eq!(rows.events(9).await.unwrap(), None);
    assert_eq!(rows.deliveries(endpoint.id, None, None, 9).await.unwrap(), [delivery(1, &endpoint, T0)]);
}

#[rstest]
#[tokio::test]
async fn a_delivery_is_claimed_by_one_until_the_lease_runs_out(#[values(Sqlite, MySql)] home: Home) {
    let (mine, other) = (endpoint(1, &[EventKind::StockChanged]), endpoint(2, &[]));
    let due = [delivery(1, &mine, T0), delivery(2, &mine, T0.plus(10)), delivery(3, &other, T0)];
    let (_dir, _tables, rows) = with_deliveries(home, &due).await;
    let claim = async |now: i64| rows.claim(mine.id, T0.plus(now), T0.plus(now + LEASE), 9).await.unwrap();
    assert_eq!(claim(-1).await, []);
    let first = claim(10).await;
    assert_eq!(
        first.iter().map(|c| (c.delivery.id, c.delivery.tries)).collect::<Vec<_>>(),
        [(due[0].id, 1), (due[1].id, 1)]
    );
    assert_eq!(claim(10).await, []);
    assert_eq!(rows.next_due(mine.id).await.unwrap(), Some(T0.plus(10 + LEASE)));
    let mut again = claim(10 + LEASE).await;
    assert_eq!(again[0].delivery.tries, 2);
    assert!(!rows.mark(&first[0], T0).await.unwrap(), "it is somebody else's by now");
    again[0].delivery.state = DeliveryState::Dead;
    again[0].delivery.last_status = Some(500);
    assert!(rows.mark(&again[0], T0.plus(5)).await.unwrap());
    let seen = rows.waiting(mine.id, 100).await.unwrap();
    assert_eq!(seen, Waiting { waiting: 1, dead: 1, oldest: Some(T0.plus(10)) });
    let dead = rows.deliveries(mine.id, Some(DeliveryState::Dead), None, 9).await.unwrap();
    assert_eq!((dead.len(), dead[0].last_status, dead[0].tries), (1, Some(500), 2));

    let edition = rows.interest().edition();
    assert!(rows.again(dead[0].id, None, T0.plus(9)).await.unwrap());
    assert!(!rows.again(dead[0].id, None, T0.plus(9)).await.unwrap(), "it waits already");
    assert_ne!(rows.interest().edition(), edition);
    assert_eq!(claim(10).await[0].delivery.tries, 1);
}

/// Where the answer to a commit was lost nobody was told what it had changed.
#[rstest]
#[tokio::test]
async fn what_endpoints_want_is_read_again(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, _tables, rows) = rows(home).await;
    let mine = endpoint(1, &[EventKind::StockChanged]);
    rows.register(&mine, &secret(mine.id, 0), None, 9).await.unwrap();
    rows.listen_for_tests(Kinds::default());
    let edition = rows.interest().edition();
    rows.look_again().await.unwrap();
    assert_eq!(rows.interest().kinds(), mine.kinds);
    assert_ne!(rows.interest().edition(), edition, "and endpoints are read again, too");
}

#[rstest]
#[tokio::test]
async fn deliveries_are_listed_newest_first_whatever_their_state(#[values(Sqlite, MySql)] home: Home) {
    let mine = endpoint(1, &[EventKind::StockChanged]);
    let all: Vec<_> = (1..=5).map(|number| delivery(number, &mine, T0.plus(number as i64))).collect();
    let (_dir, _tables, rows) = with_deliveries(home, &all).await;
    let mut claimed = rows.claim(mine.id, T0.plus(9), T0.plus(99), 9).await.unwrap();
    claimed[1].delivery.state = DeliveryState::Delivered;
    claimed[3].delivery.state = DeliveryState::Dead;
    for claimed in [&claimed[1], &claimed[3]] {
        assert!(rows.mark(claimed, T0).await.unwrap());
    }
    let page = async |before, limit| {
        let found = rows.deliveries(mine.id, None, before, limit).await.unwrap();
        found.into_iter().map(|delivery| delivery.created_at.0 - T0.0).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 3).await, [5, 4, 3]);
    assert_eq!(page(Some(all[2].id), 9).await, [2, 1]);
}

#[rstest]
#[tokio::test]
async fn what_is_old_or_belongs_to_nobody_is_swept(#[values(Sqlite, MySql)] home: Home) {
    let (mine, gone) = (endpoint(1, &[EventKind::StockChanged]), endpoint(2, &[]));
    let all = [
        delivery(1, &mine, T0),
        delivery(2, &mine, T0.plus(1)),
        delivery(3, &mine, T0.plus(50)),
        delivery(4, &gone, T0.plus(90)),
    ];
    let (_dir, _tables, rows) = with_deliveries(home, &all).await;
    for endpoint in [&mine, &gone] {
        rows.register(endpoint, &secret(endpoint.id, 0), None, 9).await.unwrap();
    }
    let mut claimed = rows.claim(mine.id, T0.plus(1), T0.plus(99), 9).await.unwrap();
    claimed[1].delivery.state = DeliveryState::Delivered;
    rows.mark(&claimed[1], T0).await.unwrap();
    let left = async || {
        let left = rows.deliveries(mine.id, None, None, 9).await.unwrap();
        left.into_iter().map(|delivery| delivery.created_at.0 - T0.0).collect::<Vec<_>>()
    };
    assert!(!rows.sweep(T0.plus(40), T0).await.unwrap());
    assert_eq!(left().await, [50, 0], "what arrived goes first");
    assert!(!rows.sweep(T0.plus(40), T0.plus(40)).await.unwrap());
    assert_eq!(left().await, [50]);
    rows.remove(gone.id, T0).await.unwrap();
    assert!(rows.sweep(T0, T0).await.unwrap(), "its deliveries");
    assert!(rows.sweep(T0, T0).await.unwrap(), "and its row");
    assert!(!rows.sweep(T0, T0).await.unwrap());
    assert_eq!(rows.deliveries(gone.id, None, None, 9).await.unwrap(), []);
    assert_eq!(left().await, [50]);
}

/// Whoever sweeps has looked before he drops.
#[rstest]
#[tokio::test]
async fn what_is_to_be_sent_again_is_not_swept(#[values(Sqlite, MySql)] home: Home) {
    let mine = endpoint(1, &[EventKind::StockChanged]);
    let all = [delivery(1, &mine, T0), delivery(2, &mine, T0)];
    let (_dir, _tables, rows) = with_deliveries(home, &all).await;
    for mut claimed in rows.claim(mine.id, T0, T0.plus(99), 9).await.unwrap() {
        claimed.delivery.state = DeliveryState::Delivered;
        assert!(rows.mark(&claimed, T0).await.unwrap());
    }
    let seen = all.iter().map(|delivery| delivery.id.as_bytes().to_vec()).collect();
    assert!(rows.again(all[0].id, None, T0.plus(1)).await.unwrap());
    assert!(!rows.drop_some(&delivery::DROP_DELIVERED, seen).await.unwrap());
    let left = rows.deliveries(mine.id, None, None, 9).await.unwrap();
    assert_eq!(left.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [all[0].id]);
    // Nor where it is so old that all goes which was not touched since.
    rows.sweep(T0.plus(1), T0.plus(1)).await.unwrap();
    assert_eq!(rows.deliveries(mine.id, None, None, 9).await.unwrap().len(), 1);
    rows.sweep(T0.plus(2), T0.plus(2)).await.unwrap();
    assert!(rows.deliveries(mine.id, None, None, 9).await.unwrap().is_empty());
}

/// It was a lead, and others have told and dropped since it looked.
#[tokio::test]
async fn a_node_that_counts_as_dead_drops_and_marks_nothing() {
    let url = new_database().await;
    let rows = Tables::connect(&url).await.unwrap().webhooks();
    let mine = endpoint(1, &[EventKind::StockChanged]);
    rows.register(&mine, &secret(mine.id, 0), None, 9).await.unwrap();
    tell(&rows, 1, &[happening(1)]).await;
    let taken = rows.events(9).await.unwrap().unwrap();
    rows.fan_out(&taken, &[delivery(1, &mine, T0)]).await.unwrap();
    let claimed = rows.claim(mine.id, T0, T0.plus(LEASE), 9).await.unwrap().remove(0);
    let nobody = Server::at(&url).unwrap().of_node(7);
    let dead = Tables::on(&nobody).await.unwrap().webhooks();
    assert!(dead.mark(&claimed, T0).await.is_err());
    assert!(dead.failing(mine.id, Some(T0)).await.is_err());
    assert!(dead.sweep(T0.plus(1), T0.plus(1)).await.is_err());
    assert_eq!(rows.endpoint(mine.id).await.unwrap().unwrap().failing_since, None);
    assert_eq!(rows.deliveries(mine.id, None, None, 9).await.unwrap().len(), 1);
    assert!(rows.mark(&claimed, T0).await.unwrap(), "whoever has it");
}

#[rstest]
#[tokio::test]
async fn a_key_has_it_sent_again_once(#[values(Sqlite, MySql)] home: Home) {
    let mine = endpoint(1, &[EventKind::StockChanged]);
    let told = delivery(1, &mine, T0);
    let (_dir, _tables, rows) = with_deliveries(home, std::slice::from_ref(&told)).await;
    let arrives = async || {
        let mut claimed = rows.claim(mine.id, T0.plus(9), T0.plus(99), 1).await.unwrap().remove(0);
        claimed.delivery.state = DeliveryState::Delivered;
        assert!(rows.mark(&claimed, T0).await.unwrap());
    };
    arrives().await;
    for (key, is_new) in [(Some([1; 16]), true), (Some([1; 16]), false), (None, true), (Some([1; 16]), false)]
    {
        assert_eq!(rows.again(told.id, key, T0.plus(1)).await.unwrap(), is_new, "{key:?}");
        if is_new {
            arrives().await;
        }
        assert!(rows.was_again_by(told.id, [1; 16]).await.unwrap());
    }
    assert!(rows.again(told.id, Some([2; 16]), T0.plus(1)).await.unwrap());
    assert!(!rows.was_again_by(told.id, [1; 16]).await.unwrap());
}
