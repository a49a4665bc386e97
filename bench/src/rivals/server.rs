//! A rival's HTTP server: the reference's workers, token check and request, and the answer of whoever asks the store.

use std::net::SocketAddr;

use actix_web::{App, HttpRequest, HttpResponse, HttpResponseBuilder, HttpServer, web};
use anyhow::Result;
use clap::Args;
use uuid::Uuid;

use super::{Clerk, Decision, Order, Rival, Trouble};
use crate::clock::unix_ms;
use crate::reference::{AFTER_ID, OrderRequest, TokenCheck, WORKERS};

#[derive(Args)]
pub struct Serve {
    rival: Rival,
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long, env = "STOCKADE_JWT_SECRET", hide_env_values = true)]
    secret: String,
    /// Where its store answers, with user and password
    #[arg(long, env = "STOCKADE_RIVAL_STORE", hide_env_values = true)]
    store: String,
}

impl Serve {
    /// Serves until it is told to stop.
    pub async fn perform(self) -> Result<()> {
        let check = web::Data::new(TokenCheck::new(&self.secret));
        let (rival, store) = (self.rival, self.store);
        HttpServer::new(move || {
            let store = store.clone();
            App::new()
                .app_data(check.clone())
                .data_factory(move || {
                    let store = store.clone();
                    async move { Clerk::of(rival, &store).await }
                })
                .route("/readyz", web::get().to(HttpResponse::Ok))
                .route("/v1/orders", web::post().to(place_order))
        })
        .workers(WORKERS)
        .bind(self.addr)?
        .run()
        .await?;
        Ok(())
    }
}

async fn place_order(
    request: HttpRequest,
    check: web::Data<TokenCheck>,
    clerk: web::Data<Clerk>,
    wanted: web::Json<OrderRequest>,
) -> HttpResponse {
    let Some(buyer) = check.buyer(&request) else {
        return HttpResponse::Unauthorized().finish();
    };
    let [item] = wanted.items.as_slice() else {
        return HttpResponse::UnprocessableEntity().finish();
    };
    let order = Order {
        id: Uuid::now_v7(),
        product: &item.product_id,
        buyer: &buyer,
        quantity: item.quantity,
        created_ms: unix_ms(),
    };
    match clerk.sell(&order).await {
        Ok(Decision::Sold) => HttpResponse::Created()
            .content_type("application/json")
            .body(format!(r#"{{"id":"order_{}{AFTER_ID}"#, order.id.simple())),
        Ok(Decision::SoldOut) => problem(HttpResponse::Conflict(), "sold_out", "Sold out"),
        Err(Trouble::NotDone(error)) => {
            eprintln!("{error:#}");
            problem(HttpResponse::ServiceUnavailable(), "overloaded", "Too many buyers")
        }
        Err(Trouble::Unknown(error)) => {
            eprintln!("{error:#}");
            problem(HttpResponse::ServiceUnavailable(), "outcome_unknown", "Nobody knows what became of it")
        }
    }
}

fn problem(mut answer: HttpResponseBuilder, code: &str, title: &str) -> HttpResponse {
    answer
        .content_type("application/problem+json")
        .body(format!(r#"{{"type":"/problems/{code}","title":"{title}","code":"{code}"}}"#))
}
