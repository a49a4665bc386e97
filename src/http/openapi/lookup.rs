//! What is particular to the administrator's look-ups: lists that come as JSON or as a table for spreadsheets.

use serde_json::{Value, json};

use super::doors::{BUSY, Door, ORDER, cursor, limit, query, statuses, told};
use super::text_header;
use crate::domain::account::AccountState;
use crate::domain::product::Tag;
use crate::domain::user::Role;
use crate::http::csv::ROWS_MAX;
use crate::http::problem::Code;
use crate::http::product::KINDS;

const USER: &str = "^user_[0-7][0-9a-hjkmnp-tv-z]{25}$";
const PRODUCT: &str = "^prod_[0-7][0-9a-hjkmnp-tv-z]{25}$";
/// A product, and on a list by name what it was found by.
pub const PLACE: &str = r"^prod_[0-7][0-9a-hjkmnp-tv-z]{25}(\.[A-Za-z0-9_-]*)?$";
const SEQUENCE: &str = "^[1-9][0-9]{0,17}$";

/// The description of the door with this name.
pub fn of(door: &str) -> Option<Door> {
    Some(match door {
        "order::look_up" => look_up(
            "Orders of everybody",
            "Newest first. With `format=csv` one row a line.",
            vec![
                query("buyer", id(USER), "Only orders of this account."),
                query("product", id(PRODUCT), "Only orders of this product."),
                query("status", json!({ "type": "string", "enum": statuses() }), "Only orders in this state."),
                query("from", time(), "Placed at this time or later."),
                query("to", time(), "Placed before this time."),
                cursor(ORDER),
            ],
        )
        .gives_table(
            "OrderFoundPage",
            "order_id,buyer_id,status,created_at\r\norder_01jbeq9h0wfx3tq4r2n6d8v5ka,user_01j2c5m8k4e7rspqa1b3c5d7e9,paid,2026-10-30T09:00:00.250Z\r\n",
        ),
        "product::look_up" => look_up(
            "Products, archived ones among them",
            "Newest first, with `q` by name.",
            vec![
                by_name(),
                query("sku", json!({ "type": "string", "maxLength": 200 }), "The product with this sku."),
                by_ids(),
                by_tag(),
                only_available(),
                query("archived", json!({ "type": "boolean" }), "Only archived products, or none of them."),
                cursor(PLACE),
            ],
        )
        .gives_table(
            "ProductFoundPage",
            "id,sku,name\r\nprod_01h455vb4pex5vsknk084sn02q,JAR-MOON-01,Moon jar\r\n",
        ),
        "product::ledger" => look_up(
            "Every movement of the stock",
            "Oldest first, without gaps, with the counters after each; narrowed, only those that are asked for.",
            vec![
                query("from", json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }), "The first sequence."),
                query("kind", json!({ "type": "string", "enum": KINDS }), "Only movements of this kind."),
                query("order", id(ORDER), "Only movements of this order."),
                cursor(SEQUENCE),
            ],
        )
        .gives_table(
            "LedgerPage",
            "sequence,at,kind\r\n17,2026-10-30T09:00:00.250Z,held\r\n",
        ),
        "user::list" => Door {
            refuses: &[Code::OwnerUnavailable],
            ..look_up(
                "Accounts",
                "Newest first, without what identifies the person.",
                vec![
                    query("state", json!({ "type": "string", "enum": states() }), "Only accounts in this state."),
                    query("role", json!({ "type": "string", "enum": roles() }), "Only accounts with this role."),
                    query("email", json!({ "type": "string", "format": "email" }), "Only accounts with this address."),
                    cursor(USER),
                ],
            )
        }
        .gives_table(
            "AccountPage",
            "id,state,role\r\nuser_01j2c5m8k4e7rspqa1b3c5d7e9,verified,shopper\r\n",
        ),
        _ => return None,
    })
}

fn look_up(summary: &'static str, about: &'static str, mut parameters: Vec<Value>) -> Door {
    let forms = json!({ "type": "string", "enum": ["json", "csv"] });
    parameters.extend([
        limit(),
        query("format", forms, "The form of the answer; `Accept: text/csv` says the same."),
    ]);
    Door { parameters, refuses: BUSY, ..told("administration", summary, about) }
}

impl Door {
    /// A page, or a table.
    fn gives_table(self, page: &str, table: &str) -> Door {
        let mut door = self.gives(
            200,
            "A page; it may be short though more follows. As CSV, all pages from the cursor on in one table, `limit` or not: a cell of \
             text that looks like a formula has an apostrophe before it.",
            page,
            Value::Null,
        );
        for (_, response) in &mut door.gives {
            response["content"]["text/csv"] = json!({ "schema": { "type": "string" }, "example": table });
            response["headers"]["Content-Disposition"] =
                text_header("On a table: the name of the file it makes.");
            response["headers"]["X-Rows-Max"] = text_header(&format!(
                "On a table: it ends with the part in which row {ROWS_MAX} stands. `cursor` with its last id goes on."
            ));
        }
        door
    }
}

pub fn by_name() -> Value {
    let schema = json!({ "type": "string", "maxLength": 200 });
    query("q", schema, "The beginning of the name, whatever its case. The list goes by name then.")
}

pub fn by_ids() -> Value {
    query("ids", json!({ "type": "string" }), "These products only: at most 100 ids, separated by commas.")
}

pub fn by_tag() -> Value {
    let words: Vec<&str> = Tag::ALL.iter().map(|tag| tag.as_str()).collect();
    let schema = json!({ "type": "string", "maxLength": 200, "examples": words });
    query("tag", schema, "Only products with this tag, `new` or `best`.")
}

pub fn only_available() -> Value {
    query("available", json!({ "type": "boolean" }), "Only products of which something is left, as of now.")
}

fn id(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn states() -> Vec<&'static str> {
    AccountState::ALL.iter().map(|state| state.as_str()).collect()
}

fn roles() -> Vec<&'static str> {
    [Role::Shopper, Role::Admin].iter().map(|role| role.as_str()).collect()
}
