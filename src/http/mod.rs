//! The doors: the whole API on one screen.
//!
//! A door parses, asks and answers; its signature is the list of what it may touch. Only here stand status codes,
//! and of those that refuse all stand in `problem`.

mod abuse;
pub mod auth;
mod body;
mod cart;
mod client;
mod csv;
mod delivery;
mod docs;
pub mod front;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub mod health;
mod idempotency;
mod job;
mod node;
mod openapi;
mod order;
mod page;
mod payment;
mod places;
mod problem;
mod product;
mod proof;
mod query;
mod rate;
mod refusal;
mod request;
mod session;
mod shapes;
mod time;
mod user;
mod webhook_endpoint;
mod wish;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, web};

pub use abuse::Abuse;
pub use auth::AdminLogin;
pub use body::BODY_BYTES_MAX;
pub use client::{Neighbourhood, Proxies};
pub use openapi::{client_file, document};
pub use places::{Place, Places, TooMany};
pub use problem::Code;
pub use product::{Pages, STREAMS_MAX, Streams};
pub use proof::PublicUrl;
pub use rate::{AddressRate, CartRate, OrderRate};
pub use request::HEAD_BYTES_MAX;

use crate::actors::cart::Carts;
use crate::actors::catalogue::Catalogue;
use crate::actors::delivery::Deliveries;
use crate::actors::history::History;
use crate::actors::nodes::Nodes;
use crate::actors::order::Orders;
use crate::actors::payment::Payments;
use crate::actors::revocations::Revocations;
use crate::actors::scheduler::Scheduler;
use crate::actors::stock::Directory;
use crate::actors::user::Users;
use crate::actors::webhooks::Webhooks;
use crate::actors::wish::Wishes;
use crate::clock::Clock;
use crate::peer;
use crate::tokens::Tokens;
use problem::Problem;
use request::Watch;

/// Who may come in by a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anyone,
    Shopper,
    /// Whoever is signed in, in whatever role.
    Member,
    /// The same, if they have logged in a moment ago.
    Recent,
    Admin,
    /// The same, if they have logged in a moment ago: what moves stock or money by hand.
    RecentAdmin,
    /// Whoever reaches the operators' listener.
    Operator,
    /// The machinery around us: answered on every listener.
    Probe,
}

impl Who {
    /// Is it somebody whose token was read?
    fn is_somebody(self) -> bool {
        match self {
            Who::Shopper | Who::Member | Who::Recent | Who::Admin | Who::RecentAdmin => true,
            Who::Anyone | Who::Operator | Who::Probe => false,
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub path: &'static str,
    pub method: &'static str,
    pub who: Who,
    /// The function that answers.
    pub door: &'static str,
}

/// Which of the doors a listener opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// One listener for everything, as in development.
    All,
    /// The public one, where operators have their own.
    Shop,
    Ops,
}

impl Side {
    /// The shop's listener, which serves operators too where they have none of their own.
    pub fn shop(with_ops: bool) -> Side {
        if with_ops { Side::All } else { Side::Shop }
    }

    /// The doors for a request that came in at another node; none for what nodes ask each other.
    fn of_node(side: peer::Side) -> Option<Side> {
        match side {
            peer::Side::Shop => Some(Side::Shop),
            peer::Side::Ops => Some(Side::Ops),
            peer::Side::Owners => None,
        }
    }

