//! Buyers beside a cluster, and what they were told: each of them asks again until it is certain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use stockade::domain::user::Role;

use super::support::{Process, id, one_line};
use super::{BUYERS, Cluster};

/// What was acknowledged, by key: the order's id and its place.
pub(super) type Acknowledged = BTreeMap<String, (String, u64)>;

/// Buyers who order again and again, wherever the shop is open, and remember what they were told.
pub(super) struct Crowd {
    pub(super) told: Arc<Mutex<Acknowledged>>,
    /// How often somebody had to ask again.
    pub(super) refused: Arc<AtomicU64>,
    /// The longest that somebody waited for an answer.
    pub(super) longest_us: Arc<AtomicU64>,
    pub(super) over: Arc<AtomicBool>,
    base: Arc<Mutex<String>>,
    buying: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    pub(super) fn come(cluster: &Cluster, process: &Process, product: &str) -> Crowd {
        Crowd::of(BUYERS, cluster, process, product)
    }

    pub(super) fn of(buyers: u64, cluster: &Cluster, process: &Process, product: &str) -> Crowd {
        let (told, over) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<AtomicBool>::default());
        let base = Arc::new(Mutex::new(format!("http://{}", process.addr())));
        let [keys, refused, longest_us] = [(); 3].map(|()| Arc::<AtomicU64>::default());
        let client = Client::builder().tls_certs_only([]).timeout(Duration::from_secs(10)).build().unwrap();
        let buying = (1..=buyers).map(|who| {
            let (told, over, base) = (told.clone(), over.clone(), base.clone());
            let (keys, refused, longest_us) = (keys.clone(), refused.clone(), longest_us.clone());
            let clock = cluster.clock.clone();
            let (client, token, body) =
                (client.clone(), cluster.token(who, Role::Shopper), one_line(product, 1));
            // A key is for one product.
            let last = product[product.len() - 12..].to_owned();
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let key = format!("{last}-{}", keys.fetch_add(1, Ordering::Relaxed));
                    let began = clock.nanos();
                    // The same key until it is certain, as a shopper's device does.
                    while let Err(()) = order(&client, &base, &token, &key, &body, &told).await {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    longest_us.fetch_max((clock.nanos() - began) / 1_000, Ordering::Relaxed);
                }
            })
        });
        let buying = buying.collect();
        Crowd { told, refused, longest_us, over, base, buying }
    }

    pub(super) fn go_to(&self, process: &Process) {
        *self.base.lock().unwrap() = format!("http://{}", process.addr());
    }

    pub(super) fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Waits until so many more were acknowledged.
    pub(super) async fn goes_on(&self, more: usize) {
        let until = self.count() + more;
        let buying = async {
            while self.count() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), buying).await.expect("nobody can buy");
    }

    pub(super) async fn leaves(self) -> Acknowledged {
        self.over.store(true, Ordering::Relaxed);
        for buyer in self.buying {
            buyer.await.unwrap();
        }
        Arc::into_inner(self.told).unwrap().into_inner().unwrap()
    }
}

/// One attempt. `Err`: nobody knows, or not now.
async fn order(
    client: &Client,
    base: &Mutex<String>,
    token: &str,
    key: &str,
    body: &Value,
    told: &Mutex<Acknowledged>,
) -> Result<(), ()> {
    let place = format!("{}/v1/orders", base.lock().unwrap());
    let asking = client.post(place).bearer_auth(token).header("Idempotency-Key", key).json(body);
    let answer = asking.send().await.map_err(drop)?;
    let (status, order) = (answer.status(), answer.json::<Value>().await.map_err(drop)?);
    if status == 503 || order["code"] == "idempotency_in_progress" {
        return Err(());
    }
    assert_eq!(status, 201, "{order}");
    let place = order["lines"][0]["receipt"]["sequence"].as_u64().unwrap();
    let before = told.lock().unwrap().insert(key.to_owned(), (id(&order), place));
    assert!(before.is_none_or(|before| before.0 == id(&order)), "one key, two orders");
    Ok(())
}
