//! Which trace a request belongs to (W3C Trace Context), and what is told of it to a collector.
//!
//! Without the feature `otel` a trace is read, written into the log and handed on. With it, and with an address to send to, each
//! request is a span of its own: below the one that it came with, or the first of a new trace.

use std::fmt;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::Mark;
#[cfg(feature = "otel")]
use super::otel;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `00-<trace id>-<parent id>-<flags>`.
const TRACEPARENT_LEN: usize = 55;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub(super) id: u128,
    /// Whose request it is; 0: nobody's.
    pub(super) parent: u64,
    /// What whoever is asked for it hears of: our own span, or the parent where we have none.
    pub(super) span: u64,
    /// Bit 0: somebody keeps it.
    pub(super) flags: u8,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub method: &'static str,
    /// The pattern, never the path that was asked for.
    pub route: &'static str,
    pub status: u16,
    /// When, since 1970.
    pub at: Duration,
    pub took: Duration,
}

impl Trace {
    /// What `traceparent` says, if it says one thing and is well formed; anything else is as good as nothing.
    pub fn of(headers: &HeaderMap) -> Option<Trace> {
        let mut said = headers.get_all(TRACEPARENT);
        match (said.next(), said.next()) {
            (Some(one), None) => Trace::read(one.as_bytes()),
            _ => None,
        }
    }

    /// §3.2.2: later versions may only add behind a dash, and `ff` is none.
    pub fn read(word: &[u8]) -> Option<Trace> {
        let digits = |at: std::ops::Range<usize>| {
            let digits = word.get(at)?;
            let are_small = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            let text = std::str::from_utf8(digits).ok().filter(|_| are_small)?;
            u128::from_str_radix(text, 16).ok()
        };
        let dashes = [2, 35, 52].iter().all(|at| word.get(*at) == Some(&b'-'));
        let (version, id, parent, flags) = (digits(0..2)?, digits(3..35)?, digits(36..52)?, digits(53..55)?);
        let ends = match version {
            0 => word.len() == TRACEPARENT_LEN,
            0xff => false,
            _ => word.get(TRACEPARENT_LEN).is_none_or(|next| *next == b'-'),
        };
        let parent = u64::try_from(parent).ok()?;
        let trace = Trace { id, parent, span: parent, flags: u8::try_from(flags).ok()? };
        (dashes && ends && id != 0 && parent != 0).then_some(trace)
    }

    /// The trace of a request that comes in; `chance` makes the ids that are new.
    pub fn begin(headers: &HeaderMap, chance: impl FnMut() -> u128) -> Option<Trace> {
        let came = Trace::of(headers);
        #[cfg(feature = "otel")]
        let trace = otel::begin(came, chance);
        #[cfg(not(feature = "otel"))]
        let (trace, _) = (came, chance);
        trace
    }

    /// 32 hexadecimal digits.
    pub fn id(self) -> impl fmt::Display {
        format!("{:032x}", self.id)
    }

    /// What is said to whoever is asked for this request.
    pub fn handed_on(self) -> Option<HeaderValue> {
        let Trace { id, span, flags, .. } = self;
        HeaderValue::from_str(&format!("00-{id:032x}-{span:016x}-{flags:02x}")).ok()
    }
}

impl Mark {
    /// Tells the collector of it, if there is one.
    pub fn ended(&self, ended: &Ended) {
        #[cfg(feature = "otel")]
        otel::ended(self, ended);
        #[cfg(not(feature = "otel"))]
        let _ = ended;
    }
}

/// Holds the way to the collector open; what has not been told is told when it is dropped.
pub struct Exporting(());

impl Exporting {
    /// Opens it, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where it leads.
    pub fn start() -> Exporting {
        #[cfg(feature = "otel")]
        otel::start();
        Exporting(())
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        otel::stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";

    #[test]
    fn a_trace_is_handed_on_as_it_came() {
        let trace = Trace::read(TRACE.as_bytes()).unwrap();
        assert_eq!(trace.handed_on().unwrap(), TRACE);
        let later = Trace::read(format!("cc{}-more", &TRACE[2..]).as_bytes()).unwrap();
        assert_eq!(later.handed_on().unwrap(), TRACE);
    }

    #[test]
    fn a_trace_is_continued_if_it_is_well_formed() {
        let read = |word: &str| Trace::read(word.as_bytes()).map(|trace| trace.id().to_string());
        let id = Some("0123456789abcdef0123456789abcdef".to_owned());
        assert_eq!(read(TRACE), id);
        assert_eq!(read(&format!("{}00", &TRACE[..53])), id);
        assert_eq!(read(&format!("cc{}", &TRACE[2..])), id);
        assert_eq!(read(&format!("cc{}-what-comes-later", &TRACE[2..])), id);
        for word in [
            "",
            "00",
            &TRACE[..54],
            &format!("{TRACE}-01"),
            &format!("{TRACE}0"),
            &format!("ff{}", &TRACE[2..]),
            &format!("cc{}0", &TRACE[2..]),
            &TRACE.to_uppercase(),
            &TRACE.replace('-', "_"),
            &TRACE.replacen("01", "0g", 1),
            &TRACE.replacen("01", "+1", 1),
            &format!("00-{}-0123456789abcdef-01", "0".repeat(32)),
            &format!("00-0123456789abcdef0123456789abcdef-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(read(word), None, "{word}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(Trace::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(Trace::of(&headers).map(|trace| trace.id().to_string()), id);
        headers.append(TRACEPARENT, HeaderValue::from_static(TRACE));
        assert_eq!(Trace::of(&headers), None, "which of the two?");
    }
}