    fn opens(self, who: Who) -> bool {
        match (self, who) {
            (Side::All, _) | (_, Who::Probe) => true,
            (Side::Shop, Who::Anyone | Who::Shopper | Who::Member | Who::Recent) => true,
            (Side::Shop, Who::Admin | Who::RecentAdmin | Who::Operator) => false,
            (Side::Ops, Who::Admin | Who::RecentAdmin | Who::Operator) => true,
            (Side::Ops, Who::Anyone | Who::Shopper | Who::Member | Who::Recent) => false,
        }
    }
}

macro_rules! table {
    ($( $path:literal $( $method:ident $who:ident $room:ident::$door:ident ),+ ; )*) => {
        /// Every door. Paths are tried in this order, so the busiest comes first.
        pub const ROUTES: &[Route] = &[$($(
            Route {
                path: $path,
                method: stringify!($method),
                who: Who::$who,
                door: concat!(stringify!($room), "::", stringify!($door)),
            },
        )+)*];

        fn open_doors(opens: impl Fn(Who) -> bool, watch: &Watch, config: &mut web::ServiceConfig) {
            $({
                let mut doors = web::resource($path);
                let mut methods: Vec<&str> = Vec::new();
                $(if opens(Who::$who) {
                    methods.push(stringify!($method));
                    doors = doors.route(web::method(Method::$method).to($room::$door));
                })+
                if !methods.is_empty() {
                    let allow = allowed(&methods);
                    let private = [$(Who::$who),+].into_iter().any(Who::is_somebody);
                    let watch = Watch { route: $path, private, passes_on: false, ..watch.clone() };
                    config.service(doors.default_service(web::to(move || wrong_method(allow.clone()))).wrap(watch));
                }
            })*
        }
    };
}

#[rustfmt::skip]
table! {
    "/v1/orders"                        POST Shopper order::place,     GET Shopper order::list;
    "/v1/orders/preview"                POST Shopper order::preview;
    "/v1/orders/{id}"                   GET Shopper order::find;
    "/v1/orders/{id}/payment"           POST Shopper payment::pay;
    "/v1/orders/{id}/cancel"            POST Shopper order::cancel;
    "/v1/orders/{id}/lines/{line}/cancel"       POST Shopper delivery::cancel;
    "/v1/orders/{id}/lines/{line}/return"       POST Shopper delivery::send_back;
    "/v1/payments/webhook"              POST Anyone payment::webhook;

    "/v1/products"                      GET Anyone product::list;
    "/v1/products/{id}"                 GET Anyone product::find;
    "/v1/products/{id}/stock"           GET Anyone product::stock;
    "/v1/products/{id}/stock/stream"    GET Anyone product::stream;

    "/v1/wishes"                        GET Shopper wish::list;
    "/v1/wishes/{id}"                   PUT Shopper wish::put,         DELETE Shopper wish::remove;
    "/v1/cart"                          GET Shopper cart::find,        DELETE Shopper cart::clear;
    "/v1/cart/items"                    POST Shopper cart::add;
    "/v1/cart/items/{id}"               PUT Shopper cart::put,         DELETE Shopper cart::take_out;
    "/v1/cart/checkout"                 POST Shopper cart::check_out;

    "/v1/users"                         POST Anyone user::sign_up;
    "/v1/users/verify"                  POST Anyone user::verify;
    "/v1/users/verify/resend"           POST Anyone user::resend;
    "/v1/users/me"                      GET Member user::me,           PATCH Member user::change,
                                        DELETE Member user::erase;
    "/v1/users/me/password"             PUT Member user::change_password;
    "/v1/users/me/email"                POST Member user::change_email;
    "/v1/users/me/export"               GET Recent user::export;
    "/v1/password-resets"               POST Anyone user::forgot,      PUT Anyone user::reset;

    "/v1/sessions"                      POST Anyone session::log_in,   GET Member session::list,
                                        DELETE Member session::end_all;
    "/v1/sessions/refresh"              POST Anyone session::refresh;
    "/v1/sessions/current"              DELETE Member session::end_current;
    "/v1/sessions/{id}"                 DELETE Member session::end;

    "/verify"                           GET Anyone page::verify;
    "/reset"                            GET Anyone page::reset;
    "/link.js"                          GET Anyone page::script;
    "/link.css"                         GET Anyone page::style;

    "/v1/admin/users"                   GET Admin user::list;
    "/v1/admin/users/{id}/suspend"      POST Admin user::suspend;
    "/v1/admin/users/{id}/reinstate"    POST Admin user::reinstate;
    "/v1/admin/orders"                  GET Admin order::look_up;
    "/v1/admin/orders/{id}/refunds"     POST RecentAdmin payment::give_back, GET Admin payment::refunds;
    "/v1/admin/compensations"           GET Admin payment::compensations;
    "/v1/admin/compensations/{id}/retry"        POST RecentAdmin payment::retry;
    "/v1/admin/compensations/{id}/accept"       POST RecentAdmin payment::accept;
    "/v1/admin/compensations/{id}/give-back"    POST RecentAdmin payment::return_money;
    "/v1/admin/compensations/{id}/settle"       POST RecentAdmin payment::settle;
    "/v1/admin/products"                GET Admin product::look_up,    POST RecentAdmin product::create;
    "/v1/admin/products/{id}"           PATCH Admin product::change,   DELETE Admin product::archive;
    "/v1/admin/products/{id}/restock"   POST RecentAdmin product::restock;
    "/v1/admin/products/{id}/pause"     POST Admin product::pause;
    "/v1/admin/products/{id}/resume"    POST Admin product::resume;
    "/v1/admin/products/{id}/ledger"    GET Admin product::ledger;

    "/v1/admin/webhook-endpoints"       GET Admin webhook_endpoint::list,
                                        POST Admin webhook_endpoint::register;
    "/v1/admin/webhook-endpoints/{id}"  PATCH Admin webhook_endpoint::change,
                                        DELETE Admin webhook_endpoint::remove;
    "/v1/admin/webhook-endpoints/{id}/rotate"
                                        POST Admin webhook_endpoint::rotate;
    "/v1/admin/webhook-endpoints/{id}/deliveries"
                                        GET Admin webhook_endpoint::deliveries;
    "/v1/admin/webhook-endpoints/deliveries/{id}/replay"
                                        POST Admin webhook_endpoint::replay;

    "/v1/admin/jobs"                    GET Admin job::list;
    "/v1/admin/jobs/{name}/run"         POST Admin job::run;
    "/v1/admin/nodes"                   GET Admin node::list;

    "/livez"                            GET Probe health::livez;
    "/readyz"                           GET Probe health::readyz;
    "/metrics"                          GET Operator health::metrics;
    "/openapi.json"                     GET Probe docs::openapi;
    "/docs"                             GET Operator docs::entrance;
    "/docs/{file:.*}"                   GET Operator docs::page;
}

/// Whom the doors may ask. Each is a handle that is cheap to clone.
#[derive(Clone)]
pub struct Doors {
    pub clock: Clock,
    pub tokens: Tokens,
    pub revocations: Revocations,
    pub directory: Directory,
    pub orders: Orders,
    pub payments: Payments,
    pub deliveries: Deliveries,
    pub catalogue: Catalogue,
    pub pages: Pages,
    pub history: History,
    pub readiness: health::Readiness,
    pub streams: Streams,
    pub order_rate: OrderRate,
    pub users: Users,
    pub abuse: Abuse,
    pub proxies: Proxies,
    pub webhooks: Webhooks,
    pub scheduler: Scheduler,
    pub nodes: Nodes,
    pub wishes: Wishes,
    pub carts: Carts,
    pub cart_rate: CartRate,
    pub address_rate: AddressRate,
    pub admin_login: AdminLogin,
    pub public_url: PublicUrl,
}

/// Opens the doors of one side in one worker.
pub fn configure(config: &mut web::ServiceConfig, doors: &Doors, side: Side) {
    let Doors {
        clock,
        tokens,
        revocations,
        directory,
        orders,
        payments,
        deliveries,
        catalogue,
        pages,
        history,
        readiness,
        streams,
        order_rate,
        users,
        abuse,
        proxies,
        webhooks,
        scheduler,
        nodes,
        wishes,
        carts,
        cart_rate,
        address_rate,
        admin_login,
        public_url,
    } = doors.clone();
    let watch = Watch {
        route: "none",
        private: false,
        passes_on: false,
        clock: clock.clone(),
        address_rate: Some(address_rate),
    };
    open_doors(|who| side.opens(who), &watch, config);
    // Whatever is asked for, `*` too, which is no path.
    config.default_service(web::to(nothing_here).wrap(watch));
    config
        .app_data(web::Data::new(side))
        .app_data(web::Data::new(clock))
        .app_data(web::Data::new(tokens))
        .app_data(web::Data::new(revocations))
        .app_data(web::Data::new(directory))
        .app_data(web::Data::new(orders))
        .app_data(web::Data::new(payments))
        .app_data(web::Data::new(deliveries))
        .app_data(web::Data::new(catalogue))
        .app_data(web::Data::new(pages))
        .app_data(web::Data::new(history))
        .app_data(web::Data::new(readiness))
        .app_data(web::Data::new(streams))
        .app_data(web::Data::new(order_rate))
        .app_data(web::Data::new(users))
        .app_data(web::Data::new(abuse))
        .app_data(web::Data::new(proxies))
        .app_data(web::Data::new(webhooks))
        .app_data(web::Data::new(scheduler))
        .app_data(web::Data::new(nodes))
        .app_data(web::Data::new(wishes))
        .app_data(web::Data::new(carts))
        .app_data(web::Data::new(cart_rate))
        .app_data(web::Data::new(admin_login))
        .app_data(web::Data::new(public_url));
}

async fn nothing_here() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found("No door has this path."))
}

/// Whoever may look may look at the head alone.
fn allowed(methods: &[&str]) -> String {
    let looks = methods.contains(&"GET").then_some("HEAD");
    methods.iter().copied().chain(looks).collect::<Vec<_>>().join(", ")
}

async fn wrong_method(allow: String) -> Result<HttpResponse, Problem> {
    let problem = Problem::new(Code::MethodNotAllowed, "This path has other methods: see Allow.");
    Err(match HeaderValue::from_str(&allow) {
        Ok(allow) => problem.header(header::ALLOW, allow),
        Err(_) => problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_once() {
        for (at, row) in ROUTES.iter().enumerate() {
            let twins =
                ROUTES[..at].iter().filter(|other| (other.path, other.method) == (row.path, row.method));
            assert_eq!(twins.count(), 0, "{row:?}");
        }
    }

    #[test]
    fn administration_is_behind_the_operators_listener_only() {
        for row in ROUTES.iter().filter(|row| row.path.starts_with("/v1/admin")) {
            assert!([Who::Admin, Who::RecentAdmin].contains(&row.who), "{row:?}");
            assert!(!Side::Shop.opens(row.who) && Side::Ops.opens(row.who));
        }
    }
}
