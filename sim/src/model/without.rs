//! The safeguards of the protocol, each of which can be taken out, and what its absence must lead to.
//!
//! Most absences break a rule. Three break none and make somebody wait for ever instead. Three do nothing at all, because
//! another safeguard does the same: they say which.

use std::str::FromStr;

use super::rule::Rule;

/// What taking a safeguard out must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// A history that breaks this rule.
    Breaks(Rule),
    /// Nothing wrong is ever done, but this can no longer be reached: somebody waits for ever.
    NeverReaches(&'static str),
    /// Nothing at all: another safeguard does the same.
    Nothing,
}

/// Which of the models has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Who may write: `ownership`, with the shards and steps of this setting.
    Ownership(&'static str),
    /// Who is dead: `observation`.
    Observation,
    /// Who leads and who owns: `lead`, in this setting.
    Lead(&'static str),
}

macro_rules! safeguards {
    ($( $(#[doc = $why:literal])* $name:ident $word:literal $place:expr, $shows:expr; )*) => {
        /// One safeguard taken out (or two, where one alone shows nothing).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Without { $( $(#[doc = $why])* $name ),* }

        impl Without {
            pub const ALL: &'static [Without] = &[$( Without::$name ),*];

            pub fn word(self) -> &'static str {
                match self { $( Without::$name => $word ),* }
            }

            pub fn place(self) -> Place {
                match self { $( Without::$name => $place ),* }
            }

            pub fn shows(self) -> Shows {
                match self { $( Without::$name => $shows ),* }
            }
        }
    };
}

use Place::{Lead, Observation, Ownership};
use Shows::{Breaks, NeverReaches, Nothing};

/// The setting that has groups and take-overs.
pub const GROUPS: &str = "groups";
/// The setting that has flushes and hand-overs as well.
pub const MOVES: &str = "moves";

/// Reached as long as takers kill the connections of the dead.
pub const TAKEN_FROM_STOPPED: &str = "a process that stopped in the middle of a transaction is replaced";
/// Reached as long as a lost connection is killed before its group is written again.
pub const WRITTEN_AFTER_LOSS: &str =
    "a group whose transaction hung on a lost connection is written after all";

/// The setting of `lead` in which shards move.
pub const SHARDS: &str = "shards";
/// Its setting with a key, and questions from node to node.
pub const KEYS: &str = "keys";
/// The same among two nodes, one of which leads after the other.
pub const LEAD_OF_TWO: &str = "keys, the next lead asked";
/// Its setting with places and flushes.
pub const PLACES: &str = "places";
/// Reached as long as each move raises the epoch.
pub const COMES_BACK: &str = "a shard is served again by a node that had let go of it";

safeguards! {
    /// A group's transaction does not look at its session row.
    NoSessionCheck "no_session_check" Ownership(GROUPS), Breaks(Rule::NoAckAfterSuccessor);
    /// It looks, but takes no lock: between the kill and the mark a process connects again, looks, and stops.
    SessionReadUnlocked "session_read_unlocked" Ownership(GROUPS), Breaks(Rule::NoAckAfterSuccessor);
    /// A taker reads the head before it kills, marks and raises.
    ReadBeforeSeal "read_before_seal" Ownership(GROUPS), Breaks(Rule::OpensAfterAcked);
    /// A process that is started again has the id of the one before it, which may only have been stopped.
    SameIdAfterRestart "same_id_after_restart" Ownership(GROUPS), Breaks(Rule::NoAckAfterSuccessor);
    /// A taker does not kill the dead session's connections. Nothing wrong is read: the mark waits for the row that an
    /// open transaction has locked. But it waits for as long as the process is stopped. *The lock makes a take-over
    /// safe, the kill makes it quick.*
    NoKill "no_kill" Ownership(GROUPS), NeverReaches(TAKEN_FROM_STOPPED);
    /// An unknown outcome counts as *not executed*; the lost connection is left alone.
    UnknownIsFailure "unknown_is_failure" Ownership(GROUPS), Breaks(Rule::NotExecutedIsTrue);
    /// The group is written again without the lost connection having been killed. The primary key lets only one of
    /// the two in, so nothing wrong is written; but the second waits for the first, and the process for itself.
    SettleWithoutKill "settle_without_kill" Ownership(GROUPS), NeverReaches(WRITTEN_AFTER_LOSS);
    /// The lost connection is killed, but the head is read without waiting for the row that its transaction holds. A
    /// KILL has returned long before a COMMIT that is being done has ended. The primary key stops the second copy, as
    /// long as whoever meets it there calls the outcome unknown and reads again.
    SettleUnlocked "settle_unlocked" Ownership(GROUPS), Nothing;
    /// The same without the primary key.
    SettleUnlockedNoKey "settle_unlocked+no_key" Ownership(GROUPS), Breaks(Rule::NoFork);
    /// An outcome is settled by the head's number alone, without looking whether one's own session still lives.
    SettleByNumber "settle_by_number" Ownership(GROUPS), Breaks(Rule::AckedIsWritten);
    /// The primary key alone. With all else in place nobody ever meets it.
    NoKey "no_key" Ownership(GROUPS), Nothing;
    /// *Sold out* is said from the published view by a process that has long been replaced.
    RefuseWithoutLease "refuse_without_lease" Ownership(GROUPS), Breaks(Rule::RefusesFromTheHead);
    /// A taker takes what it once saw to be a dead session's, without comparing epoch and owner: it robs a live one.
    RaiseWithoutCompare "raise_without_compare" Ownership(GROUPS), Breaks(Rule::OneWriter);
    /// A process takes a shard without looking whether its own session still lives. It gains nothing by it: its groups
    /// are refused, and whoever lives takes the shard from it as from any dead session.
    RaiseWhileDead "raise_while_dead" Ownership(GROUPS), Nothing;
    /// The flush does not check the epoch. (As long as it compares the checkpoint nothing is carried twice; but the
    /// checkpoint moves under the newer owner's feet.)
    FlushWithoutEpoch "flush_without_epoch" Ownership(MOVES), Breaks(Rule::NoFlushAfterSuccessor);
    /// The flush sets the checkpoint without comparing it: a lost one arrives after the next.
    FlushWithoutCompare "flush_without_compare" Ownership(MOVES), Breaks(Rule::FlushOnce);
    /// Decisions are flushed before their group is known to be written.
    FlushUnwritten "flush_unwritten" Ownership(MOVES), Breaks(Rule::FlushWithinJournal);
    /// A shard is handed over while the fate of a group is unknown. Its session lives, so nothing stops it.
    HandOverUnsettled "hand_over_unsettled" Ownership(MOVES), Breaks(Rule::NoWriteAfterSuccessor);
    /// Whose hand-over seems not to have arrived opens again under the same epoch; then it arrives.
    ReopenSameEpoch "reopen_same_epoch" Ownership(MOVES), Breaks(Rule::NoAckAfterSuccessor);
    /// Dead is whose beat is four seconds old by the clock, seen by whoever comes first after an outage.
    LeaseByWallClock "lease_by_wall_clock" Observation, Breaks(Rule::HealthyLives);
    /// A second without a look does not restart the observation.
    ObservationSpansGaps "observation_spans_gaps" Observation, Breaks(Rule::ObservedAnew);
    /// An observer who could read counts the second, though he could not write. (A ledger that answers reads while
    /// commits hang makes all beats stand still at once.)
    ObserverOnlyReads "observer_only_reads" Observation, Breaks(Rule::HealthyLives);
    /// The mark does not compare the beat: somebody who woke up in time is declared dead.
    MarkWithoutCompare "mark_without_compare" Observation, Breaks(Rule::LeaseEndsFirst);
    /// A group's transaction looks at its session row and does not lock it: the seal does not wait for it.
    GroupUnlocked "group_unlocked" Lead(SHARDS), Breaks(Rule::NoAckAfterSuccessor);
    /// The lead gives a shard away whose owner it believes to be dead, and has not sealed.
    GiveBeforeSeal "give_before_seal" Lead(SHARDS), Breaks(Rule::OneWriter);
    /// The row of a shard moves when its owner has been asked to let go, and not when it has.
    MoveBeforeLetGo "move_before_let_go" Lead(SHARDS), Breaks(Rule::OneWriter);
    /// A node says that it has let go while a group of the shard is on its way.
    LetGoUnwritten "let_go_unwritten" Lead(SHARDS), Breaks(Rule::NoWriteAfterSuccessor);
    /// A node opens a shard under an epoch of which it has let go: it has read the row before.
    OpenTwice "open_twice" Lead(SHARDS), Breaks(Rule::OneWriter);
    /// Let go is said of a shard and not of an epoch: a node that has read the row and does not serve yet has nothing
    /// to let go of, and serves afterwards.
    LetGoWithoutEpoch "let_go_without_epoch" Lead(SHARDS), Breaks(Rule::OneWriter);
    /// A move leaves the epoch as it is. Nothing wrong is done, since nobody opens an epoch twice; but for that reason a
    /// shard never comes back.
    MoveUnderSameEpoch "move_under_same_epoch" Lead(SHARDS), NeverReaches(COMES_BACK);
    /// A lead writes rows of shards without a look at its session: one that was paused wakes up in the middle of a move.
    MoveUnfenced "move_unfenced" Lead(SHARDS), Breaks(Rule::OneWriter);
    /// Whoever says that it is the lead is believed.
    LeadUnverified "lead_unverified" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// An owner verifies the word of one lead, does what another says, and then what the first had said.
    WordsSideBySide "words_side_by_side" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// An owner answers the questions of any lead.
    OldLeadAnswered "old_lead_answered" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// An owner does as the new lead says although it has yet to answer what the old one asked.
    LeadWithoutWaiting "lead_without_waiting" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// The same in a node that becomes the lead itself.
    OwnWithoutWaiting "own_without_waiting" Lead(LEAD_OF_TWO), Breaks(Rule::OneOrderAKey);
    /// A new lead reads the keys before it has the word of all owners.
    KeysBeforeWord "keys_before_word" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// It reads them before the session of the lead before it is sealed.
    KeysBeforeSeal "keys_before_seal" Lead(KEYS), Breaks(Rule::OneOrderAKey);
    /// The next place is read without locking its row. (The primary key of places would turn the second copy away.)
    PlaceUnlocked "place_unlocked" Lead(PLACES), Breaks(Rule::PlacesFollow);
    /// A place is taken before the group's transaction, as from a counter: whoever commits later may have an earlier one.
    PlaceOutsideTransaction "place_outside_transaction" Lead(PLACES), Breaks(Rule::FlushSkipsNothing);
}

impl Without {
    /// Is a rule judged? All are in the whole protocol, and the one that a missing safeguard must break otherwise, so that
    /// another broken a step earlier does not hide it.
    pub fn judges(without: Option<Without>, rule: Rule) -> bool {
        match without.map(Without::shows) {
            None | Some(NeverReaches(_) | Nothing) => true,
            Some(Breaks(expected)) => expected == rule,
        }
    }
}

impl FromStr for Without {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Without::ALL.iter().copied().find(|without| without.word() == word);
        let words = || Without::ALL.iter().map(|without| without.word()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("no such safeguard; there are: all, good, lead, {}", words()))
    }
}
