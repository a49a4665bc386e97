//! What a node tells the others of itself, and what it has seen of them.
//!
//! Always true: nothing in here decides who writes; that is `membership`'s alone. Whoever reads it too late asks the wrong node, and
//! hears so.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

/// Whoever stands by and has not looked for so long is not told of.
pub const SILENT_MS: u64 = 3_000;
/// … and after so long his row goes; if he is there after all he writes another.
pub const GONE_MS: u64 = 60_000;

/// The lead, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    pub session: i64,
    /// Where it answers other nodes; `None`: it does not.
    pub address: Option<String>,
}

/// One node's place among the others. Made once a process; it outlasts sessions.
#[derive(Debug)]
pub struct Neighbours {
    /// Where others reach this one.
    pub address: Option<String>,
    /// Whether it may own stock, and become the lead.
    pub may_own: bool,
    /// Who was active at the last look; `None` while this one is, or nobody.
    pub active: watch::Sender<Option<Active>>,
    /// Whether this one is the lead, or is about to be.
    pub joined: AtomicBool,
    /// Whether this one has ever tried to be. Nobody takes it back.
    pub has_led: AtomicBool,
    /// When this one left, somebody stood by who may follow.
    pub followed: AtomicBool,
    /// Somebody waits for news: look now.
    pub look: Arc<Notify>,
}

impl Neighbours {
    pub fn new(address: Option<String>, may_own: bool) -> Neighbours {
        Neighbours {
            address,
            may_own,
            active: watch::Sender::new(None),
            joined: AtomicBool::new(false),
            has_led: AtomicBool::new(false),
            followed: AtomicBool::new(false),
            look: Arc::default(),
        }
    }
}

/// A node that has a session: one that may own stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub session: i64,
    pub node: Vec<u8>,
    /// Where it answers other nodes; `None`: it does not.
    pub address: Option<String>,
    /// It has said that it goes in a moment.
    pub leaving: bool,
}

/// A node that stands by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    pub node: Vec<u8>,
    pub address: Option<String>,
    pub may_own: bool,
    /// How long ago it was seen to look.
    pub silent_ms: u64,
}

/// A row of `node_standbys`.
#[derive(Debug, Clone)]
pub struct Looked {
    pub node: Vec<u8>,
    pub looks: i64,
    pub address: Option<String>,
    pub may_own: bool,
}

/// Who is there, as one node sees it with its own clock.
#[derive(Debug, Default)]
pub struct Roster {
    standbys: Mutex<Vec<(Looked, u64)>>,
    peers: watch::Sender<Vec<Peer>>,
}

impl Roster {
    /// Notes who has a session, this node among them.
    pub fn meet(&self, peers: Vec<Peer>) {
        self.peers.send_if_modified(|known| {
            let news = *known != peers;
            *known = peers;
            news
        });
    }

    pub fn peers(&self) -> Vec<Peer> {
        self.peers.borrow().clone()
    }

    pub fn watch_peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.peers.subscribe()
    }

    /// Notes what the table holds at `now_ns`; hands back the rows of those who have gone.
    pub fn note(&self, rows: Vec<Looked>, now_ns: u64) -> Vec<Looked> {
        let mut known = self.standbys.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = rows.into_iter().map(|row| {
            let same = known.iter().find(|(seen, _)| (&seen.node, seen.looks) == (&row.node, row.looks));
            let since = same.map_or(now_ns, |(_, since)| *since);
            (row, since)
        });
        *known = noted.collect();
        known
            .iter()
            .filter(|(_, at)| ms_between(*at, now_ns) >= GONE_MS)
            .map(|(row, _)| row.clone())
            .collect()
    }

    /// How long ago a node was seen to look; `None`: it is not known.
    pub fn silent_ms(&self, node: &[u8], now_ns: u64) -> Option<u64> {
        let known = self.standbys.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(row, _)| row.node == node).map(|(_, at)| ms_between(*at, now_ns))
    }

    /// Those who looked a moment ago.
    pub fn seen(&self, now_ns: u64) -> Vec<Standby> {
        let known = self.standbys.lock().unwrap_or_else(PoisonError::into_inner);
        let standbys = known.iter().map(|(row, at)| Standby {
            node: row.node.clone(),
            address: row.address.clone(),
            may_own: row.may_own,
            silent_ms: ms_between(*at, now_ns),
        });
        standbys.filter(|standby| standby.silent_ms < SILENT_MS).collect()
    }
}

fn ms_between(then_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(then_ns) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: u8, looks: i64) -> Looked {
        Looked { node: vec![node], looks, address: None, may_own: true }
    }

    #[test]
    fn whoever_looks_is_there_and_whoever_does_not_goes() {
        let roster = Roster::default();
        let at = |ms: u64| 7 + ms * 1_000_000;
        assert!(roster.note(vec![row(1, 1), row(2, 5)], at(0)).is_empty());
        assert_eq!(roster.seen(at(100)).len(), 2);
        assert!(roster.note(vec![row(1, 1), row(2, 6)], at(2_900)).is_empty());
        let there = roster.seen(at(3_000));
        assert_eq!((there.len(), &there[0].node, there[0].silent_ms), (1, &vec![2], 100));
        assert_eq!(
            roster.silent_ms(&[1], at(4_000)),
            Some(4_000),
            "told of by its session, it is as old as it is"
        );
        assert_eq!(roster.silent_ms(&[3], at(4_000)), None);
        let gone = roster.note(vec![row(1, 1), row(2, 7)], at(60_000));
        assert_eq!(gone.len(), 1);
        assert_eq!((&gone[0].node, gone[0].looks), (&vec![1], 1));
    }
}
