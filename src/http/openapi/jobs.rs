//! What is particular to the doors of scheduled jobs.

use serde_json::{Value, json};

use super::doors::{Door, idempotency_key, query, told};
use super::examples;
use crate::http::problem::Code;

/// The description of the door with this name.
#[rustfmt::skip]
pub fn of(door: &str) -> Option<Door> {
    let door = match door {
        "job::list" => Door {
            refuses: &[Code::OwnerUnavailable],
            ..told("administration", "Scheduled jobs", "All of them, with their times and what came of their last runs.")
        }
        .gives(200, "All of them.", "JobPage", Value::Null),
        "job::run" => Door {
            parameters: vec![
                name(),
                query("dry_run", json!({ "type": "boolean", "default": false }), "Only say what would be moved."),
                idempotency_key(false),
            ],
            conflict_passes: true,
            refuses: &[Code::NotFound, Code::OrderStateConflict, Code::OwnerUnavailable, Code::OutcomeUnknown],
            ..told("administration", "Run a job now", "The oldest occurrence that is due and not done; where none is, the last one once \
                more, so that nothing is moved further than its days allow, and what had failed is tried again. 409 while it runs. \
                Answers when the run has ended, or after ten seconds with 202.")
        }
        .gives(200, "The run, which has ended.", "RunShown", by_hand())
        .gives(202, "The job, which still runs.", "JobShown", running()),
        _ => return None,
    };
    Some(door)
}

fn name() -> Value {
    json!({
        "name": "name", "in": "path", "required": true, "description": "A job's name, as the list has it.",
        "schema": { "type": "string", "pattern": "^[a-z][a-z_]{0,63}$" }, "example": "deliveries",
    })
}

fn by_hand() -> Value {
    let mut run = examples::of("RunShown");
    run["by_hand"] = json!(true);
    run
}

fn running() -> Value {
    let mut job = examples::of("JobShown");
    (job["running"], job["running_since"]) = (json!(true), json!("2026-10-31T00:00:00.012Z"));
    job
}
