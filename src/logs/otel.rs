//! Spans on their way to an OpenTelemetry collector, over OTLP with protobuf and HTTP.
//!
//! Where they go, and with which headers, is said by the variables that every exporter reads: `OTEL_EXPORTER_OTLP_ENDPOINT` (without
//! it nothing is sent), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…`. A trace that
//! begins here is kept with the probability `OTEL_TRACES_SAMPLER_ARG` (1); one that comes from elsewhere is kept if it was there.
//! Spans wait in a queue of a fixed length, and what does not fit is dropped: a collector that is slow keeps nobody waiting.

use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};

use super::{Ended, Mark, Trace};

const SERVICE: &str = "stockade";
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

struct Exporter {
    processor: BatchSpanProcessor,
    /// Of so many traces in 2^32 one is kept.
    kept: u64,
}

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

pub fn start() {
    if !ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return;
    }
    let exporter = match SpanExporter::builder().with_http().build() {
        Ok(exporter) => exporter,
        Err(error) => {
            return tracing::error!(%error, "no spans are sent: the collector's address cannot be used");
        }
    };
    let mut processor = BatchSpanProcessor::new(exporter, BatchConfig::default());
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => Resource::builder(),
        None => Resource::builder().with_service_name(SERVICE),
    };
    processor.set_resource(&resource.build());
    let share = std::env::var("OTEL_TRACES_SAMPLER_ARG").ok().and_then(|share| share.parse::<f64>().ok());
    let kept = (share.unwrap_or(1.0).clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64;
    // A second start, as in tests, changes nothing.
    let _ = EXPORTER.set(Exporter { processor, kept });
}

pub fn stop() {
    if let Some(exporter) = EXPORTER.get()
        && let Err(error) = exporter.processor.shutdown()
    {
        tracing::warn!(%error, "the last spans could not be sent");
    }
}

/// A span of our own: below the one that came, or the first of a new trace.
pub fn begin(came: Option<Trace>, mut chance: impl FnMut() -> u128) -> Option<Trace> {
    let Some(Exporter { kept, .. }) = EXPORTER.get() else { return came };
    let span = (chance() as u64).max(1);
    Some(match came {
        Some(trace) => Trace { span, ..trace },
        None => {
            let id = chance().max(1);
            let flags = u8::from((id as u64 & 0xffff_ffff) < *kept);
            Trace { id, parent: 0, span, flags }
        }
    })
}

pub fn ended(mark: &Mark, ended: &Ended) {
    let (Some(exporter), Some(trace)) = (EXPORTER.get(), mark.trace) else { return };
    let flags = TraceFlags::new(trace.flags);
    if !flags.is_sampled() {
        return;
    }
    let Ended { method, route, status, at, took } = *ended;
    let id = |bytes: u64| SpanId::from_bytes(bytes.to_be_bytes());
    let trace_id = TraceId::from_bytes(trace.id.to_be_bytes());
    let end_time = UNIX_EPOCH + at;
    let request_id = mark.request_id.to_str().unwrap_or_default().to_owned();
    // After OpenTelemetry's semantic conventions for HTTP servers: only a fault of ours is an error.
    let failed = status >= 500;
    exporter.processor.on_end(SpanData {
        span_context: SpanContext::new(trace_id, id(trace.span), flags, false, TraceState::NONE),
        parent_span_id: id(trace.parent),
        parent_span_is_remote: trace.parent != 0,
        span_kind: SpanKind::Server,
        name: format!("{method} {route}").into(),
        start_time: end_time - took,
        end_time,
        attributes: vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("stockade.request_id", request_id),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder(SERVICE).build(),
    });
}
