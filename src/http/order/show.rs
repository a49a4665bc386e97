//! An order as its buyer sees it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::actors::catalogue::{Catalogue, Text};
use crate::actors::payment::PaymentSight;
use crate::domain::amount::{Money, Quantity};
use crate::domain::delivery::{Delivery, DeliveryStatus, lay_over};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::Sequence;
use crate::http::idempotency::REPLAYED;
use crate::http::payment::PaymentShown;
use crate::http::shapes::MoneySchema;
use crate::http::time::Stamp;

/// An order of one line takes about 560 bytes, its payment 200 more.
const ORDER_BYTES: usize = 768;

/// An order.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderShown {
    #[schema(value_type = String, example = "order_01jbeq9h0wfx3tq4r2n6d8v5ka")]
    id: OrderId,
    #[schema(value_type = OrderStatusSchema)]
    status: OrderStatus,
    lines: Vec<LineShown>,
    /// What the lines that still count come to: those that were cancelled or sent back count no more. Of an order that was never
    /// paid, what it would have cost.
    #[schema(value_type = MoneySchema)]
    total: Money,
    /// When the hold lapses, or would have lapsed.
    #[schema(value_type = String, format = DateTime)]
    hold_expires_at: Stamp,
    /// The latest attempt to pay it; null while there is none, or where our record of it is damaged.
    #[schema(value_type = Option<PaymentShown>)]
    payment: Option<PaymentShown>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

/// One line of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineShown {
    line: u8,
    #[schema(value_type = String)]
    product_id: ProductId,
    #[serde(serialize_with = "sku")]
    #[schema(value_type = String)]
    sku: Option<Arc<Text>>,
    #[serde(serialize_with = "name")]
    #[schema(value_type = String)]
    name: Option<Arc<Text>>,
    #[schema(value_type = u32)]
    quantity: Quantity,
    /// Frozen when the line was held.
    #[schema(value_type = MoneySchema)]
    unit_price: Money,
    #[schema(value_type = LineStatusSchema)]
    status: LineStatus,
    /// Null until the line is ordered, once it is cancelled, and where our record of its payment is damaged.
    #[schema(value_type = Option<DeliveryStatusSchema>)]
    delivery_status: Option<DeliveryStatus>,
    #[schema(value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Stamp>,
    receipt: ReceiptShown,
}

/// The proof of a place in the queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptShown {
    /// The line's place in its product's queue.
    #[schema(value_type = u64, minimum = 1)]
    sequence: Sequence,
}

/// `pending_payment` → `paid` | `payment_failed` | `expired` | `cancelled`; `paid` → `cancelled` | `returned` | `closed`.
#[derive(ToSchema)]
#[schema(as = OrderStatus, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum OrderStatusSchema {
    PendingPayment,
    Paid,
    PaymentFailed,
    Expired,
    Cancelled,
    Returned,
    Closed,
}

/// `held` → `ordered` | `released`; `ordered` → `cancelled` | `return_requested` → `returned`.
#[derive(ToSchema)]
#[schema(as = LineStatus, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum LineStatusSchema {
    Held,
    Released,
    Ordered,
    Cancelled,
    ReturnRequested,
    Returned,
}

/// `preparing` → `shipping` → `delivered`.
#[derive(ToSchema)]
#[schema(as = DeliveryStatus, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum DeliveryStatusSchema {
    Preparing,
    Shipping,
    Delivered,
}

fn sku<S: Serializer>(text: &Option<Arc<Text>>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(text.as_ref().map_or("", |text| &text.sku))
}

fn name<S: Serializer>(text: &Option<Arc<Text>>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(text.as_ref().map_or("", |text| &text.name))
}

/// An order as its buyer sees it.
pub fn shown(
    catalogue: &Catalogue,
    order: Order,
    payment: Option<PaymentSight>,
) -> impl Future<Output = OrderShown> {
    put_together(catalogue, order, payment, PaymentShown::for_buyer)
}

/// An order as administrators see it.
pub fn shown_to_clerk(
    catalogue: &Catalogue,
    order: Order,
    payment: Option<PaymentSight>,
) -> impl Future<Output = OrderShown> {
    put_together(catalogue, order, payment, PaymentShown::for_clerk)
}

/// `order` with the names its products have now, under what became of its lines. An order that stands is shown even while the
/// names cannot be read.
async fn put_together(
    catalogue: &Catalogue,
    mut order: Order,
    payment: Option<PaymentSight>,
    seen: fn(PaymentSight) -> PaymentShown,
) -> OrderShown {
    let deliveries = payment.as_ref().map_or(&[][..], |sight| &sight.deliveries);
    lay_over(&mut order, deliveries);
    let mut lines = Vec::with_capacity(order.lines.len());
    for line in order.lines {
        let text = catalogue.text(line.product).await.ok().flatten();
        let delivery = deliveries.iter().find(|delivery| delivery.line == line.line);
        // Its payment is about to say so: sold, and nothing has happened to it.
        let is_new = line.status == LineStatus::Ordered && payment.is_some();
        let new = is_new.then_some(DeliveryStatus::Preparing);
        lines.push(LineShown::of(line, text, delivery, new));
    }
    OrderShown {
        id: order.id,
        status: order.status,
        lines,
        total: order.total,
        hold_expires_at: Stamp(order.hold_expires_at),
        payment: payment.map(seen),
        created_at: Stamp(order.created_at),
        updated_at: Stamp(order.updated_at),
    }
}

impl LineShown {
    fn of(
        line: Line,
        text: Option<Arc<Text>>,
        delivery: Option<&Delivery>,
        new: Option<DeliveryStatus>,
    ) -> LineShown {
        LineShown {
            line: line.line,
            product_id: line.product,
            sku: text.clone(),
            name: text,
            quantity: line.quantity,
            unit_price: line.unit_price,
            status: line.status,
            delivery_status: delivery.map_or(new, Delivery::status),
            delivered_at: delivery.and_then(|delivery| delivery.delivered_at).map(Stamp),
            receipt: ReceiptShown { sequence: line.sequence },
        }
    }
}

impl OrderShown {
    /// The answer to a request that placed or changed the order, now or before.
    pub fn answer(&self, status: StatusCode, replayed: bool) -> HttpResponse {
        let mut body = Vec::with_capacity(ORDER_BYTES * self.lines.len().max(1));
        // Writing into memory has no way to fail.
        let written = serde_json::to_writer(&mut body, self);
        debug_assert!(written.is_ok());
        let mut answer = HttpResponse::build(status);
        answer.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        if replayed {
            answer.insert_header(REPLAYED);
        }
        answer.body(body)
    }
}
