//! The administrator's doors: give money back, look at what waits, try it again, decide what nobody else can.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::ask::RefundRequest;
use super::show::{ApprovalShown, CompensationShown, PaymentShown, RefundShown};
use crate::actors::payment::{
    CompensationId, Decided, GiveBack, NotGiven, PaymentSight, Payments, Retried, Settled, Standing, Waits,
};
use crate::domain::id::{OrderId, PaymentId};
use crate::domain::payment::Asker;
use crate::http::auth::{Admin, RecentAdmin};
use crate::http::body::{Body, NoBody};
use crate::http::idempotency::{Fingerprint, IdempotencyKey, REPLAYED};
use crate::http::order::NO_ORDER;
use crate::http::problem::{Code, Fact, Problem};
use crate::http::query::{Id, Page, Query};
use crate::tokens::Identity;

const NOTHING_WAITS: &str = "Nothing with this id waits.";
const UNDECIDED: &str = "It waits for a decision: accept it, or give it back.";
const STILL_TRIED: &str =
    "The provider may still do it: only what it has failed for good is settled by hand.";
const REASON_CHARS_MAX: usize = 200;

impl From<NotGiven> for Problem {
    fn from(why: NotGiven) -> Problem {
        let conflict = |detail: &'static str| Problem::new(Code::OrderStateConflict, detail);
        match why {
            NotGiven::NoOrder => Problem::not_found(NO_ORDER),
            NotGiven::NoLine => Problem::field("/line", "the order has no such line"),
            NotGiven::NotPaid => conflict("No money was taken for this order."),
            NotGiven::OtherCurrency => {
                Problem::field("/amount/currency", "money goes back in the currency in which it came")
            }
            NotGiven::TooMuch { captured, refunded, asked } => {
                conflict("More than is left of what was taken.")
                    .with("captured", Fact::Signed(captured))
                    .with("refunded", Fact::Signed(refunded))
                    .with("requested", Fact::Signed(asked))
            }
            NotGiven::Before { refund } => {
                conflict("This was given back already.").with("refund_id", Fact::Word(refund.to_string()))
            }
            NotGiven::KeyReused => Problem::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key came before, with another body.",
            ),
            NotGiven::NotDone(why) => why.into(),
        }
    }
}

/// `POST /v1/admin/orders/{id}/refunds`: needs a key, because giving back twice is not giving back once.
pub async fn give_back(
    RecentAdmin(admin): RecentAdmin,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    payments: web::Data<Payments>,
    Body(asked): Body<RefundRequest>,
) -> Result<HttpResponse, Problem> {
    let RefundRequest { amount, line, restock, reason } = asked;
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(Problem::field("/reason", "1 to 200 characters"));
    }
    if amount.is_some_and(|amount| amount.amount <= 0) {
        return Err(Problem::field("/amount/amount", "more than nothing"));
    }
    if amount.is_some() && line.is_none() && restock.back().is_some() {
        return Err(Problem::field("/restock", "say which line the units belong to, or leave them"));
    }
    let door = Fingerprint::of("POST /v1/admin/orders/{id}/refunds").bytes(order.as_bytes());
    let currency = amount.as_ref().map_or("", |amount| amount.currency.as_str());
    let asked = door.number(amount.map_or(0, |amount| amount.amount)).bytes(currency.as_bytes());
    let asked = asked.number(line.map_or(0, i64::from));
    let asked = asked.bytes(restock.as_str().as_bytes()).bytes(reason.as_bytes());
    let key = key.of_caller(admin.user, asked).ok_or_else(|| {
        Problem::field("Idempotency-Key", "needed here: giving back twice is not giving back once")
    })?;
    // Without the reason: a clerk may have written a name there. It is compared, and kept nowhere.
    tracing::info!(%order, by = %admin.user, "money is asked back for {order}");
    let gave = match payments.give_back(asker(admin), order, GiveBack { amount, line, restock, key }).await? {
        Decided::Done(gave) => gave,
        Decided::Waits(waits) => return Ok(waiting(*waits)),
    };
    let mut answer = HttpResponse::build(StatusCode::CREATED);
    if gave.replayed {
        answer.insert_header(REPLAYED);
    }
    Ok(answer.json(RefundShown::from(gave.refund)))
}

