//! What administrators look up: orders, accounts, products and movements, as pages and as tables.

mod support;

use serde_json::{Value, json};
use stockade::domain::user::Role;
use support::{Reply, Shop, card, id, lines, user};

const DOORS: [&str; 3] = ["/v1/admin/orders", "/v1/admin/users", "/v1/admin/products"];

async fn rows(shop: &Shop, path: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = shop.admin("GET", &format!("{path}limit=2{cursor}")).send().await.ok(200);
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(id).collect()
}

/// Cells by row, after RFC 4180.
fn table(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(!quoted && cell.is_empty() && row.is_empty(), "{text}");
    assert!(rows.iter().all(|row: &Vec<String>| row.len() == rows[0].len()), "{text}");
    rows
}

fn csv(reply: &Reply) -> Vec<Vec<String>> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("Content-Type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(reply.header("X-Rows-Max"), Some("100000"));
    assert!(reply.header("Content-Disposition").unwrap().starts_with("attachment; filename="));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    table(&reply.text)
}

#[actix_web::test]
async fn orders_are_found_by_buyer_product_state_and_time() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(50).await, shop.stocked(50).await);
    let place = async |who: u64, items: &[(&str, u32)]| {
        let placed = shop.by(who, "POST", "/v1/orders").json(&lines(items)).send().await;
        let placed = placed.ok(201);
        (id(&placed), placed["created_at"].as_str().unwrap().to_owned())
    };
    let mut all = Vec::new();
    for who in 1..=3 {
        all.push(place(who, &[(&jar, 1)]).await);
        all.push(place(who, &[(&cup, 1)]).await);
        all.push(place(who, &[(&cup, 2), (&jar, 1)]).await);
    }
    let cancelled = &all[4].0;
    shop.by(2, "POST", &format!("/v1/orders/{cancelled}/cancel")).send().await.ok(200);
    let paid = &all[8].0;
    shop.by(3, "POST", &format!("/v1/orders/{paid}/payment")).json(&card("tok_ok")).send().await.ok(200);

    let door = "/v1/admin/orders?";
    // As the buyer sees it, and whose it is, when the tables have followed.
    for left in (0..50).rev() {
        let order = shop.by(3, "GET", &format!("/v1/orders/{paid}")).send().await.ok(200);
        let mut seen = rows(&shop, door).await.into_iter().find(|order| id(order) == *paid).unwrap();
        assert_eq!(seen.as_object_mut().unwrap().remove("buyer_id"), Some(json!(user(3).to_string())));
        if seen == order {
            break;
        }
        assert!(left > 0, "{seen} in the list, {order} to its buyer");
    }
    let mut newest: Vec<String> = all.iter().map(|(id, _)| id.clone()).collect();
    newest.sort();
    newest.reverse();
    let found = rows(&shop, door).await;
    assert_eq!(ids(&found), newest);
    let buyer = format!("buyer={}&", user(2));
    let of_two = rows(&shop, &format!("{door}{buyer}")).await;
    assert!(of_two.len() == 3 && of_two.iter().all(|order| order["buyer_id"] == user(2).to_string()));
    for (filter, expected) in [
        (format!("product={jar}&"), 6),
        (format!("product={cup}&status=pending_payment&"), 4),
        ("status=paid&".to_owned(), 1),
        ("status=cancelled&".to_owned(), 1),
        (format!("{buyer}status=cancelled&"), 1),
        (format!("{buyer}product={jar}&status=cancelled&"), 0),
        (format!("{buyer}product={jar}&"), 2),
        (format!("buyer={}&", user(99)), 0),
        ("to=2020-01-01T00:00:00Z&".to_owned(), 0),
        ("from=2999-01-01T00:00:00Z&".to_owned(), 0),
        ("from=2020-01-01T09:00:00%2B09:00&to=2999-01-01T00:00:00Z&".to_owned(), 9),
    ] {
        assert_eq!(rows(&shop, &format!("{door}{filter}")).await.len(), expected, "{filter}");
    }
    // A time is a bound: what was placed at it counts from it on, and not up to it.
    let at = &all[4].1;
    let (from, to) =
        (rows(&shop, &format!("{door}from={at}&")).await, rows(&shop, &format!("{door}to={at}&")).await);
    assert_eq!(from.len() + to.len(), 9);
    assert!(ids(&from).contains(&all[4].0) && !ids(&to).contains(&all[4].0));
    for (query, pointer) in [
        ("buyer=x", "?buyer"),
        ("product=x", "?product"),
        ("status=lost", "?status"),
        ("from=yesterday", "?from"),
        ("to=2026", "?to"),
        ("cursor=x", "?cursor"),
        ("format=xml", "?format"),
    ] {
        assert_eq!(shop.admin("GET", &format!("{door}{query}")).send().await.invalid(), pointer);
    }

    let table = csv(&shop.admin("GET", &format!("{door}format=csv&limit=1")).send().await);
    assert_eq!(table.len(), 1 + 12, "one row a line");
    assert_eq!(table[0][..4], ["order_id", "buyer_id", "status", "created_at"]);
    let paid = table.iter().filter(|row| row[2] == "paid").collect::<Vec<_>>();
    assert!(
        paid.len() == 2 && paid.iter().all(|row| row[8] == "paid" && row[6] == "3000" && row[7] == "KRW")
    );
    shop.close().await;
}

