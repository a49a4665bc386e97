//! What is in a backup: every table of a shop with its columns, in the order in which they are written.
//!
//! Always true: it names what the migrations make, all of it, but what a store makes for itself: `journal_meta` and the tables of
//! nodes, whose numbers, the epoch and the journal's format, stand in the manifest.

use std::sync::LazyLock;

use crate::persistence::sql::Listed;

/// Which of the four files a table stands in; a database has them all in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Shop,
    People,
    Money,
    Journal,
}

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Number,
    Bytes,
    Words,
}

/// A table, and how it is read and filled.
pub struct Table {
    pub part: Part,
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    pub select: &'static str,
    pub insert: &'static LazyLock<Listed>,
    /// Takes out what a migration has put in.
    pub clear: &'static str,
}

impl Table {
    /// What its file is called.
    pub fn file(&self) -> String {
        format!("{}.rows", self.name)
    }
}

/// A column's place in a row that is inserted.
macro_rules! place {
    ($column:ident) => {
        ", ?"
    };
}

macro_rules! tables {
    ($( $part:ident $name:ident: $first:ident $first_kind:ident $(, $column:ident $kind:ident)*; )*) => {
        &[$( Table {
            part: Part::$part,
            name: stringify!($name),
            columns: &[(stringify!($first), Kind::$first_kind) $(, (stringify!($column), Kind::$kind))*],
            select: concat!("select ", stringify!($first) $(, ", ", stringify!($column))*, " from ", stringify!($name)),
            insert: {
                static INSERT: LazyLock<Listed> = LazyLock::new(|| Listed::new(
                    concat!(
                        "insert into ", stringify!($name), " (", stringify!($first) $(, ", ", stringify!($column))*,
                        ") values "
                    ),
                    concat!("(?" $(, place!($column))*, ")"),
                    "",
                ));
                &INSERT
            },
            clear: concat!("delete from ", stringify!($name)),
        } ),*]
    };
}

