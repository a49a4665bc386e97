//! What is particular to the door of nodes.

use serde_json::Value;

use super::doors::{Door, told};

/// The description of the door with this name.
pub fn of(door: &str) -> Option<Door> {
    (door == "node::list").then(|| {
        told(
            "administration",
            "Who is up and owns what",
            "The lead and all others, as the lead sees them: their roles, their shares of the products, and which of the \
                busiest are whose.",
        )
        .gives(200, "All of them, the lead first.", "NodePage", Value::Null)
    })
}
