//! The administrators' door to the nodes: who is up and owns what.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Admin;
use super::problem::Problem;
use super::query::Page;
use crate::actors::nodes::{NodeSeen, Nodes};

/// A node of the shop.
#[derive(Serialize, ToSchema)]
pub struct NodeShown {
    /// Random, and another one after each start and each death. A shop in files has one node, without an id.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    id: Option<String>,
    /// `active`: it sells. `standing_by`: it hands every request to the active one.
    #[schema(value_type = String, example = "active")]
    state: &'static str,
    /// `owner`: it may become the active one. `gateway`: it takes requests.
    #[schema(value_type = Vec<String>, example = json!(["owner", "gateway"]))]
    roles: Vec<&'static str>,
    /// Where other nodes reach it.
    #[schema(example = "10.0.0.7:8082")]
    address: Option<String>,
    /// The number of its session: the later one has taken over from all before it.
    session: Option<u64>,
    /// How many of the 1,024 shards of products it owns.
    #[schema(maximum = 1024)]
    shards: u16,
    /// Products whose owners are in its memory.
    #[schema(minimum = 0)]
    products_loaded: Option<usize>,
    /// How long ago it was seen to be there; after three seconds it is no longer listed.
    #[schema(minimum = 0)]
    silent_ms: u64,
}

impl From<NodeSeen> for NodeShown {
    fn from(node: NodeSeen) -> NodeShown {
        NodeShown {
            id: node.id.map(|id| format!("{:032x}", u128::from_be_bytes(id))),
            state: if node.session.is_some() { "active" } else { "standing_by" },
            roles: if node.may_own { vec!["owner", "gateway"] } else { vec!["gateway"] },
            address: node.address,
            session: node.session,
            shards: node.shards,
            products_loaded: node.loaded,
            silent_ms: node.silent_ms,
        }
    }
}

/// `GET /v1/admin/nodes`: all of them on one page, the active one first.
pub async fn list(_: Admin, nodes: web::Data<Nodes>) -> Result<web::Json<Page<NodeShown>>, Problem> {
    let data = nodes.seen().into_iter().map(NodeShown::from).collect();
    Ok(web::Json(Page { data, next_cursor: None }))
}
