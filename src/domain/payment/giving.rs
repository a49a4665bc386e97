//! The walk of one refund: the units go where they shall, then the money goes back.
//!
//! A pure state machine like the payment's. It has no way to fail: what cannot be done now is done later, and every step may be
//! told twice, because a return names itself and the provider knows the refund by its id.

use super::{FAILED, NO_ANSWER, OwnerSaid, Refund, RefundState, SPENT, SPENT_AGAIN, TRIED_AGAIN};
use crate::domain::amount::Quantity;
use crate::domain::id::{OrderId, ProductId, RefundId};
use crate::domain::stock::{CameBack, Command, Refusal};

/// How often an owner that is busy or away is asked again before the refund rests.
const ASKS_MAX: u32 = 3;

/// A line whose units come back, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenLine {
    pub product: ProductId,
    pub quantity: Quantity,
    pub why: CameBack,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Give {
    /// Ask the product's owner.
    Ask(ProductId, Command),
    /// Ask the provider what it knows of this refund.
    Find,
    /// Have the provider give the money back. Told twice it is given back once.
    Refund,
    Write(RefundStep),
    /// Nothing can be done now: later again.
    Rest,
    End,
}

/// What becomes of the refund's row in one compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundStep {
    pub to: RefundState,
    pub provider_ref: Option<String>,
    pub reason: Option<String>,
}

/// What the provider said about a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundSaid {
    Done {
        provider_ref: String,
    },
    /// It has taken it on, and the bank is still to do its part.
    Pending {
        provider_ref: String,
    },
    /// It will not be done like this, with the provider's word for why.
    Failed(String),
    /// It does not take the question: nothing is known by that.
    Refused(String),
    /// It has never heard of it.
    Absent,
    /// Nobody knows, or not now.
    NotNow,
    /// It may have happened, and to ask for it once more by the same name is in vain.
    Spent,
}

/// What came of what was to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GiveHeard {
    Owner(OwnerSaid),
    Provider(RefundSaid),
    Written(Box<Refund>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// As many lines, counted from the last, are where they shall be: the home comes at the end, and with it the order ends.
    Returning(usize),
    Finding,
    Refunding,
    /// It was done, and the provider has news of it.
    Doubting,
    Writing,
    Over,
}

/// One walk of one refund.
#[derive(Debug, Clone)]
pub struct Giving {
    refund: Refund,
    /// The lines whose units come back, in order of product id; none where they are left where they are.
    lines: Vec<GivenLine>,
    phase: Phase,
    asks: u32,
    /// Nobody else can have asked the provider for it.
    fresh: bool,
    /// What stood in the way last.
    reason: Option<String>,
}

impl Refund {
    /// Which return of units this is, for the products' owners.
    pub fn by(&self) -> u64 {
        by(self.id)
    }
}

/// The lower half of an id is chance; zero would mean nobody.
fn by(id: RefundId) -> u64 {
    let [.., low] = id.as_bytes().as_chunks::<8>().0 else { return 1 };
    u64::from_be_bytes(*low).max(1)
}

impl Giving {
    /// `fresh`: the row was written a moment ago by whoever begins. `lines` are those that the refund is about.
    pub fn new(refund: Refund, mut lines: Vec<GivenLine>, fresh: bool) -> Giving {
        lines.sort_by_key(|line| line.product);
        Giving { refund, lines, phase: Phase::Over, asks: 0, fresh, reason: None }
    }

    pub fn refund(&self) -> &Refund {
        &self.refund
    }

    /// The claim on the row was renewed: it says the same under another version.
    pub fn renewed(&mut self, row: Refund) {
        self.refund = row;
    }

