//! The migrations of all stores, in the binary. `migrations/README.md` says what they may contain.
//!
//! A file that has been released never changes: its checksum is checked at each start. The same files serve both databases; what
//! MySQL must read otherwise is replaced here, and nowhere else.

use std::sync::LazyLock;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::sql::mysql::Migrations;

type File = (i64, &'static str, &'static str);

/// The columns of bytes whose length nobody knows before. All others are keys: ids, hashes, what something is found by.
const CONTENTS: &[&str] = &[
    "body",
    "device_sealed",
    "events",
    "letter",
    "packed",
    "personal",
    "probe",
    "reason_sealed",
    "recipient",
    "sealed",
    "secret",
    "successor",
    "wrapped_key",
];
/// The longest key.
const KEY_TYPE: &str = "varbinary(64)";
const CONTENT_TYPE: &str = "longblob";
/// How each table is kept: words are compared byte by byte.
const TABLE: &str = "engine=innodb default charset=utf8mb4 collate=utf8mb4_bin";

macro_rules! files {
    ($store:literal: $( $number:literal $name:literal ),* $(,)?) => {
        &[$( ($number, $name, include_str!(concat!("../../migrations/", $store, "/", $name, ".sql"))) ),*]
    };
}

/// The table that remembers which files of a folder have run, and what says there that one has.
macro_rules! history {
    ($folder:literal) => {
        (
            concat!("migrations_of_", $folder),
            concat!("update migrations_of_", $folder, " set success = true where version = ?"),
        )
    };
}

const JOURNAL: &[File] = files!("journal":
    1 "0001_journal",
    2 "0002_journal_meta",
    3 "0003_journal_meta_row",
    4 "0004_snapshots",
    5 "0005_journal_meta_format",
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
    24 "0024_notice_slices",
    25 "0025_webhook_deliveries_again_by",
    26 "0026_orders_cancelled_by",
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
    28 "0028_outbox_class",
    29 "0029_outbox_by_class",
    30 "0030_sessions_key_thumbprint",
    31 "0031_outbox_by_subject",
    32 "0032_sessions_device_sealed",
    33 "0033_one_time_tokens_used_at",
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
    12 "0012_refunds_body",
    13 "0013_refunds_made_anew",
    14 "0014_payments_told_open",
    15 "0015_approvals",
    16 "0016_approvals_of_order",
    17 "0017_approvals_due",
    18 "0018_deliveries_reason_sealed",
);

/// Only on MySQL: what many nodes need to know of each other.
const NODES: &[File] = files!("nodes":
    1 "0001_node_sessions",
    2 "0002_node_standbys",
    3 "0003_node_sessions_address",
    4 "0004_node_standbys_address",
    5 "0005_node_standbys_may_own",
    6 "0006_node_sessions_leaving",
    7 "0007_journal_end",
    8 "0008_journal_end_row",
    9 "0009_shards",
    10 "0010_node_beats",
    11 "0011_node_beats_of_sessions",
    12 "0012_node_sessions_without_beat",
    13 "0013_node_sessions_without_leaving",
);

/// A folder's files with what MySQL reads in their place.
struct Folder {
    /// The table that remembers which of them have run. Each folder has one of its own.
    history: &'static str,
    mark: &'static str,
    files: Vec<(i64, &'static str, String)>,
}

/// In the order in which they run: two tables had the same name until the first folder renamed its own.
static ON_MYSQL: LazyLock<[Folder; 5]> = LazyLock::new(|| {
    let folder = |(history, mark): (&'static str, &'static str), files: &[File]| Folder {
        history,
        mark,
        files: files.iter().map(|(number, name, sql)| (*number, *name, for_mysql(sql))).collect(),
    };
    [
        folder(history!("tables"), TABLES),
        folder(history!("people"), PEOPLE),
        folder(history!("money"), MONEY),
        folder(history!("journal"), JOURNAL),
        folder(history!("nodes"), NODES),
    ]
});

/// What the one database of a cluster goes through, folder by folder.
pub fn on_mysql() -> Vec<Migrations> {
    let migrations = |folder: &'static Folder| {
        let files = folder.files.iter().map(|(number, name, sql)| (*number, *name, sql.as_str()));
        let mut migrator = migrator(files);
        migrator.dangerous_set_table_name(folder.history);
        // Sessions hold a lock of ours, over all folders.
        migrator.set_locking(false);
        Migrations { files: migrator, history: folder.history, mark: folder.mark }
    };
    ON_MYSQL.iter().map(migrations).collect()
}

