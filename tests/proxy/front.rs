//! HAProxy with the very words of `docker-compose.yml`, on free ports of this machine, in front of nodes that a test chooses.

use std::net::SocketAddr;

use stockade_servers::{HaProxy, free_address};

use crate::compose;

const NODES: [&str; 2] = ["node-one", "node-two"];

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub shop: SocketAddr,
    pub ops: SocketAddr,
}

impl Place {
    /// Where nobody listens yet.
    pub fn free() -> Place {
        Place { shop: free_address().unwrap(), ops: free_address().unwrap() }
    }
}

/// How many callers the door of the shop lets in here.
pub const CALLERS_MAX: u64 = 180;

pub struct Front {
    proxy: HaProxy,
    /// Where buyers ask.
    pub shop: SocketAddr,
    /// Where administrators ask.
    pub ops: SocketAddr,
}

impl Front {
    pub async fn before(nodes: [Place; 2]) -> Front {
        Front::saying(&compose::configuration("proxy"), nodes).await
    }

    /// One that waits for a node's answer for two seconds.
    pub async fn in_a_hurry_before(nodes: [Place; 2]) -> Front {
        let words = compose::configuration("proxy");
        let hurried = words.replace("timeout server 30s", "timeout server 2s");
        assert_ne!(hurried, words);
        Front::saying(&hurried, nodes).await
    }

    async fn saying(words: &str, nodes: [Place; 2]) -> Front {
        let Place { shop, ops } = Place::free();
        // So many files may not be open at once on every machine; a test has few callers.
        let mut words = words
            .replace(&format!("maxconn {}\n", compose::callers_of("staff")), "maxconn 20\n")
            .replace(
                &format!("maxconn {}\n", compose::callers_of("everybody")),
                &format!("maxconn {CALLERS_MAX}\n"),
            )
            .replace(&format!("maxconn {}\n", compose::callers_max()), "maxconn 200\n")
            .replace("bind :8080", &format!("bind {shop}"))
            .replace("bind :9090", &format!("bind {ops}"));
        for (name, node) in NODES.iter().zip(&nodes) {
            words = words
                .replace(&format!("{name}:8080"), &node.shop.to_string())
                .replace(&format!("{name}:9090"), &node.ops.to_string());
        }
        Front { proxy: HaProxy::started(&words, shop).await.unwrap(), shop, ops }
    }

    /// What the proxy said last.
    pub fn log_tail(&self) -> String {
        self.proxy.log_tail()
    }
}
