//! Backups that are sealed: nobody reads anything of them without their key, what is not what was sealed is refused whatever its sums say,
//! and they end with their key, whoever has left since with them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::config::MasterKeys;
use stockade::domain::account::AccountState;
use stockade::domain::id::OrderId;
use stockade::persistence::backup::{self, BackupError, Place};
use stockade::vault::Vault;

use super::support::{Person, id, user};
use super::{Busy, Home, account, copy, sum_up};

const KEYS: &str = "STOCKADE_BACKUP_KEYS";

/// Thirty-two bytes that stand nowhere in the repository.
fn key(name: &str) -> String {
    let half = |half: &str| xxhash_rust::xxh3::xxh3_128(format!("{name} {half}").as_bytes());
    format!("{:032x}{:032x}", half("left"), half("right"))
}

/// Another one whose backups are sealed with these.
fn home(keys: &[&str]) -> Home {
    let mut home = Home::new(None);
    has(&mut home, keys);
    home
}

fn has(home: &mut Home, keys: &[&str]) {
    home.settings.retain(|(name, _)| *name != KEYS);
    let keys: Vec<String> = keys.iter().map(|name| key(name)).collect();
    home.settings.push((KEYS, keys.join(",")));
}

fn vault(keys: &str) -> Vault {
    Vault::new(&key(keys).parse::<MasterKeys>().unwrap(), &Clock::start()).unwrap()
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn head(backup: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(backup.join("manifest.json")).unwrap()).unwrap()
}

/// Whether these bytes stand in one of its files.
fn holds(backup: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(backup).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|file| file.windows(bytes.len()).any(|here| here == bytes))
}

#[tokio::test]
async fn a_sealed_backup_of_a_shop_that_sells_is_restored_and_read_by_nobody_else() {
    let mut sold = home(&["first"]);
    let busy = Busy::shop(&sold, 2).await;
    // The same shop as it stands, so that we look for what is there.
    has(&mut sold, &[]);
    let open = sold.folder.path().join("open");
    sold.backup(&open).await;
    let told = &busy.backups[0].1[0];
    let order: OrderId = told.order.parse().unwrap();
    let buyer = user(told.who);
    let words: [&[u8]; 4] = [order.as_bytes(), buyer.as_bytes(), b"CUP-0-", b"\"last_pos\""];
    for bytes in words {
        assert!(holds(&open, bytes), "{}", bytes.escape_ascii());
        for (backup, _) in &busy.backups {
            assert!(!holds(backup, bytes), "{}", bytes.escape_ascii());
        }
    }

    // Another key, and none: it says which one is missing, and writes nothing.
    let (last, _) = busy.backups.last().unwrap();
    let name = head(last)["sealed"]["key"].as_str().unwrap().to_owned();
    let missing =
        format!("sealed under the backup key {name}, which is not among STOCKADE_BACKUP_KEYS (there: ");
    for (other, known) in [(home(&["second", "third"]), "there: "), (home(&[]), "there: none")] {
        other.fails(&["restore", "--from", word(last)], &missing).await;
        other.fails(&["restore", "--from", word(last)], known).await;
        assert!(!other.data().exists());
    }

    // Its key behind a newer one.
    for (backup, _) in &busy.backups {
        let again = home(&["second", "first"]);
        again.restore(backup).await;
        if backup == last {
            busy.opens(&again).await;
        }
    }
}

/// Two backups of a small shop that has stopped, under one key.
async fn two() -> (Home, Vault, [PathBuf; 2]) {
    let (home, vault) = (Home::new(None), vault("first"));
    home.succeeds(&["seed", "--products", "3", "--stock", "5"]).await;
    let backups = ["one", "other"].map(|name| home.folder.path().join(name));
    for backup in &backups {
        backup::take(Place::Files(&home.data()), backup, Some(&vault), &Clock::start()).await.unwrap();
    }
    (home, vault, backups)
}