/// What a file says to MySQL.
fn for_mysql(sql: &str) -> String {
    let mut said = String::with_capacity(sql.len() + 256);
    let mut column = "";
    for piece in sql.trim_end().split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_') {
        let word = piece.trim_end_matches(|letter: char| !letter.is_alphanumeric() && letter != '_');
        match word {
            "blob" if CONTENTS.contains(&column) => said.push_str(CONTENT_TYPE),
            "blob" => said.push_str(KEY_TYPE),
            _ => said.push_str(word),
        }
        said.push_str(&piece[word.len()..]);
        if !word.is_empty() {
            column = word;
        }
    }
    if !said.starts_with("create table") {
        return said;
    }
    // InnoDB clusters a table by its primary key anyway. A number that is not given is the next one on both.
    let kept = said.trim_end_matches("without rowid").trim_end();
    let kept = kept.replace("integer primary key", "bigint auto_increment primary key");
    format!("{kept} {TABLE}")
}

fn migrator<'f>(files: impl IntoIterator<Item = (i64, &'f str, &'static str)>) -> Migrator {
    let migration = |(number, name, sql): (i64, &str, &'static str)| {
        Migration::new(number, name.to_owned().into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.into_iter().map(migration).collect())
}

/// How many files each folder of a shop's tables and of its journal has.
pub fn levels() -> [(&'static str, i64); 4] {
    [("tables", TABLES), ("people", PEOPLE), ("money", MONEY), ("journal", JOURNAL)]
        .map(|(folder, files)| (folder, files.len() as i64))
}

/// What `journal.db` goes through.
pub fn journal() -> Migrator {
    migrator(JOURNAL.iter().copied())
}

/// What `shop.db` goes through.
pub fn tables() -> Migrator {
    migrator(TABLES.iter().copied())
}

/// What `people.db` goes through.
pub fn people() -> Migrator {
    migrator(PEOPLE.iter().copied())
}

/// What `money.db` goes through.
pub fn money() -> Migrator {
    migrator(MONEY.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_in_order_and_holds_one_statement() {
        let stores = [
            ("journal", JOURNAL),
            ("tables", TABLES),
            ("people", PEOPLE),
            ("money", MONEY),
            ("nodes", NODES),
        ];
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

    #[test]
    fn mysql_reads_keys_contents_and_numbers_of_its_own() {
        let sql = "create table letters (\n    id integer primary key,\n    user_id blob not null,\n    sealed blob,\n    \
            constraint letters_of unique (user_id)\n) without rowid\n";
        let said = "create table letters (\n    id bigint auto_increment primary key,\n    user_id varbinary(64) not null,\n    \
            sealed longblob,\n    constraint letters_of unique (user_id)\n) engine=innodb default charset=utf8mb4 \
            collate=utf8mb4_bin";
        assert_eq!(for_mysql(sql), said);
        assert_eq!(
            for_mysql("alter table letters add column stamp blob\n"),
            "alter table letters add column stamp varbinary(64)"
        );
        let index = "create index letters_by_blob_size on letters (user_id)";
        assert_eq!(for_mysql(index), index);
    }

    #[test]
    fn every_column_of_bytes_is_a_key_or_a_content_on_mysql() {
        for folder in &*ON_MYSQL {
            for (_, name, sql) in &folder.files {
                assert!(
                    !sql.contains(" blob") && !sql.contains("rowid") && !sql.contains("integer"),
                    "{name}"
                );
                assert_eq!(sql.contains("create table"), sql.contains("engine=innodb"), "{name}");
            }
        }
    }
}