/// All of them. The checkpoint is the last: until it is there a store that is being filled does not open as a shop.
#[rustfmt::skip]
pub static TABLES: &[Table] = tables! {
    Shop products: id Bytes, sku Words, name Words, name_key Words, description Words,
        thumbnail_url Words, image_url Words, tags Words, archived Number, version Number,
        created_at_ms Number, updated_at_ms Number, made_by Bytes, made_of Number, is_new Number,
        is_best Number;
    Shop stock: product_id Bytes, sequence Number, hash Bytes, on_hand Number, held Number, sold Number,
        price_minor Number, currency Words, opens_at_ms Number, closes_at_ms Number,
        per_customer_limit Number, hold_ms Number, paused Number, archived Number, updated_at_ms Number;
    Shop orders: id Bytes, buyer_id Bytes, home_id Bytes, status Words, total_minor Number,
        currency Words, key_hash Bytes, body_hash Number, hold_expires_at_ms Number,
        created_at_ms Number, updated_at_ms Number, version Number, cancelled_by Number;
    Shop order_lines: order_id Bytes, line Number, product_id Bytes, quantity Number,
        unit_price_minor Number, currency Words, sequence Number, status Words;
    Shop buyer_runs: run Number, level Number, orders Number, goes_into Number;
    Shop buyer_orders: run Number, buyer_id Bytes, order_id Bytes;
    Shop webhook_endpoints: id Bytes, url Words, description Words, events Words, state Words,
        reason Words, failing_since_ms Number, created_at_ms Number, updated_at_ms Number;
    Shop webhook_secrets: endpoint_id Bytes, number Number, wrapped_key Bytes, secret Bytes,
        expires_at_ms Number, made_by Bytes, made_of Number, created_at_ms Number;
    Shop webhook_events: pos Number, number Number, id Bytes, kind Words, at_ms Number, data Words;
    Shop webhook_deliveries: id Bytes, endpoint_id Bytes, event_id Bytes, kind Words, body Words,
        state Words, tries Number, next_at_ms Number, last_status Number, last_error Words,
        created_at_ms Number, updated_at_ms Number, version Number, again_by Bytes;
    Shop jobs: name Words, finished_at_ms Number, holder Bytes, lease_until_at_ms Number,
        running_scheduled_at_ms Number, running_began_at_ms Number, last_scheduled_at_ms Number,
        last_began_at_ms Number, last_ended_at_ms Number, last_outcome Words, last_by_hand Number,
        last_seen Number, last_moved Number, last_failed Number, last_problems Words, version Number;
    Shop notice_slices: pos Number, number Number, at_ms Number, packed Bytes;
    People users: id Bytes, state Words, role Words, email_blind Bytes, phone_blind Bytes,
        wrapped_key Bytes, personal Bytes, password Words, signed_out_at_ms Number, version Number,
        verified_at_ms Number, created_at_ms Number, updated_at_ms Number;
    People verified_emails: email_blind Bytes, user_id Bytes;
    People verified_phones: phone_blind Bytes, user_id Bytes;
    People sessions: id Bytes, user_id Bytes, refresh_hash Bytes, former_hash Bytes, successor Bytes,
        device Words, created_at_ms Number, used_at_ms Number, key_thumbprint Bytes, device_sealed Bytes;
    People one_time_tokens: hash Bytes, purpose Words, user_id Bytes, email_blind Bytes, sealed Bytes,
        expires_at_ms Number, used_at_ms Number;
    People revocations: subject Bytes, kind Words, epoch_ms Number, until_ms Number, noted_at_ms Number;
    People outbox: id Bytes, kind Words, locale Words, subject_id Bytes, wrapped_key Bytes,
        recipient Bytes, letter Bytes, state Words, tries Number, next_at_ms Number,
        created_at_ms Number, version Number, class Words;
    People trail: sequence Number, at_ms Number, kind Words, actor_id Words, subject_id Words,
        detail Words, previous_hash Bytes, hash Bytes;
    People trail_head: id Number, sequence Number, hash Bytes;
    People wishes: user_id Bytes, product_id Bytes, added_at_ms Number;
    People carts: user_id Bytes, version Number, updated_at_ms Number;
    People cart_lines: user_id Bytes, product_id Bytes, quantity Number, added_at_ms Number;
    People cart_additions: user_id Bytes, key_hash Bytes, body_hash Number, added_at_ms Number;
    People checkouts: user_id Bytes, key_hash Bytes, product_id Bytes, quantity Number, body_hash Number,
        pays Number, keyed Number, begun_at_ms Number;
    People order_addresses: user_id Bytes, order_id Bytes, sealed Bytes;
    People unproved_addresses: order_id Bytes, user_id Bytes;
    People letters_told: id Bytes;
    People hold_reminders: order_id Bytes, due_at_ms Number;
    Money payments: id Bytes, order_id Bytes, attempt Number, buyer_id Bytes, amount_minor Number,
        currency Words, token Words, state Words, reason Words, provider_ref Words,
        captured_minor Number, captured_currency Words, refunded_minor Number, key_hash Bytes,
        body_hash Number, tries Number, version Number, created_at_ms Number, updated_at_ms Number,
        told_open Number;
    Money open_payments: payment_id Bytes, due_at_ms Number;
    Money refunds: id Bytes, payment_id Bytes, order_id Bytes, cause Words, line Number, key_hash Bytes,
        amount_minor Number, currency Words, restock Words, state Words, reason Words,
        provider_ref Words, tries Number, due_at_ms Number, version Number, created_at_ms Number,
        updated_at_ms Number, body_hash Number, made_anew Number;
    Money approvals: id Bytes, what Words, order_id Bytes, payment_id Bytes, refund_id Bytes, line Number,
        amount_minor Number, currency Words, restock Words, asked_by Bytes, asked_in Bytes,
        asked_at_ms Number, key_hash Bytes, body_hash Number, seconded_by Bytes, seconded_at_ms Number,
        second_key_hash Bytes, second_body_hash Number, due_at_ms Number;
    Money webhooks_heard: event_id Words, heard_at_ms Number;
    Money deliveries: order_id Bytes, line Number, payment_id Bytes, product_id Bytes, quantity Number,
        amount_minor Number, currency Words, state Words, scheduled_at_ms Number, paid_at_ms Number,
        shipped_at_ms Number, delivered_at_ms Number, requested_at_ms Number, reason Words,
        key_hash Bytes, body_hash Number, version Number, updated_at_ms Number, reason_sealed Bytes;
    Money notices: id Number, order_id Bytes, kind Number, line Number, at_ms Number;
    Journal journal: pos Number, product_id Bytes, first_seq Number, last_seq Number, epoch Number,
        at_ms Number, hash Bytes, events Bytes;
    Journal snapshots: product_id Bytes, sequence Number, part Number, parts Number, body Bytes;
    Shop flush_checkpoint: id Number, pos Number;
};
