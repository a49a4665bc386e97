//! After the faults: everything must come to rest, and the sums must agree.
//!
//! Rest means: the process is up, every owner active and quiet, every saga ended, every placing hold decided, the
//! tables caught up, and nothing left of what can be sold (I3, I14).

use stockade::domain::stock::{HoldState, Ledger, SaleState};

use super::mailbox::State;
use super::{Happening, World};
use crate::check::Violation;
use crate::scenario::FAULTS_MIN;
use crate::story::Story;
use crate::time::SECOND;

impl World {
    pub(super) fn look(&mut self) {
        self.rested = self.restless().is_none();
        if !self.rested {
            self.plan(SECOND / 2, Happening::Look);
        }
    }

    /// The first thing that is not at rest.
    fn restless(&self) -> Option<String> {
        if !self.node.up {
            return Some("the process is down".into());
        }
        if self.sagas_under_way() > 0 {
            return Some(format!(
                "{} sagas are under way: {:?}",
                self.sagas_under_way(),
                self.sagas.iter().find(|s| !s.has_ended())
            ));
        }
        if let Some(busy) = self.desk_is_busy() {
            return Some(busy);
        }
        if self.shoppers_wait() > 0 {
            return Some(format!("{} shoppers have no answer", self.shoppers_wait()));
        }
        if !self.node.waiting.is_empty() || !self.node.runs.is_empty() || !self.node.looks.is_empty() {
            return Some(format!("{} questions wait", self.node.waiting.len()));
        }
        if self.node.keys.claims() > 0 {
            return Some(format!("{} keys are claimed, and nobody asks", self.node.keys.claims()));
        }
        (0..self.shelves.len()).find_map(|product| self.restless_product(product))
    }

    fn restless_product(&self, product: usize) -> Option<String> {
        let owner = &self.node.owners[product];
        let at = |what: &str| Some(format!("product {product}: {what}"));
        let State::Up(protocol) = &owner.state else { return at("its owner is not active") };
        if !protocol.is_quiet() || owner.undecided() > 0 {
            return at("its owner is not quiet");
        }
        if self.shelves[product].rows.values().any(|row| row.state == HoldState::Placing) {
            return at("a placing hold is undecided");
        }
        let (head, _) = self.journal.head(product);
        if self.shelves[product].checkpoint != head.0 || protocol.ledger().sequence() != head {
            return at("the tables are behind");
        }
        let sellable = self
            .left(product)
            .is_some_and(|(_, _, state)| matches!(state, SaleState::Open | SaleState::Paused));
        let counts = protocol.ledger().counts();
        if sellable && (counts.available() > 0 || !self.closers[product].satisfied) {
            return at(&format!("{} units are unsold, and buyers keep trying", counts.available()));
        }
        None
    }

    /// What only the world knows: that it came to rest, and that the tables agree with the ledger.
    pub(super) fn at_rest(&mut self, story: &Story) -> Result<(), Violation> {
        let broken = |invariant, what: String| Err(Violation { invariant, what });
        if !self.rested {
            let why = self.restless_now(story);
            return broken("i14_quiescence", format!("60 s after the last fault: {why}"));
        }
        if self.tally.faults_in_all() < FAULTS_MIN {
            return broken("the simulation itself", format!("only {} faults", self.tally.faults_in_all()));
        }
        self.money_adds_up(&story.chapters)?;
        for (product, chapter) in story.chapters.iter().enumerate() {
            let mut ledger = Ledger::default();
            for entry in &chapter.entries {
                if let Err(why) = ledger.replay(entry) {
                    return broken("i9_prefix_durability", format!("product {product}: {why}"));
                }
            }
            let live = self.node.owners[product].protocol().map(|protocol| protocol.ledger().digest());
            if live != Some(ledger.digest()) {
                return broken(
                    "i10_one_state_by_every_road",
                    format!("product {product}: the owner's state is not its history's"),
                );
            }
            self.shelves[product].agrees(product, &ledger, chapter.product)?;
        }
        Ok(())
    }

    /// `restless`, when the journal's history has been taken out already.
    fn restless_now(&mut self, story: &Story) -> String {
        self.journal.chapters.clone_from(&story.chapters);
        self.restless().unwrap_or_else(|| "it came to rest too late".into())
    }
}
