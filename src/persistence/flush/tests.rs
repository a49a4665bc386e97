//! Exactly once, whatever the slices, and found again by everyone who reads.

mod doubt;
mod dropped;

use rstest::rstest;

use super::*;
use crate::domain::id::EventId;
use crate::domain::order::{LineStatus, Order, OrderStatus};
use crate::domain::product::Tag;
use crate::domain::stock::{Attempt, Back, CameBack, Cause, Command, Counts, Entry, Millis, Place};
use crate::domain::webhook::EventKind;
use crate::persistence::product::{Along, Place as Spot, Product, ProductError, name_key};
use crate::persistence::sql::sqlite;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::*;

/// Two products and every way an order can go. Returns the entries in order of writing.
fn a_day_in_the_shop() -> (Owner, Owner, Vec<Entry>) {
    let (mut a, mut b) = (Owner::stocked(1, 100), Owner::stocked(2, 100));
    let pa = a.product;
    let mut entries = vec![a.seal(T0), b.seal(T0)];
    let now = T0.plus(10);
    for number in 1..=6 {
        a.hold(order(number, pa), buyer(number % 3), number as u32, now);
    }
    entries.push(a.seal(now));
    a.does(&Command::Release { order: order(1, pa), cause: Cause::Cancelled, by: 1 }, now);
    a.does(&Command::Pin { order: order(2, pa), attempt: Attempt::FIRST }, now);
    a.does(&Command::Confirm { order: order(2, pa), quantity: units(1), attempt: Attempt::FIRST }, now);
    a.does(&Command::Pin { order: order(3, pa), attempt: Attempt::FIRST }, now);
    a.does(&Command::Unpin { order: order(3, pa), attempt: Attempt::FIRST }, now.plus(590_000));
    entries.push(a.seal(now.plus(590_000)));

    // One order of two lines that is born, and one that is not.
    let late = now.plus(590_000);
    let (born, unborn) = (order(11, pa), order(12, pa));
    a.hold_for(born, 0, buyer(7), 2, Some(pa), late).hold_for(unborn, 0, buyer(7), 2, Some(pa), late);
    b.hold_for(born, 1, buyer(7), 3, Some(pa), late).hold_for(unborn, 1, buyer(7), 3, Some(pa), late);
    entries.extend([a.seal(late), b.seal(late)]);
    let lines = vec![a.placed_line(born), b.placed_line(born)];
    a.does(&Command::Place(Place { order: born, deadline: late.plus(600_000), lines }), late.plus(1));
    entries.push(a.seal(late.plus(1)));
    b.does(&Command::Keep { order: born, deadline: late.plus(600_000) }, late.plus(2));
    b.does(&Command::Release { order: unborn, cause: Cause::NotPlaced, by: 0 }, late.plus(2));
    a.does(&Command::Release { order: unborn, cause: Cause::NotPlaced, by: 0 }, late.plus(2));
    entries.extend([b.seal(late.plus(2)), a.seal(late.plus(2))]);
    a.lapse(late.plus(20_000));
    entries.push(a.seal(late.plus(20_000)));
    for owner in [&mut a, &mut b] {
        owner.does(&Command::Pin { order: born, attempt: Attempt::FIRST }, late.plus(3));
        owner.does(
            &Command::Confirm { order: born, quantity: units(2), attempt: Attempt::FIRST },
            late.plus(30_000),
        );
        entries.push(owner.seal(late.plus(30_000)));
    }
    b.does(
        &Command::Return {
            order: born,
            quantity: units(2),
            back: Back::WrittenOff,
            why: CameBack::Cancelled,
            by: 5,
        },
        late.plus(40_000),
    );
    b.does(&Command::Pause, late.plus(40_000));
    entries.push(b.seal(late.plus(40_000)));
    (a, b, entries)
}