    /// Why it rests.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub fn start(&mut self) -> Give {
        match self.refund.state {
            RefundState::Wanted if self.refund.restock.back().is_some() => self.give_units(0),
            RefundState::Wanted | RefundState::Restocked => self.give_money(),
            RefundState::Done => {
                self.phase = Phase::Doubting;
                Give::Find
            }
        }
    }

    pub fn heard(&mut self, heard: GiveHeard) -> Give {
        match (self.phase, heard) {
            (Phase::Returning(done), GiveHeard::Owner(OwnerSaid::NotNow)) => {
                self.asks += 1;
                if self.asks < ASKS_MAX { self.ask(done) } else { self.rest("owner_unavailable") }
            }
            // They have come back before, by another refund; or an order whose ledger has forgotten it never sold any.
            (
                Phase::Returning(done),
                GiveHeard::Owner(
                    OwnerSaid::Done | OwnerSaid::Refused(Refusal::MoreThanSold { .. } | Refusal::NoSuchOrder),
                ),
            ) => self.give_units(done + 1),
            // Not sold: if it is sold one day, these units must still come back, and no money goes before them.
            (Phase::Returning(_), GiveHeard::Owner(OwnerSaid::Refused(_))) => self.rest("not_sold"),
            // Only a person has it asked for anew: somebody may be about to give the money back another way.
            (
                Phase::Finding,
                GiveHeard::Provider(RefundSaid::Absent | RefundSaid::NotNow | RefundSaid::Refused(_)),
            ) if self.refund.has_failed() => self.rest_as_before(),
            (Phase::Finding, GiveHeard::Provider(RefundSaid::Absent)) => self.ask_refund(),
            (Phase::Finding, GiveHeard::Provider(RefundSaid::Failed(_))) if self.refund.is_tried_again() => {
                self.ask_refund()
            }
            (Phase::Doubting, GiveHeard::Provider(said)) => self.doubt_heard(said),
            (Phase::Finding | Phase::Refunding, GiveHeard::Provider(said)) => self.provider_heard(said),
            (Phase::Writing, GiveHeard::Written(refund)) => {
                self.refund = *refund;
                match self.refund.state {
                    RefundState::Done => self.end(),
                    // It has come back to us. What the provider will not do is tried again at its time.
                    RefundState::Restocked if self.refund.has_failed() => self.end(),
                    RefundState::Wanted | RefundState::Restocked => self.give_money(),
                }
            }
            // Something else than what was asked about: whoever takes it up again asks anew.
            (_, _) => self.rest("interrupted"),
        }
    }

    fn end(&mut self) -> Give {
        self.phase = Phase::Over;
        Give::End
    }

    fn rest(&mut self, why: &str) -> Give {
        self.phase = Phase::Over;
        self.reason = Some(why.to_owned());
        Give::Rest
    }

    fn rest_as_before(&mut self) -> Give {
        self.phase = Phase::Over;
        self.reason.clone_from(&self.refund.reason);
        Give::Rest
    }

    /// What stood in the way stays what it was, and since when it has.
    fn rest_unsaid(&mut self) -> Give {
        self.phase = Phase::Over;
        self.reason = None;
        Give::Rest
    }

    fn write(&mut self, to: RefundState, provider_ref: Option<String>) -> Give {
        self.phase = Phase::Writing;
        Give::Write(RefundStep { to, provider_ref, reason: None })
    }

    fn give_units(&mut self, done: usize) -> Give {
        self.asks = 0;
        if done < self.lines.len() { self.ask(done) } else { self.write(RefundState::Restocked, None) }
    }

    fn ask(&mut self, done: usize) -> Give {
        let (Some(line), Some(back)) = (self.lines.iter().rev().nth(done), self.refund.restock.back()) else {
            return self.rest("interrupted");
        };
        let (order, quantity, by): (OrderId, _, _) = (self.refund.order, line.quantity, self.refund.by());
        self.phase = Phase::Returning(done);
        Give::Ask(line.product, Command::Return { order, quantity, back, why: line.why, by })
    }

    fn give_money(&mut self) -> Give {
        // What cost nothing is through when its units are back; the provider never heard of it.
        if self.refund.amount.amount == 0 {
            return self.write(RefundState::Done, None);
        }
        if self.fresh {
            return self.ask_refund();
        }
        self.phase = Phase::Finding;
        Give::Find
    }

    fn ask_refund(&mut self) -> Give {
        self.fresh = false;
        self.phase = Phase::Refunding;
        Give::Refund
    }

    fn provider_heard(&mut self, said: RefundSaid) -> Give {
        match said {
            RefundSaid::Done { provider_ref } => self.write(RefundState::Done, Some(provider_ref)),
            RefundSaid::Pending { .. } => self.rest("pending"),
            RefundSaid::Failed(why) => self.rest(&format!("{FAILED}{why}")),
            RefundSaid::Refused(why) => self.rest(&why),
            RefundSaid::Spent if self.refund.is_tried_again() => self.rest(SPENT_AGAIN),
            RefundSaid::Spent => self.rest(SPENT),
            RefundSaid::Absent | RefundSaid::NotNow if self.refund.is_spent() => self.rest_unsaid(),
            RefundSaid::Absent | RefundSaid::NotNow if self.refund.is_tried_again() => self.rest(TRIED_AGAIN),
            RefundSaid::Absent | RefundSaid::NotNow => self.rest(NO_ANSWER),
        }
    }

    /// Of what was done: only a clear word that it failed opens it again.
    fn doubt_heard(&mut self, said: RefundSaid) -> Give {
        match said {
            RefundSaid::Failed(why) => {
                self.phase = Phase::Writing;
                let reason = Some(format!("{FAILED}{why}"));
                Give::Write(RefundStep { to: RefundState::Restocked, provider_ref: None, reason })
            }
            RefundSaid::Done { provider_ref } => self.write(RefundState::Done, Some(provider_ref)),
            RefundSaid::Absent => self.write(RefundState::Done, None),
            RefundSaid::Pending { .. } => self.rest("pending"),
            RefundSaid::Refused(why) => self.rest(&why),
            RefundSaid::NotNow | RefundSaid::Spent => self.rest(NO_ANSWER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::payment::Restock;
    use crate::domain::payment::refund::tests::refund as any_refund;

    fn refund(restock: Restock, state: RefundState) -> Refund {
        Refund { restock, state, ..any_refund() }
    }

    /// Two lines: `a` is the home.
    fn giving(restock: Restock, state: RefundState, fresh: bool) -> Giving {
        let line = |name: u8| GivenLine {
            product: ProductId::from_bytes([name; 16]),
            quantity: Quantity::of_line(2).unwrap(),
            why: CameBack::Cancelled,
        };
        Giving::new(refund(restock, state), vec![line(b'b'), line(b'a')], fresh)
    }

    fn told(todo: &Give) -> String {
        match todo {
            Give::Ask(product, Command::Return { .. }) => {
                format!("return {}", char::from(product.as_bytes()[0]))
            }
            Give::Ask(_, other) => panic!("no refund asks for {other:?}"),
            Give::Find => "find".to_owned(),
            Give::Refund => "refund".to_owned(),
            Give::Write(step) => format!("write {}", step.to.as_str()),
            Give::Rest => "rest".to_owned(),
            Give::End => "end".to_owned(),
        }
    }

    /// Each word is what is heard of what was to be done; `ok` is heard of a written row.
    #[track_caller]
    fn story(mut giving: Giving, heard: &[&str]) -> String {
        let mut todo = giving.start();
        let mut story = vec![told(&todo)];
        for word in heard {
            let done = || RefundSaid::Done { provider_ref: "r1".to_owned() };
            todo = giving.heard(match (*word, &todo) {
                ("ok", Give::Write(step)) => {
                    let state = giving.refund().state.moved_to(step.to).unwrap();
                    let reason = step.reason.clone().or_else(|| giving.refund().reason.clone());
                    GiveHeard::Written(Box::new(Refund { state, reason, ..giving.refund().clone() }))
                }
                ("done", Give::Ask(..)) => GiveHeard::Owner(OwnerSaid::Done),
                ("done", _) => GiveHeard::Provider(done()),
                ("before", _) => {
                    GiveHeard::Owner(OwnerSaid::Refused(Refusal::MoreThanSold { returned: 2, sold: 0 }))
                }
                ("forgotten", _) => GiveHeard::Owner(OwnerSaid::Refused(Refusal::NoSuchOrder)),
                ("pinned", _) => GiveHeard::Owner(OwnerSaid::Refused(Refusal::PaymentRunning)),
                ("later", Give::Ask(..)) => GiveHeard::Owner(OwnerSaid::NotNow),
                ("later", _) => GiveHeard::Provider(RefundSaid::NotNow),
                ("absent", _) => GiveHeard::Provider(RefundSaid::Absent),
                ("failed", _) => GiveHeard::Provider(RefundSaid::Failed("lost_card".to_owned())),
                (other, todo) => panic!("{other} of {todo:?}"),
            });
            story.push(told(&todo));
        }
        story.join(", ")
    }

    #[test]
    fn the_units_come_first_and_the_home_last_and_then_the_money() {
        assert_eq!(
            story(giving(Restock::ToStock, RefundState::Wanted, true), &["done", "done", "ok", "done", "ok"]),
            "return b, return a, write restocked, refund, write done, end"
        );
        assert_eq!(
            story(giving(Restock::Leave, RefundState::Wanted, true), &["done", "ok"]),
            "refund, write done, end"
        );
    }

    #[test]
    fn whoever_takes_it_up_again_asks_the_provider_first() {
        assert_eq!(
            story(
                giving(Restock::ToStock, RefundState::Wanted, false),
                &["done", "before", "ok", "done", "ok"]
            ),
            "return b, return a, write restocked, find, write done, end"
        );
        assert_eq!(
            story(giving(Restock::ToStock, RefundState::Restocked, false), &["absent", "done", "ok"]),
            "find, refund, write done, end"
        );
    }

    #[test]
    fn what_was_done_is_opened_again_only_when_it_has_come_back() {
        let done = || giving(Restock::ToStock, RefundState::Done, false);
        assert_eq!(story(done(), &["done", "ok"]), "find, write done, end");
        assert_eq!(story(done(), &["absent", "ok"]), "find, write done, end");
        assert_eq!(story(done(), &["later"]), "find, rest");
        assert_eq!(story(done(), &["failed", "ok"]), "find, write restocked, end");
    }

    #[test]
    fn what_failed_is_given_back_anew_when_a_person_wants_it() {
        let failed = |reason: &str| {
            let mut failed = giving(Restock::ToStock, RefundState::Restocked, false);
            failed.refund.reason = Some(reason.to_owned());
            failed
        };
        assert_eq!(story(failed("owner_unavailable"), &["failed"]), "find, rest");
        assert_eq!(story(failed(TRIED_AGAIN), &["failed", "done", "ok"]), "find, refund, write done, end");
        let mut in_vain = failed(TRIED_AGAIN);
        in_vain.start();
        in_vain.heard(GiveHeard::Provider(RefundSaid::NotNow));
        assert_eq!(in_vain.reason(), Some(TRIED_AGAIN), "it stays wanted");
        // By itself it is looked for, and no more.
        let looked_for = || failed("failed_lost_card");
        assert_eq!(story(looked_for(), &["done", "ok"]), "find, write done, end");
        for said in [RefundSaid::Absent, RefundSaid::NotNow, RefundSaid::Refused("odd".to_owned())] {
            let mut alone = looked_for();
            alone.start();
            assert_eq!(alone.heard(GiveHeard::Provider(said)), Give::Rest);
            assert_eq!(alone.reason(), Some("failed_lost_card"));
        }
    }

    #[test]
    fn what_may_have_happened_is_looked_for_each_time() {
        let walk = |reason: Option<&str>| {
            let mut walk = giving(Restock::ToStock, RefundState::Restocked, false);
            walk.refund.reason = reason.map(str::to_owned);
            walk
        };
        let ends = |reason, heard: &[RefundSaid]| {
            let mut walk = walk(reason);
            let mut todo = walk.start();
            for said in heard {
                todo = walk.heard(GiveHeard::Provider(said.clone()));
            }
            assert_eq!(todo, Give::Rest);
            walk.reason().map(str::to_owned)
        };
        let in_vain = [RefundSaid::Absent, RefundSaid::Spent];
        assert_eq!(ends(None, &in_vain).as_deref(), Some(SPENT));
        assert_eq!(ends(Some(SPENT), &in_vain).as_deref(), Some(SPENT));
        assert_eq!(ends(Some(TRIED_AGAIN), &in_vain).as_deref(), Some(SPENT_AGAIN));
        let failed_before = [RefundSaid::Failed("lost_card".to_owned()), RefundSaid::Spent];
        assert_eq!(ends(Some(SPENT_AGAIN), &failed_before).as_deref(), Some(SPENT_AGAIN));
        // Who was not answered has looked at nothing, and says nothing.
        for spent in [SPENT, SPENT_AGAIN] {
            assert_eq!(ends(Some(spent), &[RefundSaid::NotNow]), None);
            assert_eq!(ends(Some(spent), &[RefundSaid::Absent, RefundSaid::NotNow]), None);
        }
        assert_eq!(story(walk(Some(SPENT)), &["done", "ok"]), "find, write done, end");
    }

    #[test]
    fn no_money_goes_before_the_units_of_what_is_not_sold() {
        let back = || giving(Restock::ToStock, RefundState::Wanted, true);
        assert_eq!(story(back(), &["done", "pinned"]), "return b, return a, rest");
        assert_eq!(story(back(), &["done", "forgotten"]), "return b, return a, write restocked");
    }

    #[test]
    fn of_what_cost_nothing_only_the_units_come_back() {
        let mut free = giving(Restock::ToStock, RefundState::Wanted, true);
        free.refund.amount.amount = 0;
        assert_eq!(
            story(free, &["done", "done", "ok", "ok"]),
            "return b, return a, write restocked, write done, end"
        );
    }

    #[test]
    fn what_cannot_be_done_now_is_done_later() {
        let back = || giving(Restock::ToStock, RefundState::Wanted, true);
        assert_eq!(story(back(), &["later", "later", "done"]), "return b, return b, return b, return a");
        assert_eq!(story(back(), &["later", "later", "later"]), "return b, return b, return b, rest");
        assert_eq!(story(giving(Restock::Leave, RefundState::Wanted, true), &["later"]), "refund, rest");
    }
}