/// `GET /v1/admin/orders/{id}/refunds`: oldest first, all on one page.
pub async fn refunds(
    _: Admin,
    Id(order): Id<OrderId>,
    payments: web::Data<Payments>,
) -> Result<web::Json<Page<RefundShown>>, Problem> {
    let refunds = payments.refunds_of(order).await?;
    let data = refunds.into_iter().map(RefundShown::from).collect();
    Ok(web::Json(Page { data, next_cursor: None }))
}

/// `GET /v1/admin/compensations?state=`: oldest first.
pub async fn compensations(
    _: Admin,
    query: Query,
    payments: web::Data<Payments>,
) -> Result<web::Json<Page<CompensationShown>>, Problem> {
    let only = query.parsed("state", Standing::from_word, "pending, stuck or review")?;
    let (limit, after) = (query.limit()?, query.cursor::<CompensationId>()?);
    let rows = payments.compensations(only, after, limit as usize + 1).await?;
    let page = Page::of(rows, limit, |one| one.id.to_string());
    Ok(web::Json(page.map(CompensationShown::from)))
}

/// `POST /v1/admin/compensations/{id}/retry`: at once instead of at its time.
pub async fn retry(
    RecentAdmin(admin): RecentAdmin,
    _: IdempotencyKey,
    Id(id): Id<CompensationId>,
    payments: web::Data<Payments>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    match payments.retry(admin.user, id).await? {
        Retried::Now => Ok(HttpResponse::Accepted().finish()),
        Retried::Undecided => Err(Problem::new(Code::OrderStateConflict, UNDECIDED)),
        Retried::NothingWaits => Err(Problem::not_found(NOTHING_WAITS)),
    }
}

/// `POST /v1/admin/compensations/{id}/accept`: what was taken is kept, and the order is sold.
pub async fn accept(
    RecentAdmin(admin): RecentAdmin,
    _: IdempotencyKey,
    Id(payment): Id<PaymentId>,
    payments: web::Data<Payments>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    shown(payments.accept(asker(admin), payment).await?)
}

/// `POST /v1/admin/compensations/{id}/give-back`: what was taken goes back, and the units are on sale again.
pub async fn return_money(
    RecentAdmin(admin): RecentAdmin,
    _: IdempotencyKey,
    Id(payment): Id<PaymentId>,
    payments: web::Data<Payments>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    shown(payments.decline(asker(admin), payment).await?)
}

/// `POST /v1/admin/compensations/{id}/settle`: the provider will not give it back, and somebody has done so another way.
pub async fn settle(
    RecentAdmin(admin): RecentAdmin,
    _: IdempotencyKey,
    Id(id): Id<CompensationId>,
    payments: web::Data<Payments>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let settled = match id {
        CompensationId::Refund(refund) => payments.settle(asker(admin), refund).await?,
        CompensationId::Payment(_) | CompensationId::Approval(_) => Settled::NothingWaits,
    };
    match settled {
        Settled::Done(refund) => Ok(HttpResponse::Ok().json(RefundShown::from(*refund))),
        Settled::Waits(waits) => Ok(waiting(*waits)),
        Settled::StillTried => Err(Problem::new(Code::OrderStateConflict, STILL_TRIED)),
        Settled::NothingWaits => Err(Problem::not_found(NOTHING_WAITS)),
    }
}

fn asker(Identity { user, session, .. }: Identity) -> Asker {
    Asker { user, session }
}

fn shown(decided: Option<Decided<PaymentSight>>) -> Result<HttpResponse, Problem> {
    match decided.ok_or_else(|| Problem::not_found(NOTHING_WAITS))? {
        Decided::Done(sight) => Ok(HttpResponse::Ok().json(PaymentShown::for_clerk(sight))),
        Decided::Waits(waits) => Ok(waiting(*waits)),
    }
}

/// Nothing has happened: another administrator is to ask for the same.
fn waiting(Waits { approval, refund, replayed }: Waits) -> HttpResponse {
    let mut answer = HttpResponse::Accepted();
    if replayed {
        answer.insert_header(REPLAYED);
    }
    answer.json(ApprovalShown::of(approval, refund))
}