#[tokio::test]
async fn what_is_not_what_was_sealed_is_refused_whatever_its_sums_say() {
    let (home, vault, [one, other]) = two().await;
    let (changed, into) = (home.folder.path().join("changed"), home.folder.path().join("into"));
    let restored = async |from: &Path| {
        backup::restore(from, Place::Files(&into), Some(&vault), true, &Clock::start()).await.map(drop)
    };
    let refused = async |what: &str, change: &dyn Fn(&Path)| {
        copy(&one, &changed);
        change(&changed);
        sum_up(&changed);
        let told = restored(&changed).await;
        assert!(matches!(told, Err(BackupError::Damaged { .. })) && !into.exists(), "{what}: {told:?}");
        std::fs::remove_dir_all(&changed).unwrap();
    };
    let names = std::fs::read_dir(&one).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let sealed: Vec<String> =
        names.filter(|name| !["manifest.json", "SHA256SUMS"].contains(&&**name)).collect();
    assert!(sealed.len() > 30 && sealed.iter().any(|name| name == "contents.json"), "{sealed:?}");
    for name in sealed.iter().map(String::as_str) {
        let whole = std::fs::read(one.join(name)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        refused(name, &|at: &Path| std::fs::write(at.join(name), &flipped).unwrap()).await;
        refused(name, &|at: &Path| std::fs::write(at.join(name), &whole[..whole.len() - 1]).unwrap()).await;
        let others = std::fs::read(other.join(name)).unwrap();
        refused(name, &|at: &Path| std::fs::write(at.join(name), &others).unwrap()).await;
    }
    let swapped = |at: &Path| {
        std::fs::rename(at.join("orders.rows"), at.join("order_lines.rows")).unwrap();
        std::fs::copy(one.join("order_lines.rows"), at.join("orders.rows")).unwrap();
    };
    refused("files under each other's names", &swapped).await;
    for field in ["id", "wrapped_key", "key"] {
        let mut head = head(&one);
        head["sealed"][field] = match field {
            "key" => json!("00000000"),
            _ => self::head(&other)["sealed"][field].clone(),
        };
        refused(field, &|at: &Path| std::fs::write(at.join("manifest.json"), head.to_string()).unwrap())
            .await;
    }
    let mut head = head(&one);
    head["sealed"] = Value::Null;
    refused("said to be open", &|at: &Path| {
        std::fs::write(at.join("manifest.json"), head.to_string()).unwrap()
    })
    .await;
    restored(&one).await.unwrap();
}

/// Whoever can write where backups are kept puts one of his own there, whole, with all its sums, and not sealed.
#[tokio::test]
async fn a_backup_that_is_not_sealed_is_refused_in_the_place_of_one_that_is() {
    let mut shop = home(&["first"]);
    shop.succeeds(&["seed", "--products", "3", "--stock", "5"]).await;
    let at = shop.folder.path().join("backup");
    shop.backup(&at).await;
    assert!(head(&at)["sealed"].is_object());
    std::fs::remove_dir_all(&at).unwrap();
    has(&mut shop, &[]);
    shop.backup(&at).await;
    assert!(head(&at)["sealed"].is_null());

    let mut again = home(&["first"]);
    for why in ["the backup is not sealed", "STOCKADE_ALLOW_PLAIN_BACKUPS=true"] {
        again.fails(&["restore", "--from", word(&at)], why).await;
        assert!(!again.data().exists());
    }
    again.settings.push(("STOCKADE_ALLOW_PLAIN_BACKUPS", "true".to_owned()));
    again.restore(&at).await;
}

/// A backup of before somebody left is read by nobody once its key is gone. Those that are taken since are sealed under the next one.
#[tokio::test]
async fn a_backup_ends_with_its_key_and_whoever_has_left_with_it() {
    let mut home = home(&["former"]);
    let (shop, person) = (home.start().await, Person::number(1));
    shop.newcomer(&person).await;
    let pair = shop.log_in(&person).await;
    let who = id(&shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200));
    let (before, after) = (home.folder.path().join("before"), home.folder.path().join("after"));
    let told = home.succeeds(&["backup", "--to", word(&before)]).await;
    let former = head(&before)["sealed"]["key"].as_str().unwrap().to_owned();
    assert!(told.contains(&format!("sealed under the backup key {former}")), "{told}");
    let leaves = json!({ "password": person.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&leaves).send().await.status, 204);
    // A new key comes first while the shop runs: whoever takes the backup knows it, and nobody else has to.
    has(&mut home, &["newer", "former"]);
    home.backup(&after).await;
    shop.stop().await;
    assert_ne!(head(&after)["sealed"]["key"], head(&before)["sealed"]["key"]);

    let while_it_is_there = self::home(&["newer", "former"]);
    while_it_is_there.restore(&before).await;
    assert_eq!(account(&while_it_is_there.data(), &who).await, (AccountState::Verified, true));
    let later = self::home(&["newer"]);
    later.fails(&["restore", "--from", word(&before)], &former).await;
    assert!(!later.data().exists());
    later.restore(&after).await;
    assert_eq!(account(&later.data(), &who).await, (AccountState::Deleted, false));
}
