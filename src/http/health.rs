//! What the machinery around us asks: do you live, are you ready, how are you.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Side;
use super::problem::{Code, Problem};
use super::refusal::internal;
use crate::telemetry;

/// Why orders cannot be acknowledged at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    Starting,
    ShuttingDown,
    /// The journal cannot be written, for want of room or of a disk.
    JournalUnavailable,
    /// The tables are so far behind that new holds are refused.
    FlushBehind,
    /// This node hands everything to the lead, and there is none that it reaches.
    NoActiveNode,
    /// Nobody could read for ten seconds whom other nodes have sent away, so no token is believed.
    RevocationsUnread,
}

impl NotReady {
    const ALL: [NotReady; 6] = [
        NotReady::Starting,
        NotReady::ShuttingDown,
        NotReady::JournalUnavailable,
        NotReady::FlushBehind,
        NotReady::NoActiveNode,
        NotReady::RevocationsUnread,
    ];

    fn bit(self) -> u16 {
        match self {
            NotReady::Starting => 1,
            NotReady::ShuttingDown => 2,
            NotReady::JournalUnavailable => 4,
            NotReady::FlushBehind => 8,
            NotReady::NoActiveNode => 16,
            NotReady::RevocationsUnread => 512,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            NotReady::Starting => "starting",
            NotReady::ShuttingDown => "shutting_down",
            NotReady::JournalUnavailable => "journal_unavailable",
            NotReady::FlushBehind => "flush_behind",
            NotReady::NoActiveNode => "no_active_node",
            NotReady::RevocationsUnread => "revocations_unread",
        }
    }
}

/// What is not as it should be, though orders can be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degraded {
    /// Redis does not answer: other nodes see no stock of ours but through us.
    RedisUnavailable,
    /// Redis answers, and the mirror is not up to date all the same.
    MirrorBehind,
    /// The database has been set to say yes to what it may lose, or is another than the one the shop was opened on.
    DatabaseUnfit,
    /// This machine's clock tells another time than the database's: holds lapse by it.
    ClockApart,
    /// The tables stand still before an entry of the journal that cannot be read: nobody can pay for what was ordered since.
    TablesHalted,
}

impl Degraded {
    const ALL: [Degraded; 5] = [
        Degraded::RedisUnavailable,
        Degraded::MirrorBehind,
        Degraded::DatabaseUnfit,
        Degraded::ClockApart,
        Degraded::TablesHalted,
    ];

    fn bit(self) -> u16 {
        match self {
            Degraded::RedisUnavailable => 32,
            Degraded::MirrorBehind => 64,
            Degraded::DatabaseUnfit => 128,
            Degraded::ClockApart => 256,
            Degraded::TablesHalted => 1_024,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Degraded::RedisUnavailable => "redis_unavailable",
            Degraded::MirrorBehind => "mirror_behind",
            Degraded::DatabaseUnfit => "database_unfit",
            Degraded::ClockApart => "clock_apart",
            Degraded::TablesHalted => "tables_halted",
        }
    }
}

/// Whether orders can be acknowledged, and why not. Cheap to clone; all clones tell the same.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicU16>);

impl Readiness {
    /// Not ready: starting.
    pub fn starting() -> Readiness {
        Readiness(Arc::new(AtomicU16::new(NotReady::Starting.bit())))
    }

    /// Not ready: nobody leads.
    pub fn without_active_node() -> Readiness {
        Readiness(Arc::new(AtomicU16::new(NotReady::NoActiveNode.bit())))
    }

    pub fn raise(&self, why: NotReady) {
        self.0.fetch_or(why.bit(), Ordering::Release);
    }

    pub fn clear(&self, why: NotReady) {
        self.0.fetch_and(!why.bit(), Ordering::Release);
    }

