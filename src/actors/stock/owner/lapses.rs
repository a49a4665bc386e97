//! When holds lapse, among the questions that wait.
//!
//! Always true: no hold lapses before a command is decided that arrived before its deadline; and one that is due before everybody who
//! waits arrived goes before them, so a crowd that fills each group keeps nobody's unit for longer than it takes to decide
//! those who came first, and the group after that.

use super::{Phase, StockOwner};
use crate::actors::stock::protocol::Input;
use crate::domain::stock::Millis;

impl StockOwner {
    /// Before anything is decided: what goes before all who wait. Where nobody does it goes at the end of the turn.
    pub(super) fn lapse_first(&mut self, now: Millis) {
        let Phase::Serving(protocol) = &self.phase else { return };
        // Usually nothing is due, and the mailbox is not looked at.
        if protocol.is_due(now)
            && let Some(oldest) = self.shared.inbox.oldest()
            && self.house.home.is_writable()
        {
            self.step(Input::Due { until: oldest.min(now) });
        }
    }

    /// At the end of a turn: what is due before whoever still waits, and the group goes, if the journal is free.
    pub(super) fn lapse_and_submit(&mut self, now: Millis) {
        if self.house.home.is_writable() {
            let lapse_until = self.shared.inbox.oldest().map_or(now, |oldest| oldest.min(now));
            self.step(Input::Turn { lapse_until });
        } else {
            self.submit_open();
        }
    }
}
