//! The administrator's look-up of orders.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::OrderShown;
use super::show::shown_to_clerk;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::{LookUp, LookedUp, Orders};
use crate::actors::payment::Payments;
use crate::actors::user::Users;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::OrderStatus;
use crate::domain::trail::Record;
use crate::http::auth::Admin;
use crate::http::csv::{self, Column, Form, Part};
use crate::http::problem::Problem;
use crate::http::query::{Page, Query};
use crate::http::time::Stamp;

/// Orders of one part of a CSV.
const PART: usize = 256;

/// An order as administrators see it: as its buyer does but for how its payment stands, and whose it is.
#[derive(Debug, Serialize)]
struct OrderFound {
    buyer_id: UserId,
    #[serde(flatten)]
    order: OrderShown,
}

/// One row a line.
const COLUMNS: &[Column] = &[
    Column("order_id", "/id"),
    Column("buyer_id", "/buyer_id"),
    Column("status", "/status"),
    Column("created_at", "/created_at"),
    Column("updated_at", "/updated_at"),
    Column("hold_expires_at", "/hold_expires_at"),
    Column("total_minor", "/total/amount"),
    Column("currency", "/total/currency"),
    Column("payment_status", "/payment/status"),
    Column("line", "/line/line"),
    Column("product_id", "/line/product_id"),
    Column("sku", "/line/sku"),
    Column("name", "/line/name"),
    Column("quantity", "/line/quantity"),
    Column("unit_price_minor", "/line/unit_price/amount"),
    Column("line_status", "/line/status"),
    Column("delivery_status", "/line/delivery_status"),
    Column("delivered_at", "/line/delivered_at"),
    Column("sequence", "/line/receipt/sequence"),
];

/// `GET /v1/admin/orders?buyer=&product=&status=&from=&to=`: newest first. Who takes a table away stands in the trail first.
pub async fn look_up(
    Admin(admin): Admin,
    query: Query,
    form: Form,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    users: web::Data<Users>,
) -> Result<HttpResponse, Problem> {
    let time = "a time like 2026-10-30T09:15:00.000Z";
    let ask = LookUp {
        buyer: query.parsed("buyer", |word| word.parse::<UserId>().ok(), "a user's id")?,
        product: query.parsed("product", |word| word.parse::<ProductId>().ok(), "a product's id")?,
        status: query.parsed("status", OrderStatus::from_word, "an order status")?,
        from: query.parsed("from", Stamp::read, time)?.map(|Stamp(at)| at),
        to: query.parsed("to", Stamp::read, time)?.map(|Stamp(at)| at),
        behind: query.cursor::<OrderId>()?,
        limit: query.limit()? as usize,
    };
    match form {
        Form::Json => {
            let (data, next) = found(&orders, &payments, &catalogue, ask).await?;
            let next_cursor = next.map(|next| next.to_string());
            Ok(HttpResponse::Ok().json(Page { data, next_cursor }))
        }
        Form::Csv => {
            users.tell_export(admin, "orders", |record| narrowed(record, &ask)).await?;
            csv::stream("orders", COLUMNS, ask.behind, move |behind| {
                let (orders, payments, catalogue) = (orders.clone(), payments.clone(), catalogue.clone());
                async move {
                    let ask = LookUp { behind, limit: PART, ..ask };
                    let (found, next) = found(&orders, &payments, &catalogue, ask).await?;
                    Ok(Part::of(found.into_iter().flat_map(|order| csv::lines(&order)), next))
                }
            })
            .await
        }
    }
}

/// What a table has of all orders.
fn narrowed(record: Record, ask: &LookUp) -> Record {
    let record = record.id_if("buyer", ask.buyer).id_if("product", ask.product);
    let record = record.word_if("status", ask.status.map(OrderStatus::as_str));
    let record =
        record.number_if("from_ms", ask.from.map(|at| at.0)).number_if("to_ms", ask.to.map(|at| at.0));
    record.id_if("behind", ask.behind)
}

async fn found(
    orders: &Orders,
    payments: &Payments,
    catalogue: &Catalogue,
    ask: LookUp,
) -> Result<(Vec<OrderFound>, Option<OrderId>), Problem> {
    let LookedUp { orders, next } = orders.look_up(ask).await?;
    let mut found = Vec::with_capacity(orders.len());
    for (order, sight) in payments.beside(orders).await? {
        let buyer_id = order.buyer;
        found.push(OrderFound { buyer_id, order: shown_to_clerk(catalogue, order, sight).await });
    }
    Ok((found, next))
}