async fn flushed_in_slices_of(home: Home, events_max: u64) -> (Vec<Order>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let tables = home.open(&dir).await;
    let (a, b, entries) = a_day_in_the_shop();
    append_all(&journal, entries);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    assert!(flusher.gauge().lag().events > 0);
    while let Some(plan) = flusher.plan(events_max).await.unwrap() {
        flusher.write(&plan).await.unwrap();
    }
    assert_eq!(flusher.gauge().lag(), Lag::default());
    for owner in [&a, &b] {
        let row = tables.stock().find(owner.product).await.unwrap().unwrap();
        assert_eq!(row.counts, owner.ledger.counts());
        assert_eq!((row.sequence, row.hash), (owner.ledger.sequence(), owner.ledger.hash()));
    }
    journal.save_snapshot(a.product, a.ledger.sequence(), a.ledger.snapshot()).await.unwrap();
    let ids: Vec<_> = (1..=12).map(|number| order(number, a.product)).collect();
    let orders = tables.orders().find_many(&ids).await.unwrap();
    journal.close().await;
    tables.close().await.unwrap();
    (orders, dir)
}

/// More of either kind than one statement moves.
#[rstest]
#[tokio::test]
async fn orders_that_move_in_one_slice_keep_their_own_times(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, home.open(&dir).await);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    let mut a = Owner::stocked(1, 1_000);
    let ids: Vec<_> = (1..=140).map(|number| order(number, a.product)).collect();
    for id in &ids {
        a.hold(*id, buyer(1), 1, T0);
    }
    append_all(&journal, vec![a.seal(T0)]);
    flusher.run_slice().await.unwrap();

    let ends = |after: i64| if after % 2 == 0 { OrderStatus::Cancelled } else { OrderStatus::Paid };
    let moved = (1..).zip(&ids).map(|(after, id)| {
        let now = T0.plus(after);
        match ends(after) {
            OrderStatus::Paid => {
                a.does(&Command::Pin { order: *id, attempt: Attempt::FIRST }, now);
                a.does(&Command::Confirm { order: *id, quantity: units(1), attempt: Attempt::FIRST }, now);
            }
            _ => {
                a.does(&Command::Release { order: *id, cause: Cause::Cancelled, by: 1 }, now);
            }
        }
        a.seal(now)
    });
    append_all(&journal, moved.collect());
    assert_eq!(flusher.run_slice().await.unwrap().events, 210);
    let mut orders = tables.orders().find_many(&ids).await.unwrap();
    orders.sort_by_key(|order| order.id);
    let found: Vec<_> = orders.iter().map(|order| (order.status, order.updated_at, order.version)).collect();
    let expected: Vec<_> = (1..=140).map(|after| (ends(after), T0.plus(after), 2)).collect();
    assert_eq!(found, expected);
    journal.close().await;
    tables.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn the_rows_do_not_depend_on_the_slices(#[values(Sqlite, MySql)] home: Home) {
    let (orders, _dir) = flushed_in_slices_of(home, 1).await;
    assert_eq!(flushed_in_slices_of(home, 7).await.0, orders);
    assert_eq!(flushed_in_slices_of(home, 10_000).await.0, orders);

    let told: Vec<String> = orders
        .iter()
        .map(|order| {
            let lines: Vec<_> = order
                .lines
                .iter()
                .map(|line| format!("{}×{} {}", line.line, line.quantity, line.status.as_str()))
                .collect();
            format!(
                "{} {} v{} {}",
                order.total.amount,
                order.status.as_str(),
                order.version,
                lines.join(", ")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "1000 cancelled v2 0×1 released",
            "2000 paid v2 0×1 ordered",
            "3000 pending_payment v2 0×3 held",
            "4000 expired v2 0×4 released",
            "5000 expired v2 0×5 released",
            "6000 expired v2 0×6 released",
            "5000 paid v2 0×2 ordered, 1×2 cancelled",
        ]
    );
}

/// Orders of two lines that were paid, and ways in which their lines end. `home_first` says whose entry is written first.
fn a_day_of_returns(home_first: bool) -> Vec<Entry> {
    let (mut a, mut b) = (Owner::stocked(1, 100), Owner::stocked(2, 100));
    let pa = a.product;
    let mut entries = vec![a.seal(T0), b.seal(T0)];
    let (attempt, deadline) = (Attempt::FIRST, T0.plus(600_000));
    let two = units(2);
    for order in (1..=6).map(|number| order(number, pa)) {
        a.hold_for(order, 0, buyer(7), 2, Some(pa), T0);
        b.hold_for(order, 1, buyer(7), 2, Some(pa), T0);
        let lines = vec![a.placed_line(order), b.placed_line(order)];
        a.does(&Command::Place(Place { order, deadline, lines }), T0);
        b.does(&Command::Keep { order, deadline }, T0);
    }
    entries.extend([a.seal(T0), b.seal(T0)]);
    for owner in [&mut b, &mut a] {
        for order in (1..=6).map(|number| order(number, pa)) {
            owner.does(&Command::Pin { order, attempt }, T0.plus(1));
            owner.does(&Command::Confirm { order, quantity: two, attempt }, T0.plus(2));
        }
        entries.push(owner.seal(T0.plus(2)));
    }
    let back = |number: u128, units_back: u32, why, by| {
        let (order, quantity, back) = (order(number, pa), units(units_back), Back::ToStock);
        Command::Return { order, quantity, back, why, by }
    };
    use CameBack::{Cancelled, Returned};
    for command in [
        back(1, 2, Cancelled, 1),
        back(2, 2, Returned, 1),
        back(3, 2, Cancelled, 1),
        // The home's line in parts.
        back(5, 1, Returned, 1),
        back(5, 1, Cancelled, 2),
        back(6, 1, Cancelled, 1),
    ] {
        a.does(&command, T0.plus(3));
    }
    for command in [
        back(1, 2, Cancelled, 1),
        back(2, 2, Returned, 1),
        back(3, 2, Returned, 1),
        back(4, 2, Cancelled, 1),
        back(5, 2, Cancelled, 1),
        back(6, 2, Cancelled, 1),
    ] {
        b.does(&command, T0.plus(3));
    }
    let (a, b) = (a.seal(T0.plus(3)), b.seal(T0.plus(3)));
    entries.extend(if home_first { [a, b] } else { [b, a] });
    entries
}

#[rstest]
#[tokio::test]
async fn a_paid_order_ends_with_its_last_line_whichever_that_is(#[values(Sqlite, MySql)] home: Home) {
    let mut all = Vec::new();
    for (home_first, events_max) in [(true, 1), (true, 17), (true, 10_000), (false, 1), (false, 10_000)] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir).await;
        let tables = home.open(&dir).await;
        append_all(&journal, a_day_of_returns(home_first));
        let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
        while let Some(plan) = flusher.plan(events_max).await.unwrap() {
            flusher.write(&plan).await.unwrap();
        }
        let ids: Vec<_> = (1..=6).map(|number| order(number, product(1))).collect();
        all.push(tables.orders().find_many(&ids).await.unwrap());
        journal.close().await;
        tables.close().await.unwrap();
        assert_eq!(home.audit(&dir).await.differences, [""; 0], "{home_first} {events_max}");
        let tables = home.open(&dir).await;
        let late = "update orders set status = 'paid' where status = 'closed'";
        sql::query(late).execute(&mut *tables.writer().await.unwrap()).await.unwrap();
        tables.close().await.unwrap();
        assert_ne!(home.audit(&dir).await.differences, [""; 0]);
    }
    let told: Vec<String> = all[0]
        .iter()
        .map(|order| {
            let [home, other] = [0, 1].map(|line| order.lines[line].status.as_str());
            format!("{} v{} {home} {other}", order.status.as_str(), order.version)
        })
        .collect();
    assert_eq!(
        told,
        [
            "cancelled v3 cancelled cancelled",
            "returned v3 returned returned",
            "closed v3 cancelled returned",
            "paid v2 ordered cancelled",
            "cancelled v3 cancelled cancelled",
            "paid v2 ordered cancelled",
        ]
    );
    assert!(all.iter().all(|orders| *orders == all[0]));
}

