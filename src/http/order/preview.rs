//! What an order would cost and what it would lack, as of now. Nothing is held.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::{self, PreviewRequest};
use crate::actors::catalogue::Catalogue;
use crate::actors::user::{Unable, Users};
use crate::clock::Clock;
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::SaleState;
use crate::domain::user::Address;
use crate::http::auth::Shopper;
use crate::http::body::Body;
use crate::http::problem::Problem;
use crate::http::product::state_word;
use crate::http::rate::OrderRate;
use crate::http::shapes::{AddressSchema, MoneySchema};

/// What an order would cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    lines: Vec<PreviewLine>,
    #[schema(value_type = MoneySchema)]
    total: Money,
    /// Where it would go: to the address that was named, or else the account's. Null where neither is known.
    #[schema(value_type = Option<AddressSchema>)]
    address: Option<Address>,
    /// Whether every line could be held at this moment.
    orderable: bool,
}

/// One line of a preview.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewLine {
    #[schema(value_type = String)]
    product_id: ProductId,
    sku: String,
    name: String,
    #[schema(value_type = u32)]
    quantity: Quantity,
    #[schema(value_type = MoneySchema)]
    unit_price: Money,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    available: u64,
    /// Units that are missing.
    short: u64,
    /// `open`, `paused`, `not_open`, `closed` or `archived`.
    #[schema(value_type = String)]
    sale_state: &'static str,
}

/// `POST /v1/orders/preview`. It counts as a try: each looks at as many products as an order has lines.
pub async fn preview(
    Shopper(buyer): Shopper,
    rate: web::Data<OrderRate>,
    clock: web::Data<Clock>,
    catalogue: web::Data<Catalogue>,
    users: web::Data<Users>,
    Body(asked): Body<PreviewRequest>,
) -> Result<web::Json<Preview>, Problem> {
    rate.take(buyer)?;
    let items = ask::items(&asked.items)?;
    let mut lines = Vec::with_capacity(items.len());
    let mut total: Option<Money> = None;
    let mut orderable = true;
    for (at, item) in items.into_iter().enumerate() {
        let view = Box::pin(catalogue.view(item.product)).await?;
        let text = catalogue.text(item.product).await?;
        let too_large = || Problem::field(format!("/items/{at}"), "the amount is too large");
        let unit_price = view.settings.price;
        let amount = unit_price.times(item.quantity).ok_or_else(too_large)?;
        total = Some(match total {
            None => amount,
            Some(sum) if sum.currency != amount.currency => {
                return Err(Problem::field(
                    "/items",
                    "an order has one currency, and these products have several",
                ));
            }
            Some(sum) => sum.plus(amount).ok_or_else(too_large)?,
        });
        let (available, state) = (view.counts.available(), view.sale_state(clock.now()));
        let short = u64::from(item.quantity.get()).saturating_sub(available);
        orderable &= short == 0 && state == SaleState::Open;
        lines.push(PreviewLine {
            product_id: item.product,
            sku: text.as_ref().map(|text| text.sku.clone()).unwrap_or_default(),
            name: text.as_ref().map(|text| text.name.clone()).unwrap_or_default(),
            quantity: item.quantity,
            unit_price,
            amount,
            available,
            short,
            sale_state: state_word(state),
        });
    }
    let total = total.ok_or_else(|| Problem::field("/items", "at least one line"))?;
    let address = match asked.address {
        Some(named) => Some(*named),
        None => address_of(&users, buyer).await?,
    };
    Ok(web::Json(Preview { lines, total, address, orderable }))
}

/// The account's address. Whoever has none may still look at what an order would cost.
async fn address_of(users: &Users, buyer: UserId) -> Result<Option<Address>, Problem> {
    match users.find(buyer).await {
        Ok((_, personal)) => Ok(personal.address),
        Err(Unable::NoUser) => Ok(None),
        Err(why) => Err(why.into()),
    }
}
