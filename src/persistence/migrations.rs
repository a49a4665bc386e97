//! The migrations of all stores, in the binary. `migrations/README.md` says what they may contain.
//!
//! A file that has been released never changes: its checksum is checked at each start.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

type File = (i64, &'static str, &'static str);

macro_rules! files {
    ($store:literal: $( $number:literal $name:literal ),* $(,)?) => {
        &[$( ($number, $name, include_str!(concat!("../../migrations/", $store, "/", $name, ".sql"))) ),*]
    };
}

const JOURNAL: &[File] = files!("journal":
    1 "0001_journal",
    2 "0002_journal_meta",
    3 "0003_journal_meta_row",
    4 "0004_snapshots",
);

const TABLES: &[File] = files!("tables":
    1 "0001_products",
    2 "0002_products_by_name",
    3 "0003_stock",
    4 "0004_flush_checkpoint",
    5 "0005_flush_checkpoint_row",
    6 "0006_orders",
    7 "0007_order_lines",
    8 "0008_buyer_runs",
    9 "0009_buyer_orders",
    10 "0010_webhook_endpoints",
    11 "0011_webhook_secrets",
    12 "0012_webhook_events",
    13 "0013_webhook_deliveries",
    14 "0014_webhook_deliveries_due",
    15 "0015_webhook_deliveries_by_state",
    16 "0016_jobs",
    17 "0017_notices",
    18 "0018_products_is_new",
    19 "0019_products_is_best",
    20 "0020_products_tagged",
    21 "0021_products_new",
    22 "0022_products_best",
    23 "0023_products_by_name_and_id",
);

const PEOPLE: &[File] = files!("people":
    1 "0001_users",
    2 "0002_users_by_email",
    3 "0003_users_by_state",
    4 "0004_verified_emails",
    5 "0005_verified_phones",
    6 "0006_sessions",
    7 "0007_sessions_by_user",
    8 "0008_one_time_tokens",
    9 "0009_one_time_tokens_by_user",
    10 "0010_revocations",
    11 "0011_outbox",
    12 "0012_outbox_due",
    13 "0013_trail",
    14 "0014_trail_head",
    15 "0015_trail_head_row",
    16 "0016_trail_by_subject",
    17 "0017_wishes",
    18 "0018_carts",
    19 "0019_cart_lines",
    20 "0020_cart_additions",
    21 "0021_cart_additions_at",
    22 "0022_checkouts",
    23 "0023_order_addresses",
    24 "0024_unproved_addresses",
    25 "0025_letters_told",
    26 "0026_hold_reminders",
    27 "0027_hold_reminders_due",
);

const MONEY: &[File] = files!("money":
    1 "0001_payments",
    2 "0002_open_payments",
    3 "0003_open_payments_due",
    4 "0004_refunds",
    5 "0005_refunds_of_order",
    6 "0006_refunds_due",
    7 "0007_webhooks_heard",
    8 "0008_webhooks_heard_at",
    9 "0009_deliveries",
    10 "0010_deliveries_by_state",
    11 "0011_notices",
);

fn migrator(files: &[File]) -> Migrator {
    let migration = |&(number, name, sql): &File| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// What `journal.db` goes through.
pub fn journal() -> Migrator {
    migrator(JOURNAL)
}

/// What `shop.db` goes through.
pub fn tables() -> Migrator {
    migrator(TABLES)
}

/// What `people.db` goes through.
pub fn people() -> Migrator {
    migrator(PEOPLE)
}

/// What `money.db` goes through.
pub fn money() -> Migrator {
    migrator(MONEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_in_order_and_holds_one_statement() {
        let stores = [("journal", JOURNAL), ("tables", TABLES), ("people", PEOPLE), ("money", MONEY)];
        for (store, files) in stores {
            let folder = format!("{}/migrations/{store}", env!("CARGO_MANIFEST_DIR"));
            let mut found: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            let listed: Vec<_> = files.iter().map(|(_, name, _)| format!("{name}.sql")).collect();
            assert_eq!(found, listed);
            for (number, name, sql) in files {
                assert!(name.starts_with(&format!("{number:04}_")), "{name}");
                assert!(!sql.trim().trim_end_matches(';').contains(';'), "{name} holds two statements");
            }
        }
    }
}