/// A copy takes as long as what has gathered, so with somebody waiting less is let gather.
#[tokio::test]
async fn a_wal_is_copied_in_smaller_pieces_while_somebody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, Sqlite.open(&dir).await);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    let mut a = Owner::stocked(1, 100_000);
    let wal = async || match &mut *tables.writer().await.unwrap() {
        Connection::Sqlite(file) => sqlite::wal(file).await.unwrap(),
        _ => panic!("a file"),
    };
    let mut numbers = 1..;
    while wal().await.pages < 1_500 {
        for number in numbers.by_ref().take(2_000) {
            a.hold(order(number, a.product), buyer(number), 1, T0);
        }
        append_all(&journal, vec![a.seal(T0)]);
        flusher.slice().await.unwrap();
    }
    flusher.checkpoint_if_due(false).await;
    assert_eq!(wal().await.copied, 0, "nobody waits, so it is let grow");
    flusher.checkpoint_if_due(true).await;
    assert!(wal().await.copied >= 1_500);
    journal.close().await;
    tables.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn the_audit_sees_what_was_tampered_with(#[values(Sqlite, MySql)] home: Home) {
    for (number, tampering) in [
        "update orders set status = 'paid' where status = 'expired'",
        "update order_lines set quantity = 9 where quantity = 3",
        "update order_lines set status = 'held' where line = 1",
        "delete from orders where status = 'cancelled'",
        "update stock set on_hand = on_hand + 1",
        "update flush_checkpoint set pos = pos - 1",
        "update orders set cancelled_by = 7 where status = 'cancelled'",
        "update buyer_orders set buyer_id = x'00' where order_id = (select max(id) from orders)",
        "insert into order_lines values (x'00', 0, x'00', 1, 1, 'KRW', 1, 'held')",
    ]
    .into_iter()
    .enumerate()
    {
        let (_, dir) = flushed_in_slices_of(home, 100).await;
        let report = home.audit(&dir).await;
        assert_eq!((report.differences, report.snapshots), (Vec::new(), 1));
        let tables = home.open(&dir).await;
        sql::query(tampering).execute(&mut *tables.writer().await.unwrap()).await.unwrap();
        tables.close().await.unwrap();
        assert_ne!(home.audit(&dir).await.differences, [""; 0], "{number}: {tampering}");
    }
}