    /// Whether so much is wrong, and no more.
    pub fn degrade(&self, what: Degraded, it_is_so: bool) {
        if it_is_so {
            self.0.fetch_or(what.bit(), Ordering::Release);
        } else {
            self.0.fetch_and(!what.bit(), Ordering::Release);
        }
    }

    /// What is wrong without keeping anybody from buying.
    pub fn degraded(&self) -> Vec<Degraded> {
        let bits = self.0.load(Ordering::Acquire);
        Degraded::ALL.into_iter().filter(|what| bits & what.bit() != 0).collect()
    }

    /// Every reason there is; none means ready.
    pub fn reasons(&self) -> Vec<NotReady> {
        let bits = self.0.load(Ordering::Acquire);
        NotReady::ALL.into_iter().filter(|why| bits & why.bit() != 0).collect()
    }
}

/// The state of this process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `alive`, `ready` or `not_ready`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Why not: `starting`, `shutting_down`, `journal_unavailable`, `flush_behind`, `no_active_node`,
    /// `revocations_unread`.
    #[schema(value_type = Vec<String>)]
    reasons: Vec<&'static str>,
    /// What is wrong though orders can be acknowledged: `redis_unavailable`, `mirror_behind`, `database_unfit`,
    /// `clock_apart`, `tables_halted`.
    #[schema(value_type = Vec<String>)]
    degraded: Vec<&'static str>,
}

/// `GET /livez`: the process answers.
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "alive", reasons: Vec::new(), degraded: Vec::new() })
}

/// `GET /readyz`: 200 while orders can be acknowledged, else 503. Where operators have a listener of their own, only
/// that one says why.
pub async fn readyz(readiness: web::Data<Readiness>, side: web::Data<Side>) -> HttpResponse {
    let mut reasons: Vec<_> = readiness.reasons().into_iter().map(NotReady::word).collect();
    let mut degraded: Vec<_> = readiness.degraded().into_iter().map(Degraded::word).collect();
    let ready = reasons.is_empty();
    if **side == Side::Shop {
        reasons.clear();
        degraded.clear();
    }
    if ready {
        HttpResponse::Ok().json(Health { status: "ready", reasons, degraded })
    } else {
        HttpResponse::ServiceUnavailable().json(Health { status: "not_ready", reasons, degraded })
    }
}

/// `GET /metrics`: the Prometheus text format.
pub async fn metrics(readiness: web::Data<Readiness>) -> Result<HttpResponse, Problem> {
    let (reasons, degraded) = (readiness.reasons(), readiness.degraded());
    telemetry::conditions(
        NotReady::ALL.map(|why| (why.word(), reasons.contains(&why))),
        Degraded::ALL.map(|what| (what.word(), degraded.contains(&what))),
    );
    telemetry::refusals_known(Code::ALL.iter().map(|code| code.word()));
    // Adding up takes milliseconds, in which a thread that serves buyers would serve nobody.
    let text = web::block(telemetry::render).await.map_err(|_| internal())?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_no_reason_is_left() {
        let readiness = Readiness::starting();
        readiness.raise(NotReady::FlushBehind);
        readiness.clone().clear(NotReady::Starting);
        assert_eq!(readiness.reasons(), [NotReady::FlushBehind]);
        readiness.clear(NotReady::FlushBehind);
        for why in NotReady::ALL {
            readiness.raise(why);
            assert_eq!((readiness.reasons(), readiness.degraded()), (vec![why], vec![]));
            readiness.clear(why);
        }
        readiness.degrade(Degraded::RedisUnavailable, true);
        assert_eq!((readiness.reasons(), readiness.degraded()), (vec![], vec![Degraded::RedisUnavailable]));
        readiness.degrade(Degraded::RedisUnavailable, false);
        assert_eq!(readiness.degraded(), []);
        for what in Degraded::ALL {
            readiness.degrade(what, true);
        }
        assert_eq!((readiness.reasons(), readiness.degraded()), (vec![], Degraded::ALL.to_vec()));
    }
}
