//! Stock that a node tells from the mirror while the shop is open at another one.
//!
//! Always true: what is told is what the product's owner has published, at most [`AGE_MAX`](crate::actors::mirror::AGE_MAX) ago, in the
//! words of the lead; where the mirror has nothing so young the lead is asked.

use actix_web::HttpRequest;
use actix_web::http::Method;

use crate::actors::mirror::MirrorReader;
use crate::domain::id::ProductId;
use crate::http::client::{Neighbourhood, Proxies};
use crate::http::problem::Problem;
use crate::http::product::StockShown;
use crate::http::rate::AddressRate;

/// Cheap to clone.
#[derive(Clone)]
pub struct Mirrored {
    reader: MirrorReader,
    /// Nobody else counts what is answered here.
    address_rate: AddressRate,
}

impl Mirrored {
    pub fn new(reader: MirrorReader, address_rate: AddressRate) -> Mirrored {
        Mirrored { reader, address_rate }
    }

    /// The stock of the product that is asked for. `None`: the lead is to be asked.
    pub(super) async fn stock(
        &self,
        proxies: &Proxies,
        request: &HttpRequest,
    ) -> Result<Option<StockShown>, Problem> {
        let Some(product) = product_of(request.method(), request.path()) else { return Ok(None) };
        if let Some(peer) = request.peer_addr() {
            let from = Neighbourhood::from(proxies.client(peer.ip(), request.headers()));
            self.address_rate.take(from, request.method())?;
        }
        let young = self.reader.stock_of(product).await;
        Ok(young.map(|(view, _)| StockShown::from(&*view)))
    }
}

/// Of which product the stock is asked. What is written in any other way the lead understands, or refuses.
fn product_of(method: &Method, path: &str) -> Option<ProductId> {
    let of = path.strip_prefix("/v1/products/")?.strip_suffix("/stock")?;
    of.parse().ok().filter(|_| *method == Method::GET)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use actix_web::test::TestRequest;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::stock::Millis;
    use crate::http::problem::Code;
    use crate::persistence::redis::Redis;

    #[test]
    fn the_stock_of_one_product_is_read_and_nothing_else() {
        let product = ProductId::new(Millis(1), 7);
        let path = format!("/v1/products/{product}/stock");
        assert_eq!(product_of(&Method::GET, &path), Some(product));
        assert_eq!(product_of(&Method::POST, &path), None);
        for other in [
            format!("/v1/products/{product}"),
            format!("{path}/stream"),
            format!("/v1/admin{}", &path[3..]),
            "/v1/products/order_01h455vb4pex5vsknk084sn02q/stock".to_owned(),
            "/v1/products//stock".to_owned(),
            "/v1/products/stock".to_owned(),
        ] {
            assert_eq!(product_of(&Method::GET, &other), None, "{other}");
        }
    }

    /// No lead is asked, and so none counts.
    #[actix_web::test]
    async fn one_address_looks_only_so_often() {
        let redis = Redis::open(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        let rate = AddressRate::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let mirror = Mirrored::new(MirrorReader::new(redis, Clock::start()), rate);
        let path = format!("/v1/products/{}/stock", ProductId::new(Millis(1), 7));
        let (nobody, from) = (Proxies(Arc::new([])), "203.0.113.9:7".parse().unwrap());
        let request = TestRequest::default().uri(&path).peer_addr(from).to_http_request();
        let mut said = Vec::new();
        for _ in 0..10 {
            said.push(mirror.stock(&nobody, &request).await.map_err(|problem| problem.code()));
        }
        assert!(matches!(said[0], Ok(None)), "without Redis the lead is asked");
        assert!(said.iter().any(|said| matches!(said, Err(Code::RateLimited))));
    }
}
