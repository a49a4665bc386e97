//! The search itself: every state that can be reached, breadth first and on one thread, so that a counterexample is a
//! shortest one and two runs agree in every number.
//!
//! States are told apart by 64 bits of hash. Among ten million states two share one with a chance of three in a million.

use std::fmt;

use stateright::{Checker, Model};

use super::rule::Rule;
use super::without::{Shows, Without};

/// A model whose histories can be told and judged.
pub trait Told: Model {
    fn tell(&self, before: &Self::State, step: &Self::Action, after: &Self::State) -> String;
    fn broken(state: &Self::State) -> Option<Rule>;
    /// What should have been met in the whole space and was not.
    fn unseen(&self) -> Vec<&'static str>;
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// The first rule that was broken, and the shortest way there.
    pub broken: Option<(Rule, Vec<String>)>,
    /// Meaningless where a rule was broken: the search ended there.
    pub unseen: Vec<&'static str>,
}

/// Searches all there is, or up to the first broken rule.
pub fn search<M>(model: M) -> Searched
where
    M: Told + Send + Sync + 'static,
    M::State: Clone + PartialEq + fmt::Debug + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + fmt::Debug + Send + Sync,
{
    let checker = model.checker().threads(1).spawn_bfs().join();
    let found = checker.discoveries().into_values().next();
    let broken = found.and_then(|path| {
        let rule = M::broken(path.last_state())?;
        let states: Vec<_> = path.into_vec();
        let step = |pair: &[(M::State, Option<M::Action>)]| {
            let [(before, Some(step)), (after, _)] = pair else { return None };
            Some(checker.model().tell(before, step, after))
        };
        Some((rule, states.windows(2).filter_map(step).collect()))
    });
    Searched {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        broken,
        unseen: checker.model().unseen(),
    }
}

impl Searched {
    /// Is it what was expected of the whole protocol, or of one without a safeguard?
    pub fn as_expected(&self, without: Option<Without>) -> Result<(), String> {
        let shows = without.map_or(Shows::Nothing, Without::shows);
        match (shows, self.rule()) {
            (Shows::Breaks(expected), Some(rule)) if rule == expected => Ok(()),
            (Shows::Breaks(expected), _) => {
                Err(format!("not noticed: nothing broke the rule that {expected}"))
            }
            (_, Some(rule)) => Err(format!("broken: {rule}")),
            (Shows::NeverReaches(what), None) if self.unseen == [what] => Ok(()),
            (Shows::NeverReaches(what), None) => {
                Err(format!("{what}: expected never to be met; never met was: {}", self.unseen.join("; ")))
            }
            (Shows::Nothing, None) if self.unseen.is_empty() => Ok(()),
            (Shows::Nothing, None) => Err(format!("never met: {}", self.unseen.join("; "))),
        }
    }

    pub fn rule(&self) -> Option<Rule> {
        self.broken.as_ref().map(|(rule, _)| *rule)
    }
}