#[rstest]
#[tokio::test]
async fn what_a_kill_leaves_behind_can_be_audited_and_flushed_on(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let tables = home.open(&dir).await;
    append_all(&journal, a_day_in_the_shop().2);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    let plan = flusher.plan(9).await.unwrap().unwrap();
    flusher.write(&plan).await.unwrap();
    let left = killed(&dir);
    journal.close().await;
    tables.close().await.unwrap();

    let report = home.audit(&left).await;
    assert_eq!(report.differences, [""; 0]);
    assert!(report.orders < 7, "only what was flushed is compared");
    let journal = open(&left).await;
    let tables = home.open(&left).await;
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    assert!(flusher.gauge().lag().events > 0);
    while flusher.run_slice().await.unwrap().events > 0 {}
    journal.close().await;
    tables.close().await.unwrap();
    let report = home.audit(&left).await;
    assert_eq!((report.differences.len(), report.orders), (0, 7));
}

#[rstest]
#[tokio::test]
async fn a_buyers_orders_come_newest_first_page_by_page(#[values(Sqlite, MySql)] home: Home) {
    let (_, dir) = flushed_in_slices_of(home, 100).await;
    let tables = home.open(&dir).await;
    let orders = tables.orders();
    let page = async |status, before, limit| {
        let found = orders.list(buyer(0), status, before, limit).await.unwrap();
        found.into_iter().map(|order| order.id).collect::<Vec<_>>()
    };
    let (three, six) = (order(3, product(1)), order(6, product(1)));
    assert_eq!(page(None, None, 10).await, [six, three]);
    assert_eq!(page(None, None, 1).await, [six]);
    assert_eq!(page(None, Some(six), 10).await, [three]);
    assert_eq!(page(Some(OrderStatus::Expired), None, 10).await, [six]);
    let many = orders.list(buyer(7), None, None, 1).await.unwrap();
    assert_eq!(many[0].lines[1].status, LineStatus::Cancelled);
    let keys = async |after: OrderId, until: OrderId| -> Vec<crate::persistence::order::UsedKey> {
        futures_util::TryStreamExt::try_collect(orders.keys(after, until)).await.unwrap()
    };
    let (none, all) = (OrderId::from_bytes([0; 16]), OrderId::from_bytes([0xff; 16]));
    let found = keys(none, all).await;
    assert_eq!(found.len(), 7);
    let first = crate::persistence::order::UsedKey {
        buyer: buyer(1),
        key: *order(1, product(1)).as_bytes(),
        home: product(1),
        made_at: found[0].made_at,
    };
    assert_eq!(found[0], first);
    // Two neighbours leave none out, and have none twice.
    assert_eq!([keys(none, three).await, keys(three, all).await].concat().len(), 7);
    assert_eq!(keys(three, six).await.last().unwrap().key, *six.as_bytes());
    tables.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn products_are_written_by_version_and_listed_with_their_stock(#[values(Sqlite, MySql)] home: Home) {
    let (_, dir) = flushed_in_slices_of(home, 100).await;
    let tables = home.open(&dir).await;
    let (reader, writer) = (tables.products(), tables.product_writer());
    let make = |number, name: &str, tags: &[&str]| Product {
        id: product(number),
        sku: format!("SKU-{number}"),
        name: name.to_owned(),
        description: String::new(),
        thumbnail_url: None,
        image_url: Some("https://example.org/i.png".to_owned()),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        archived: false,
        version: 1,
        created_at: T0,
        updated_at: T0,
    };
    let (chair, table) = (make(1, "Chair, red", &["new", "best"]), make(3, "Éclair", &["new"]));
    writer.insert(&chair).await.unwrap();
    writer.insert(&table).await.unwrap();
    let twin = Product { id: product(4), ..chair.clone() };
    assert!(matches!(writer.insert(&twin).await, Err(ProductError::SkuTaken)));

    let walk = async |along: Along, behind: Option<Spot>| {
        let signs = reader.signs(&along, behind.as_ref(), 10).await.unwrap();
        signs.into_iter().map(|sign| (sign.place.product, sign.available)).collect::<Vec<_>>()
    };
    let by_name = |prefix: &str| Along::Name(name_key(prefix));
    let (newer, older) = ((table.id, None), (chair.id, Some(94)));
    assert_eq!(walk(Along::Age, None).await, [newer, older]);
    assert_eq!(walk(Along::Tag(Tag::New), None).await, [newer, older]);
    assert_eq!(walk(Along::Tag(Tag::Best), None).await, [older]);
    assert_eq!(walk(by_name(""), None).await, [older, newer]);
    assert_eq!(walk(by_name("cHA"), None).await, [older]);
    assert_eq!(walk(by_name("e\u{301}C"), None).await, [newer]);
    assert_eq!(walk(by_name("hair"), None).await, []);
    let behind = |product, name: Option<&str>| Some(Spot { product, name_key: name.map(name_key) });
    assert_eq!(walk(Along::Age, behind(table.id, None)).await, [older]);
    assert_eq!(walk(by_name(""), behind(chair.id, Some("Chair, red"))).await, [newer]);
    assert_eq!(walk(by_name("é"), behind(chair.id, Some("Chair, red"))).await, [newer]);
    assert_eq!(walk(by_name(""), behind(table.id, Some("Éclair"))).await, []);
    let found = reader.find(chair.id).await.unwrap().unwrap();
    assert_eq!(found.product, chair);
    assert_eq!(found.stock.map(|stock| stock.counts), Some(Counts { on_hand: 100, held: 3, sold: 3 }));

    let renamed = Product { name: "Chair, blue".to_owned(), updated_at: Millis(9), ..chair.clone() };
    writer.update(&renamed, 1).await.unwrap();
    assert!(matches!(writer.update(&renamed, 1).await, Err(ProductError::VersionConflict)));
    assert_eq!(reader.by_sku("SKU-1").await.unwrap().unwrap().version, 2);
    assert!(writer.archive(chair.id, T0).await.unwrap());
    assert!(!writer.archive(chair.id, T0).await.unwrap());
    assert_eq!(reader.count().await.unwrap(), 1);
    assert_eq!(reader.find_many(&[chair.id, table.id]).await.unwrap().len(), 2);
    tables.close().await.unwrap();
}

/// `kind` and what is said of everything that a day in the shop told, in slices of so many events.
async fn told_in_slices_of(home: Home, events_max: u64, kinds: &[EventKind]) -> Vec<(String, EventId)> {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let tables = home.open(&dir).await;
    append_all(&journal, a_day_in_the_shop().2);
    tables.webhooks().listen_for_tests(kinds.iter().copied().collect());
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    while let Some(plan) = flusher.plan(events_max).await.unwrap() {
        flusher.write(&plan).await.unwrap();
    }
    let taken = tables.webhooks().events(1_000).await.unwrap();
    journal.close().await;
    tables.close().await.unwrap();
    taken
        .into_iter()
        .flat_map(|taken| taken.events)
        .map(|told| (told.kind.as_str().to_owned(), told.id))
        .collect()
}

#[rstest]
#[tokio::test]
async fn each_move_of_an_order_is_told_once_whatever_the_slices(#[values(Sqlite, MySql)] home: Home) {
    let moves: Vec<EventKind> =
        EventKind::ALL.iter().copied().filter(|kind| kind.as_str().starts_with("order.")).collect();
    let mut all = told_in_slices_of(home, 1, &moves).await;
    all.sort();
    for slices in [7, 10_000] {
        let mut same = told_in_slices_of(home, slices, &moves).await;
        same.sort();
        assert_eq!(same, all, "in slices of {slices}");
    }
    let count = |kind: &str| all.iter().filter(|(told, _)| told == kind).count();
    assert_eq!(
        ["order.placed", "order.paid", "order.cancelled", "order.expired", "order.payment_failed"].map(count),
        [7, 2, 1, 3, 0]
    );
    let paid = told_in_slices_of(home, 7, &[EventKind::OrderPaid]).await;
    assert_eq!(paid.len(), 2, "and nothing else is");
}

#[rstest]
#[tokio::test]
async fn a_slice_leaves_one_row_of_notices_and_the_same_letters_whatever_the_slices(
    #[values(Sqlite, MySql)] home: Home,
) {
    let mut all = Vec::new();
    for events_max in [1, 7, 10_000] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir).await;
        let tables = home.open(&dir).await;
        append_all(&journal, a_day_in_the_shop().2);
        let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
        let mut slices = 0;
        while let Some(plan) = flusher.plan(events_max).await.unwrap() {
            flusher.write(&plan).await.unwrap();
            slices += 1;
        }
        let aside = tables.notices().aside();
        let rows = aside.oldest_slices(100).await.unwrap();
        assert!(rows.len() <= slices && rows.iter().all(|row| row.damaged == 0));
        let told: BTreeSet<_> = rows.iter().flat_map(|row| &row.notices).map(Notice::letter).collect();
        all.push(told);
        aside.close().await;
        journal.close().await;
        tables.close().await.unwrap();
    }
    // Seven placed, two paid, one cancelled, three lapsed.
    assert!(all[0].len() >= 13, "{:?}", all[0]);
    assert!(all.iter().all(|letters| *letters == all[0]));
}

