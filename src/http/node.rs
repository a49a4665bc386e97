//! The administrators' door to the nodes: who is up and owns what.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Admin;
use super::problem::Problem;
use super::query::Page;
use crate::actors::nodes::{NodeRole, NodeSeen, Nodes};
use crate::domain::id::ProductId;

/// A node of the shop.
#[derive(Serialize, ToSchema)]
pub struct NodeShown {
    /// Random, and another one after each start and each death. A shop in files has one node, without an id.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    id: Option<String>,
    /// `active`: requests are answered here, for it leads. `standing_by`: it hands every request to the lead, and may sell products of
    /// its own all the same: see `role` and `shards`.
    #[schema(value_type = String, example = "active")]
    state: &'static str,
    /// What it does now. `lead`: it answers requests, and says who owns what. `owner`: it may own products, and become the lead when
    /// that one has gone. `gateway`: it takes requests, and owns nothing.
    #[schema(value_type = String, example = "lead")]
    role: &'static str,
    /// What it may do. `owner`: own products, and become the lead. `gateway`: take requests.
    #[schema(value_type = Vec<String>, example = json!(["owner", "gateway"]))]
    roles: Vec<&'static str>,
    /// Where other nodes reach it.
    #[schema(example = "10.0.0.7:8082")]
    address: Option<String>,
    /// The number of its session, while it has one: then it may write what is sold.
    session: Option<u64>,
    /// How many of the 1,024 shards of products it owns.
    #[schema(maximum = 1024)]
    shards: u16,
    /// Products whose owners are in its memory, where that is known.
    #[schema(minimum = 0)]
    products_loaded: Option<usize>,
    /// Those of the shop's busiest products that it owns, in order of their ids; a product stays for a minute after the rush.
    #[schema(value_type = Vec<String>, max_items = 20, example = json!(["prod_01h455vb4pex5vsknk084sn02q"]))]
    hot: Vec<ProductId>,
    /// How long ago it was seen to be there. After three seconds it is no longer listed, unless it has a session, which ends after four.
    #[schema(minimum = 0)]
    silent_ms: u64,
}

impl From<NodeSeen> for NodeShown {
    fn from(node: NodeSeen) -> NodeShown {
        let (state, role) = match node.role {
            NodeRole::Lead => ("active", "lead"),
            NodeRole::Owner => ("standing_by", "owner"),
            NodeRole::Gateway => ("standing_by", "gateway"),
        };
        NodeShown {
            id: node.id.map(|id| format!("{:032x}", u128::from_be_bytes(id))),
            state,
            role,
            roles: if node.may_own { vec!["owner", "gateway"] } else { vec!["gateway"] },
            address: node.address,
            session: node.session,
            shards: node.shards,
            products_loaded: node.loaded,
            hot: node.hot,
            silent_ms: node.silent_ms,
        }
    }
}

/// `GET /v1/admin/nodes`: all of them on one page, the lead first.
pub async fn list(_: Admin, nodes: web::Data<Nodes>) -> Result<web::Json<Page<NodeShown>>, Problem> {
    let data = nodes.seen().into_iter().map(NodeShown::from).collect();
    Ok(web::Json(Page { data, next_cursor: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;
    use serde_json::{Value, json};

    fn shown(node: NodeSeen) -> Value {
        serde_json::to_value(NodeShown::from(node)).unwrap()
    }

    #[test]
    fn a_node_says_what_it_does_and_what_it_may_do() {
        let product = ProductId::new(Millis(1), 7);
        let owner = NodeSeen {
            id: Some([0x0f; 16]),
            role: NodeRole::Owner,
            address: Some("10.0.0.8:8082".into()),
            session: Some(5),
            may_own: true,
            shards: 341,
            loaded: Some(3),
            hot: vec![product],
            silent_ms: 40,
        };
        let told = shown(owner.clone());
        assert_eq!(
            told,
            json!({
                "id": "0f".repeat(16), "state": "standing_by", "role": "owner", "roles": ["owner", "gateway"],
                "address": "10.0.0.8:8082", "session": 5, "shards": 341, "products_loaded": 3,
                "hot": [product.to_string()], "silent_ms": 40,
            })
        );
        // It owns and has a session, and is asked by way of the lead all the same.
        let lead = shown(NodeSeen { role: NodeRole::Lead, ..owner.clone() });
        assert_eq!((&lead["state"], &lead["role"]), (&json!("active"), &json!("lead")));
        let gateway = NodeSeen {
            role: NodeRole::Gateway,
            session: None,
            may_own: false,
            shards: 0,
            loaded: None,
            hot: Vec::new(),
            ..owner
        };
        let told = shown(gateway);
        assert_eq!((&told["state"], &told["roles"]), (&json!("standing_by"), &json!(["gateway"])));
        assert_eq!(
            (&told["role"], &told["products_loaded"], &told["hot"]),
            (&json!("gateway"), &Value::Null, &json!([]))
        );
    }
}
