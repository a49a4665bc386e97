//! What must never happen, one rule a line, and what must be able to happen.
//!
//! A rule is judged at the step that would break it, by what is really so in the ledger, never by what a process
//! believes. The first rule that a history breaks ends that history.

use std::fmt;

macro_rules! rules {
    ($( $(#[doc = $why:literal])* $name:ident $says:literal ),* $(,)?) => {
        /// A rule of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $( $(#[doc = $why])* $name ),* }

        impl Rule {
            pub const ALL: &'static [Rule] = &[$( Rule::$name ),*];

            /// The rule as a sentence.
            pub fn says(self) -> &'static str {
                match self { $( Rule::$name => $says ),* }
            }
        }
    };
}

rules! {
    /// At an acknowledgement: the entry stands in the journal, and it is this entry that stands there.
    AckedIsWritten "what is acknowledged stands in the journal",
    /// At a commit: the entry's number is the one after the head. The primary key alone would make it an error.
    NoFork "no two entries have one place, and each builds on the head",
    /// At an opening: the head that was read is not behind anything acknowledged.
    OpensAfterAcked "whoever opens has read all that was acknowledged",
    /// At an acknowledgement by an older owner: the newer one had read this entry. (A late word about an entry that
    /// the newer owner has is true, so it is allowed.)
    NoAckAfterSuccessor "an older owner acknowledges nothing that the newer one has not read",
    /// At a commit by an older owner, acknowledged or not.
    NoWriteAfterSuccessor "an older owner writes nothing once a newer one has opened",
    /// After each step: of those who think that a shard is theirs, one at most has a live session.
    OneWriter "no two owners of one shard could both write",
    /// At a commit: nobody was told that this does not happen.
    NotExecutedIsTrue "what was called not executed is never written",
    /// After each step: whoever may refuse without a group (sold out) knows everything that was acknowledged.
    RefusesFromTheHead "a refusal without a group is not older than an acknowledgement",
    /// At a flush: nothing is carried into the tables that is not in the journal.
    FlushWithinJournal "the checkpoint never passes the journal",
    /// At a flush: it begins where the last one ended.
    FlushOnce "the checkpoint never goes back, and nothing is carried twice",
    /// At a flush by an older owner.
    NoFlushAfterSuccessor "an older owner flushes nothing once a newer one has opened",
    /// At a commit: nowhere else in the journal stands an order with this key.
    OneOrderAKey "a key leads to one order, whoever the lead is",
    /// At a commit: the place is the one after the last that was committed.
    PlacesFollow "places follow each other without a gap, in the order of commits",
    /// At a commit: the flush has not come so far yet.
    FlushSkipsNothing "nothing is written at a place that the flush has passed",
    /// At a declaration of death: the process has no right left to refuse without a group.
    LeaseEndsFirst "nobody is declared dead who may still trust his lease",
    /// At a declaration of death: the ledger has been there, for reading and writing, as long as an observation takes.
    ObservedAnew "after an outage nobody is declared dead without having been observed anew",
    /// At a declaration of death: the process let all but one of an observation's seconds pass without a beat.
    HealthyLives "nobody is declared dead who beats each second whenever the ledger lets him",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.says())
    }
}