#[rstest]
#[tokio::test]
async fn where_nobody_listens_nothing_is_written(#[values(Sqlite, MySql)] home: Home) {
    assert_eq!(told_in_slices_of(home, 7, &[]).await, []);
}

#[rstest]
#[tokio::test]
async fn stock_is_told_once_a_slice_and_its_turns_when_they_last(#[values(Sqlite, MySql)] home: Home) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let tables = home.open(&dir).await;
    tables.webhooks().listen_for_tests(EventKind::ALL.iter().copied().collect());
    let mut owner = Owner::stocked(1, 2);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    let (first, second, product) = (order(1, owner.product), order(2, owner.product), owner.product);
    let release = |order| Command::Release { order, cause: Cause::Cancelled, by: 1 };
    let mut slices: Vec<Vec<String>> = Vec::new();
    for slice in 0..5 {
        let now = T0.plus(slice);
        match slice {
            0 => &mut owner,
            1 => owner.hold(first, buyer(1), 1, now).hold(second, buyer(2), 1, now),
            2 => owner.does(&release(first), now).hold(order(3, product), buyer(3), 1, now),
            3 => owner.does(&release(second), now),
            _ => owner.does(&Command::Pause, now),
        };
        append(&journal, owner.seal(now));
        flusher.run_slice().await.unwrap();
        let taken = tables.webhooks().events(99).await.unwrap();
        slices.push(
            taken.iter().flat_map(|taken| &taken.events).map(|told| said(told.kind, &told.data)).collect(),
        );
        if let Some(taken) = taken {
            tables.webhooks().fan_out(&taken, &[]).await.unwrap();
        }
    }
    assert_eq!(
        slices,
        [
            vec!["stock.changed 1 2"],
            vec!["order.placed", "order.placed", "stock.changed 3 0", "stock.sold_out 3 0"],
            vec!["order.placed", "order.cancelled"],
            vec!["order.cancelled", "stock.changed 6 1", "stock.back 6 1"],
            vec![],
        ]
    );
    journal.close().await;
    tables.close().await.unwrap();
}

/// The kind, and of stock its sequence and what is available.
fn said(kind: EventKind, data: &str) -> String {
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    match data.get("available") {
        Some(available) => format!("{} {} {available}", kind.as_str(), data["sequence"]),
        None => kind.as_str().to_owned(),
    }
}
