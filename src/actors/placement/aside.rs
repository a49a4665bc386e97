//! Nodes that own nothing and have not said yet that they follow: they are told aside.
//!
//! One that nobody gets through to has nothing that others could take over, so its session is not ended, and it may be there for days.
//! Always true: nobody waits for its answer; it is asked one thing at a time, and less and less often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::{LOOK_EVERY, Told};
use crate::actors::stock::NodeName;
use crate::actors::turns::turn;

/// It is told again after a look, after two, and so on, up to so many.
const LOOKS_BETWEEN_MAX: u32 = 16;

/// Who is told, and whether he follows.
type Answer = (Arc<NodeName>, bool);

#[derive(Default)]
struct Stranger {
    /// Its answer is on its way.
    is_asked: bool,
    /// How often it has not followed.
    tries: u32,
    /// When it is told again; by the house's steady clock.
    again_ns: u64,
}

/// All of them. Whatever is on its way ends with it.
#[derive(Default)]
pub(super) struct Aside {
    strangers: BTreeMap<u64, Stranger>,
    answers: JoinSet<Answer>,
}

impl Aside {
    /// Forgets all but these, and says which of them are to be told now.
    pub(super) fn due(&mut self, strangers: Vec<Arc<NodeName>>, now_ns: u64) -> Vec<Arc<NodeName>> {
        self.strangers.retain(|session, _| strangers.iter().any(|name| name.session == *session));
        let is_due = |name: &Arc<NodeName>| {
            let known = self.strangers.get(&name.session);
            known.is_none_or(|stranger| !stranger.is_asked && stranger.again_ns <= now_ns)
        };
        strangers.into_iter().filter(is_due).collect()
    }

    pub(super) fn tell(&mut self, name: Arc<NodeName>, telling: Told) {
        self.strangers.entry(name.session).or_default().is_asked = true;
        let telling = turn("a word to another node", telling);
        self.answers.spawn_local(async move { (name, telling.await.is_some_and(|told| told.is_ok())) });
    }

    /// The next answer; `None`: nobody is asked.
    pub(super) async fn answer(&mut self) -> Option<Result<Answer, JoinError>> {
        self.answers.join_next().await
    }

    /// One that has come.
    pub(super) fn answer_now(&mut self) -> Option<Result<Answer, JoinError>> {
        self.answers.try_join_next()
    }

    /// Notes an answer, and says who follows.
    pub(super) fn note(&mut self, answer: Result<Answer, JoinError>, now_ns: u64) -> Option<Arc<NodeName>> {
        let (name, follows) = answer.ok()?;
        if follows {
            self.strangers.remove(&name.session);
            return Some(name);
        }
        if let Some(stranger) = self.strangers.get_mut(&name.session) {
            let pause_ns = u64::try_from(pause_after(stranger.tries).as_nanos()).unwrap_or(u64::MAX);
            stranger.is_asked = false;
            stranger.tries = stranger.tries.saturating_add(1);
            stranger.again_ns = now_ns.saturating_add(pause_ns);
        }
        None
    }
}

/// After a node has not followed so often, for how long it is left alone.
fn pause_after(tries: u32) -> Duration {
    LOOK_EVERY * 2_u32.saturating_pow(tries).min(LOOKS_BETWEEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::stock::NotAsked;

    #[actix::test]
    async fn whoever_does_not_answer_is_told_one_thing_at_a_time_and_less_and_less_often() {
        let stranger = || vec![Arc::new(NodeName { session: 2, address: "127.0.0.1:1".to_owned() })];
        let (mut aside, mut now_ns, mut pauses) = (Aside::default(), 0, Vec::new());
        for _ in 0..7 {
            let due = aside.due(stranger(), now_ns).pop().expect("it is told");
            aside.tell(due, Box::pin(async { Err(NotAsked::NotSent) }));
            assert!(aside.due(stranger(), u64::MAX).is_empty(), "it is asked already");
            let answer = aside.answer().await.unwrap();
            assert!(aside.note(answer, now_ns).is_none());
            let again_ns = aside.strangers[&2].again_ns;
            assert!(aside.due(stranger(), again_ns - 1).is_empty());
            pauses.push((again_ns - now_ns) / LOOK_EVERY.as_nanos() as u64);
            now_ns = again_ns;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16]);
        let due = aside.due(stranger(), now_ns).pop().unwrap();
        aside.tell(due, Box::pin(async { Ok(()) }));
        let answer = aside.answer().await.unwrap();
        assert_eq!(aside.note(answer, now_ns).map(|name| name.session), Some(2));
        assert!(aside.strangers.is_empty() && aside.answer_now().is_none());
    }
}
