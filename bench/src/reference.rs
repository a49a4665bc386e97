//! The reference server: the HTTP ceiling every figure is compared with. The same actix-web with the same two workers, the
//! same request type and the same token check as the shop, and then a fixed answer of an order's size. No middleware, no
//! state, nothing kept: what it serves a second is what this machine's HTTP can serve at all.

use std::net::SocketAddr;

use actix_web::http::header::AUTHORIZATION;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Result;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::unix_ms;

pub const WORKERS: usize = 2;
const TOKEN_LIFE_SECONDS: u64 = 24 * 3600;
/// An order as the shop answers it.
const ORDER: &str = concat!(
    r#"{"id":"order_01kas0000000000000000000zz","status":"pending_payment","lines":[{"line":1,"#,
    r#""product_id":"prod_01kas0000000000000000000zz","sku":"SEED-000001","name":"Seed product 1","quantity":1,"#,
    r#""unit_price":{"amount":19900,"currency":"KRW"},"status":"held","delivery_status":null,"delivered_at":null,"#,
    r#""receipt":{"sequence":1000000}}],"total":{"amount":19900,"currency":"KRW"},"#,
    r#""hold_expires_at":"2026-01-01T00:10:00.000Z","payment":null,"created_at":"2026-01-01T00:00:00.000Z","#,
    r#""updated_at":"2026-01-01T00:00:00.000Z"}"#
);

/// What follows an order's id, for whoever has an id of his own.
pub const AFTER_ID: &str = ORDER.split_at(r#"{"id":"order_01kas0000000000000000000zz"#.len()).1;

/// The claims of the shop's access tokens.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: String,
    sid: String,
    iss: String,
    aud: String,
    exp: u64,
    nbf: u64,
    jti: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed for its cost, as the shop parses it")]
pub struct OrderRequest {
    pub items: Vec<Item>,
    address: Option<serde_json::Value>,
    payment: Option<serde_json::Value>,
    expected_total: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub product_id: String,
    pub quantity: u32,
}

pub struct TokenCheck {
    key: DecodingKey,
    validation: Validation,
}

impl TokenCheck {
    pub fn new(secret: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&["stockade"]);
        validation.set_audience(&["stockade"]);
        validation.validate_nbf = true;
        Self { key: DecodingKey::from_secret(secret.as_bytes()), validation }
    }

    /// Who asks, if the token is good.
    pub fn buyer(&self, request: &HttpRequest) -> Option<String> {
        let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?;
        Some(decode::<Claims>(token, &self.key, &self.validation).ok()?.claims.sub)
    }
}

/// Serves until it is told to stop.
pub async fn serve(address: SocketAddr, secret: &str) -> Result<()> {
    let check = web::Data::new(TokenCheck::new(secret));
    HttpServer::new(move || {
        App::new()
            .app_data(check.clone())
            .route("/readyz", web::get().to(HttpResponse::Ok))
            .route("/v1/orders", web::post().to(place_order))
    })
    .workers(WORKERS)
    .bind(address)?
    .run()
    .await?;
    Ok(())
}

async fn place_order(
    request: HttpRequest,
    check: web::Data<TokenCheck>,
    order: web::Json<OrderRequest>,
) -> HttpResponse {
    if check.buyer(&request).is_none() {
        return HttpResponse::Unauthorized().finish();
    }
    match order.items.len() {
        1..=50 => HttpResponse::Created().content_type("application/json").body(ORDER),
        _ => HttpResponse::UnprocessableEntity().finish(),
    }
}

/// Tokens like the shop's, of the same size, for users who exist nowhere.
pub fn tokens(users: usize, secret: &str) -> Result<Vec<String>> {
    let now = unix_ms() / 1000;
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signed = (0..users).map(|_| {
        let claims = Claims {
            sub: format!("user_{}", &Uuid::now_v7().simple().to_string()[..26]),
            role: "shopper".into(),
            sid: Uuid::now_v7().to_string(),
            iss: "stockade".into(),
            aud: "stockade".into(),
            exp: now + TOKEN_LIFE_SECONDS,
            nbf: now.saturating_sub(1),
            jti: Uuid::now_v7().to_string(),
        };
        encode(&Header::new(Algorithm::HS256), &claims, &key)
    });
    Ok(signed.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn it_admits_its_own_tokens_and_no_others() {
        let check = TokenCheck::new("secret");
        let with = |token: &str| {
            TestRequest::default().insert_header((AUTHORIZATION, format!("Bearer {token}"))).to_http_request()
        };
        let admits = |request| check.buyer(&request).is_some_and(|buyer| buyer.starts_with("user_"));
        assert!(admits(with(&tokens(1, "secret").unwrap()[0])));
        assert!(!admits(with(&tokens(1, "another").unwrap()[0])));
        assert!(!admits(TestRequest::default().to_http_request()));
    }

    #[test]
    fn its_answer_reads_as_an_order() {
        assert!(crate::answer::OrderId::of(ORDER.as_bytes()).is_some());
        assert_eq!(crate::answer::sequence(ORDER.as_bytes()), Some(1_000_000));
        assert!(serde_json::from_str::<serde_json::Value>(ORDER).is_ok());
        assert!(AFTER_ID.starts_with(r#"","status":"#));
    }
}