#[actix_web::test]
async fn accounts_are_found_by_state_role_and_address() {
    let shop = Shop::open().await;
    let mut people = Vec::new();
    for number in 1..=5 {
        let person = shop.newcomer(number).await;
        people.push(shop.id_of(&shop.log_in(&person).await).await);
    }
    shop.admin("POST", &format!("/v1/admin/users/{}/suspend", people[1])).send().await;
    let door = "/v1/admin/users?";
    people.sort();
    people.reverse();
    assert_eq!(ids(&rows(&shop, door).await), people);
    let address = support::Person::number(3).credentials()["email"].as_str().unwrap().replace('+', "%2B");
    for (filter, expected) in [
        ("role=shopper&".to_owned(), 5),
        ("role=admin&".to_owned(), 0),
        ("state=suspended&".to_owned(), 1),
        ("state=suspended&role=admin&".to_owned(), 0),
        (format!("email={address}&"), 1),
        (format!("email={address}&state=verified&role=shopper&"), 1),
        (format!("email={address}&state=unverified&"), 0),
        ("email=nobody@example.com&".to_owned(), 0),
    ] {
        assert_eq!(rows(&shop, &format!("{door}{filter}")).await.len(), expected, "{filter}");
    }
    assert_eq!(shop.admin("GET", &format!("{door}role=king")).send().await.invalid(), "?role");
    let reply = shop.admin("GET", &format!("{door}limit=1")).header("Accept", "text/csv").send().await;
    let table = csv(&reply);
    assert_eq!(table.len(), 6);
    // Ids and states: nobody is named.
    assert_eq!(table[0], ["id", "state", "role", "verified_at", "created_at", "updated_at"]);
    assert!(!reply.text.contains('@'));
    shop.close().await;
}

/// A place that the list never passed is not a place in it.
#[actix_web::test]
async fn a_list_by_name_goes_on_from_its_own_places_alone() {
    let shop = Shop::open().await;
    for name in ["Zza jar", "Zza jug", "Zzb cup", "Zzb jar"] {
        shop.product(1, json!({ "name": name })).await;
    }
    for door in ["/v1/products", "/v1/admin/products"] {
        let page = async |query: &str| shop.admin("GET", &format!("{door}?limit=1{query}")).send().await;
        let cursor = |page: Value| page["next_cursor"].as_str().unwrap().to_owned();
        let by_age = cursor(page("").await.ok(200));
        let by_name = cursor(page("&q=zza").await.ok(200));
        assert_eq!(page(&format!("&q=ZZA&cursor={by_name}")).await.ok(200)["data"][0]["name"], "Zza jug");
        assert_eq!(page(&format!("&q=zz&cursor={by_name}")).await.ok(200)["data"][0]["name"], "Zza jug");
        for foreign in [format!("&q=zza&cursor={by_age}"), format!("&q=zzb&cursor={by_name}")] {
            assert_eq!(page(&foreign).await.invalid(), "?cursor", "{door} {foreign}");
        }
        // Among chosen ones it goes by age, whatever their names.
        let rest = page(&format!("&q=zz&ids=x&cursor={by_age}")).await.ok(200);
        assert_eq!(rest["data"], json!([]));
    }
    shop.close().await;
}

#[actix_web::test]
async fn products_are_found_by_sku_and_when_they_are_archived() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(7, json!({ "sku": "JAR-1", "name": "Zzz jar", "tags": ["new"] })).await);
    let cup = id(&shop.product(0, json!({ "sku": "CUP-1", "name": "Zzz cup" })).await);
    shop.order(1, &jar, 2).send().await.ok(201);
    shop.admin("DELETE", &format!("/v1/admin/products/{cup}")).send().await;
    let door = "/v1/admin/products?";
    for (filter, expected) in [
        ("q=zzz&", vec![&cup, &jar]),
        ("q=zzz&archived=true&", vec![&cup]),
        ("q=zzz&archived=false&", vec![&jar]),
        ("q=zzz&tag=new&available=true&", vec![&jar]),
        ("sku=CUP-1&", vec![&cup]),
        ("sku=CUP-1&archived=false&", vec![]),
        ("sku=CUP-2&", vec![]),
        ("sku=JAR-1&q=zzz%20j&", vec![&jar]),
    ] {
        assert_eq!(
            ids(&rows(&shop, &format!("{door}{filter}")).await).iter().collect::<Vec<_>>(),
            expected,
            "{filter}"
        );
    }
    let found = shop.admin("GET", &format!("{door}sku=JAR-1")).send().await.ok(200)["data"][0].clone();
    assert_eq!(
        [&found["on_hand"], &found["held"], &found["stock"]["available"]],
        [&json!(7), &json!(2), &json!(5)]
    );
    assert_eq!(found["archived"], false);
    assert_eq!(shop.admin("GET", &format!("{door}archived=maybe")).send().await.invalid(), "?archived");
    shop.close().await;
}

