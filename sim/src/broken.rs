//! The safeguards, each of which can be taken out to see that its absence is noticed.
//!
//! They are switches of the simulated shell, door and journal, never of the product. A simulator that passes with a
//! safeguard taken out proves nothing about it.

use std::str::FromStr;

macro_rules! variants {
    ($( $(#[doc = $why:literal])* $name:ident $word:literal by $($invariant:literal)|+ ),* $(,)?) => {
        /// One safeguard taken out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Broken { $( $(#[doc = $why])* $name ),* }

        impl Broken {
            pub const ALL: &'static [Broken] = &[$( Broken::$name ),*];

            pub fn word(self) -> &'static str {
                match self { $( Broken::$name => $word ),* }
            }

            /// The invariants that hang on it. That something else goes wrong as well proves nothing.
            pub fn breaks(self, invariant: &str) -> bool {
                match self { $( Broken::$name => matches!(invariant, $($invariant)|+) ),* }
            }
        }
    };
}

variants! {
    /// The owner hears *written* when its group is handed over.
    AckBeforeWrite "ack_before_write" by "i11_no_ack_behind_a_successor",
    /// A key that was used before the last start is not recognised.
    ForgetDedupeOnRestart "forget_dedupe_on_restart" by "i8_one_key_one_order",
    /// The process reads the wall clock each time instead of counting boot time.
    ExpireByWallClock "expire_by_wall_clock" by "i12_no_early_lapse",
    /// Whether the sale is open is asked of the wall clock each time.
    OpenByWallClock "open_by_wall_clock" by "sale_in_its_window",
    /// The door answers *sold out* from the published view without looking at used keys.
    RetryingWinnerSoldOut "retrying_winner_sold_out" by "i8_one_key_one_order",
    /// An owner that panicked is read back while its group may still be on its way.
    ReloadWithoutWaiting "reload_without_waiting" by "i9_prefix_durability",
    /// A refusal leaves at once, although the group it depends on is not written.
    RefusalBeforeGroup "refusal_before_group" by "i11_no_ack_behind_a_successor",
    /// Holds lapse up to now although somebody who came before their deadline is waiting.
    LapseBeforeWaiting "lapse_before_waiting" by "lapse_waits_for_the_earlier",
    /// The door answers *sold out* although units are on their way back.
    ShortcutDespiteReturns "shortcut_despite_returns" by "i6_door_in_order",
    /// The flush writes its checkpoint outside its transaction.
    CheckpointApart "checkpoint_apart" by "i10_one_state_by_every_road",
    /// The owner of another line lapses a placing hold as *not placed* without asking the home.
    NeverAskHome "never_ask_home" by "i14_whole_orders",
    /// A key whose order's fate is unknown is given back before the ledger has been read again.
    UnknownGivesKeyBack "unknown_gives_key_back" by "i8_one_key_one_order",
    /// A key whose order was never born is used for another product without a claim.
    StaleKeyWithoutClaim "stale_key_without_claim" by "i8_one_key_one_order",
    /// The door believes the ledger alone: a key that it has forgotten is new.
    ForgottenKeyIsNew "forgotten_key_is_new" by "i8_one_key_one_order",
    /// An order that its ledger has forgotten is not looked for in the tables.
    ForgottenOrderIsGone "forgotten_order_is_gone" by "i2_acknowledged_once",
    /// While an owner is read back the door goes on answering from what the last one had published.
    StaleViewWhileLoading "stale_view_while_loading" by "i6_door_in_order",
    /// An owner decides what it has taken out of its mailbox although the group is full.
    DrainWithoutRoom "drain_without_room" by "i13_caps",
    /// A mailbox takes whatever comes.
    MailboxWithoutEnd "mailbox_without_end" by "i13_caps",
    /// Nobody is told *unknown*: a group whose fate is unknown is called *not executed*.
    UnknownIsFailure "unknown_is_failure" by "i15_promised_answers",
    /// A payment is charged before its lines are pinned.
    ChargeBeforePin "charge_before_pin" by "i5_pinned_before_charged",
    /// A call to the bank that timed out counts as declined.
    TimeOutIsDecline "time_out_is_decline" by "i5_pinned_before_charged",
    /// A refund gets a new name at each try.
    RefundWithoutIdempotency "refund_without_idempotency" by "i5_money",
    /// What the bank has taken is not compared with the price.
    WrongAmountIsPaid "wrong_amount_is_paid" by "i5_money",
    /// A node's groups do not look whether its session has ended.
    GroupWithoutSession "group_without_session" by "i9_prefix_durability",
    /// A shard goes to its next owner before the one before has let go.
    MoveBeforeLetGo "move_before_let_go" by "i9_prefix_durability",
    /// An owner lets go with decisions that are not written.
    LetGoUnwritten "let_go_unwritten" by "i9_prefix_durability" | "i11_no_ack_behind_a_successor" | "i2_acknowledged_once" | "i15_promised_answers",
    /// An owner answers the questions of any lead.
    AnyLeadAnswered "any_lead_answered" by "i8_one_key_one_order",
    /// A new lead reads the keys before it has the word of all owners.
    KeysBeforeWord "keys_before_word" by "i8_one_key_one_order",
    /// A question to an owner that had no answer counts as not executed.
    LostAskIsNotExecuted "lost_ask_is_not_executed" by "i15_promised_answers",
    /// A heart beats in the row of its session, which groups hold while they wait for places: whoever has stopped with some stops all
    /// beats, and all looks.
    BeatInTheSession "beat_in_the_session" by "i14_quiescence",
    /// A node refuses for as long as it has not heard that it was replaced.
    RefuseWithoutLease "refuse_without_lease" by "i6_no_inversion",
    /// An owner takes a question that comes after the one that was asked in its place.
    LateQuestionTaken "late_question_taken" by "i15_promised_answers",
    /// A node stores a snapshot of what it has decided, written or not.
    SnapshotUnwritten "snapshot_unwritten" by "i9_prefix_durability" | "i10_one_state_by_every_road" | "i11_no_ack_behind_a_successor",
    /// A new lead knows the keys that ledgers remember, and not those that only the tables have.
    KeysOfLedgers "keys_of_ledgers" by "i8_one_key_one_order",
    /// A pin that nobody has answered counts as done.
    LostPinIsPinned "lost_pin_is_pinned" by "i5_pinned_before_charged",
}

impl Broken {
    /// Is it a safeguard of several nodes?
    pub fn is_of_many(self) -> bool {
        self >= Broken::GroupWithoutSession
    }

    /// The seed at which the hunt begins: what few histories show is looked for where they are known to be, or it would take a minute.
    pub fn shows_from(self) -> u64 {
        match self {
            Broken::StaleKeyWithoutClaim => 1_451,
            Broken::BeatInTheSession => 751,
            _ => 1,
        }
    }
}

impl FromStr for Broken {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Broken::ALL.iter().copied().find(|broken| broken.word() == word);
        let words = || Broken::ALL.iter().map(|broken| broken.word()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("no such broken variant; there are: all, {}", words()))
    }
}
