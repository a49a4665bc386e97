//! What goes wrong with nodes, their connections and the database.

use stockade::domain::stock::{Epoch, Sequence};

use super::node::Stage;
use super::{Cluster, Happening};
use crate::time::{MS, SECOND};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Crash,
    Pause,
    CutOff,
    Alone,
    /// The database is killed and comes back.
    Base,
    /// One connection breaks.
    Connection,
    /// The lead stands still for long enough to be replaced, if it can in the middle of a move.
    LeadStops,
    /// A node dies while its COMMIT is on the way.
    CrashInCommit,
    /// A COMMIT is done, and the answer is lost.
    CommitUnheard,
    /// All that the mirror holds is thrown away.
    Flush,
}

pub const KINDS: [Fault; 16] = [
    Fault::LeadStops,
    Fault::LeadStops,
    Fault::LeadStops,
    Fault::CrashInCommit,
    Fault::CommitUnheard,
    Fault::Crash,
    Fault::Crash,
    Fault::Pause,
    Fault::Pause,
    Fault::CutOff,
    Fault::CutOff,
    Fault::Alone,
    Fault::Base,
    Fault::Connection,
    Fault::Connection,
    Fault::Flush,
];

impl Cluster {
    pub(super) fn strike(&mut self, fault: Fault) {
        self.note("fault", fault as u64, 0);
        if matches!(fault, Fault::CrashInCommit | Fault::CommitUnheard) {
            self.next_commit = Some(fault);
            return;
        }
        let lead = self.nodes.iter().position(|node| node.stage == Stage::Open);
        let node = match lead {
            Some(lead) if fault == Fault::LeadStops || self.chance.percent(25) => lead,
            _ => self.chance.index(self.nodes.len()),
        };
        let stops = fault == Fault::LeadStops;
        if stops && self.nodes[node].moving.is_none() && self.chance.percent(98) {
            // A little later, perhaps.
            return self.plan(20 * MS, Happening::Strike(fault));
        }
        let long = self.chance.one_of([300, 1_500, 5_000, 9_000]);
        let until = self.now + self.chance.between(long / 2, long) * MS;
        let until = if stops { self.now + self.chance.between(5, 12) * SECOND } else { until };
        let is = &mut self.nodes[node];
        if !is.up && matches!(fault, Fault::Crash | Fault::Pause | Fault::LeadStops) {
            return self.plan(300 * MS, Happening::Strike(fault));
        }
        let (name, leads) = (fault, is.stage == Stage::Open);
        self.trace.say(self.now, || format!("fault: {name:?} at {node}"));
        self.tally.fault(match fault {
            Fault::Crash => "a node is killed",
            Fault::Pause => "a node stands still",
            Fault::LeadStops => "the lead stands still until it is replaced",
            Fault::CutOff => "a node is cut off from the database",
            Fault::Alone => "a node is cut off from the others",
            Fault::Base => "the database is killed",
            Fault::Connection => "a connection to the database breaks",
            Fault::Flush => "the mirror is emptied",
            Fault::CrashInCommit | Fault::CommitUnheard => return,
        });
        match fault {
            Fault::Crash => {
                if leads {
                    self.tally.reach("the lead was killed");
                }
                self.exits(node, "killed");
            }
            // What waits for it waits for the later of two.
            Fault::Pause | Fault::LeadStops => is.paused_until = until.max(is.paused_until),
            Fault::CutOff => is.cut_off_until = until,
            Fault::Alone => is.alone_until = until,
            Fault::Base => {
                self.database.crash();
                self.inserted.clear();
                self.flushes.clear();
                self.snapshots_sent.clear();
                for script in self.scripts.values_mut() {
                    script.todo.clear();
                    script.ended = true;
                }
                self.base_down_until = self.now + self.chance.between(50, 1_500) * MS;
            }
            Fault::Connection => {
                let writing = self.inserted.keys().next().copied();
                if let Some(connection) = writing.or_else(|| self.marks.keys().next().copied()) {
                    self.end_connection(connection);
                }
            }
            Fault::Flush => {
                self.mirror.flush();
                self.mirror_seen.fill((Epoch(0), Sequence(0)));
            }
            Fault::CrashInCommit | Fault::CommitUnheard => {}
        }
    }
}