/// OWASP, CSV injection: whoever writes a text must not have it run on the machine of whoever opens the table.
#[actix_web::test]
async fn a_text_that_looks_like_a_formula_is_disarmed() {
    let shop = Shop::open().await;
    let evil = "=HYPERLINK(\"http://evil.example\",\"click, please\")";
    let body = json!({
        "sku": "@SUM(1)", "name": evil, "description": "\tcmd\r\n|' /C calc'!A0", "price": { "amount": 5, "currency": "KRW" },
        "stock": 9,
    });
    let evil_jar = id(&shop.admin("POST", "/v1/admin/products").json(&body).send().await.ok(201));
    let table = csv(&shop.admin("GET", "/v1/admin/products?sku=@SUM(1)&format=csv").send().await);
    let cell = |name: &str| table[1][table[0].iter().position(|column| column == name).unwrap()].clone();
    assert_eq!(cell("sku"), "'@SUM(1)");
    assert_eq!(cell("name"), format!("'{evil}"));
    assert_eq!(cell("description"), "'\tcmd\r\n|' /C calc'!A0");
    assert_eq!((cell("price_minor"), cell("on_hand")), ("5".into(), "9".into()));

    let restock = json!({ "delta": -3, "reason": "+1+1, \"broken\"" });
    let door = format!("/v1/admin/products/{evil_jar}");
    shop.admin("POST", &format!("{door}/restock")).key("r").json(&restock).send().await.ok(200);
    let moved = csv(&shop.admin("GET", &format!("{door}/ledger?format=csv")).send().await);
    assert_eq!(moved.len(), 3);
    assert_eq!((moved[2][2].as_str(), moved[2][4].as_str()), ("restocked", "-3"), "a number stays one");
    assert_eq!(moved[2].last().unwrap(), "'+1+1, \"broken\"");
    shop.order(1, &evil_jar, 1).send().await.ok(201);
    shop.tables_follow().await;
    let ordered =
        csv(&shop.admin("GET", &format!("/v1/admin/orders?product={evil_jar}&format=csv")).send().await);
    assert!(ordered[1].contains(&format!("'{evil}")));
    shop.close().await;
}

#[actix_web::test]
async fn movements_are_narrowed_to_their_kind_and_order() {
    let shop = Shop::open().await;
    let jar = shop.stocked(50).await;
    let mut orders = Vec::new();
    for who in 0..6 {
        orders.push(id(&shop.order(who, &jar, 1).send().await.ok(201)));
    }
    shop.by(4, "POST", &format!("/v1/orders/{}/cancel", orders[4])).send().await.ok(200);
    let door = format!("/v1/admin/products/{jar}/ledger?");
    let all = rows(&shop, &door).await;
    assert_eq!(all.len(), 8);
    let kinds = async |filter: &str| {
        let rows = rows(&shop, &format!("{door}{filter}")).await;
        rows.iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds("kind=held&").await, ["held"; 6]);
    assert_eq!(kinds("kind=held&from=4&").await, ["held"; 4]);
    assert_eq!(kinds(&format!("order={}&", orders[4])).await, ["held", "released"]);
    assert_eq!(kinds(&format!("order={}&kind=released&", orders[4])).await, ["released"]);
    assert_eq!(kinds("kind=returned&").await, [""; 0]);
    assert_eq!(shop.admin("GET", &format!("{door}kind=stolen")).send().await.invalid(), "?kind");
    let table = csv(&shop.admin("GET", &format!("{door}kind=released&format=csv")).send().await);
    assert_eq!((table.len(), table[1][9].as_str()), (2, "cancelled"));
    shop.close().await;
}

#[actix_web::test]
async fn a_table_of_many_parts_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = stockade::config::Config::development(folder.path());
    let plan = stockade::seed::Plan { products: 1_234, stock: 1, hold_ms: None, per_customer_limit: None };
    stockade::seed::fill(&config, &stockade::clock::Clock::start(), &plan).await.unwrap();
    let shop = Shop::open_in(folder).await;
    for filter in ["q=seeded&", "q=seeded&tag=new&", "archived=true&"] {
        let table = csv(&shop.admin("GET", &format!("/v1/admin/products?{filter}format=csv")).send().await);
        let mut found: Vec<_> = table[1..].iter().map(|row| row[0].clone()).collect();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), if filter == "q=seeded&" { 1_234 } else { 0 }, "{filter}");
        assert_eq!(table.len(), found.len() + 1);
    }
    shop.close().await;
}

#[actix_web::test]
async fn only_administrators_look_up() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let ledger = format!("/v1/admin/products/{jar}/ledger");
    for door in DOORS.iter().copied().chain([ledger.as_str()]) {
        for form in ["", "?format=csv"] {
            let path = format!("{door}{form}");
            shop.get(&path).send().await.problem(401, "unauthenticated");
            let shopper = shop.token(1, Role::Shopper);
            shop.get(&path).bearer(&shopper).send().await.problem(403, "forbidden");
            assert_eq!(shop.admin("GET", &path).send().await.status, 200);
        }
    }
    shop.close().await;
}
