//! From node to node: questions of a lead and their answers, words, and *let go*. A message may be late, or be lost; what comes
//! for a process that has ended is for nobody.

use stockade::actors::stock::{Answer, Ask, NotDone, Reply};
use stockade::domain::stock::Command;

use super::base::After;
use super::node::{Asked, Leaving, Post, Question, Route, Stage, Waiter, WordInHand};
use super::{Cluster, Happening};
use crate::broken::Broken;
use crate::database::Statement;
use crate::scenario::FAULTS_END;
use crate::story::By;
use crate::time::{MS, Micros, SECOND};

/// How long an answer of an owner is waited for.
const ANSWER_WITHIN: Micros = 2_500 * MS;
/// The longest that a question waits for an owner that is to be had.
const WAITS_MS: i64 = 6_000;
/// The most questions in one.
const ASKS_MAX: usize = 16;

#[derive(Debug, Clone)]
pub enum Message {
    /// Questions about one product, in order.
    Ask {
        question: u64,
        session: i64,
        product: usize,
        asks: Vec<(Ask, By)>,
    },
    /// Their answers; none: it was not decided here.
    Answers {
        question: u64,
        product: usize,
        replies: Vec<Option<Reply>>,
    },
    Word {
        session: i64,
    },
    WordDone {
        session: i64,
        serves: Vec<(usize, i64)>,
    },
    LetGo {
        product: usize,
        epoch: i64,
    },
    LetGone {
        product: usize,
        epoch: i64,
    },
}

impl Cluster {
    /// Sends a message to a process of a node.
    pub(super) fn send(&mut self, from: usize, to: usize, process: u64, message: Message) {
        let is_cut = |node: usize| self.now < self.nodes[node].alone_until;
        if is_cut(from) || is_cut(to) || self.now < FAULTS_END && self.chance.percent(self.loss_percent) {
            self.tally.reach("a message between nodes was lost");
            return;
        }
        let slow = if self.now < FAULTS_END && self.chance.percent(3) {
            self.chance.between(0, 3_000) * MS
        } else {
            0
        };
        let way = self.chance.between(60, 900) + slow;
        let sender = self.nodes[from].process;
        self.plan(way, Happening::Message { to, process, from, sender, message });
    }

    pub(super) fn heard(&mut self, node: usize, from: usize, sender: u64, message: Message) {
        if self.now < self.nodes[node].alone_until {
            return;
        }
        match message {
            Message::Ask { question, session, product, asks } => {
                self.asked(node, (from, sender), question, session, product, asks);
            }
            Message::Answers { question, product, replies } => {
                self.answered(node, question, product, replies)
            }
            Message::Word { session } => {
                // One word at a time.
                if self.nodes[node].word.is_none() {
                    self.nodes[node].word = Some(WordInHand { lead: from, process: sender, session });
                    self.ask_base(node, After::Word, &[Statement::Sessions, Statement::Shards]);
                }
            }
            Message::WordDone { session, serves } => self.word_is_done(node, session, &serves),
            Message::LetGo { product, epoch } => {
                self.lets_go(node, product, Leaving { lead: from, process: sender, epoch });
            }
            Message::LetGone { product, epoch } => self.let_gone(node, product, epoch),
        }
    }

    // --- the lead asks ------------------------------------------------------------------------------------------------

    /// Somebody takes what waits in a mailbox: the owner here, or the one on another node.
    pub(super) fn keep(&mut self, node: usize, product: usize) {
        match self.nodes[node].routes[product] {
            Route::Here => self.wake(node, product),
            Route::Moving => {}
            Route::Away(session) => self.forward(node, product, session),
        }
    }

    fn forward(&mut self, node: usize, product: usize, session: i64) {
        let is = &mut self.nodes[node];
        if is.asked[product].is_some() || is.mail[product].is_empty() || is.stage != Stage::Open {
            return;
        }
        let count = is.mail[product].len().min(ASKS_MAX);
        let posts: Vec<Post> = is.mail[product].drain(..count).collect();
        self.questions += 1;
        let (question, own, lead_process) = (self.questions, is.session, is.process);
        let asks = posts.iter().map(|post| (post.ask.clone(), post.by)).collect();
        is.asked[product] = Some(Asked { question, posts });
        self.plan(ANSWER_WITHIN, Happening::NoAnswer { node, process: lead_process, product, question });
        if let Some(&(to, process)) = self.places.get(&session) {
            self.tally.reach("a lead asked an owner on another node");
            self.send(node, to, process, Message::Ask { question, session: own, product, asks });
        }
    }

    fn answered(&mut self, node: usize, question: u64, product: usize, replies: Vec<Option<Reply>>) {
        let is = &mut self.nodes[node];
        if is.asked[product].as_ref().is_none_or(|asked| asked.question != question) {
            return self.tally.reach("an answer came that nobody waited for any more");
        }
        let Some(asked) = is.asked[product].take() else { return };
        let mut back = Vec::new();
        for (post, reply) in asked.posts.into_iter().zip(replies) {
            match reply {
                Some(reply) => self.deliver(node, &post, reply),
                None => back.push(post),
            }
        }
        let elsewhere = !back.is_empty();
        self.put_back(node, product, back);
        if elsewhere {
            // It may have let go for a lead before this one: it is told again what it has, and says what it serves.
            self.nodes[node].confirmed[product] = 0;
            self.tally.reach("questions went back to the mailbox, not decided");
            // Not at once: whoever it was does not have it, and the next look says who does.
            let process = self.nodes[node].process;
            return self.plan(20 * MS, Happening::Keep { node, process, product });
        }
        self.keep(node, product);
        self.drained(node, product);
    }

    /// To the front, in the order in which they came.
    fn put_back(&mut self, node: usize, product: usize, posts: Vec<Post>) {
        let mail = &mut self.nodes[node].mail[product];
        posts.into_iter().rev().for_each(|post| mail.push_front(post));
    }

    /// What was asked has no answer: what changes nothing and what has a key is asked again, the rest is unknown.
    pub(super) fn no_answer(&mut self, node: usize, product: usize, question: u64) {
        if self.nodes[node].asked[product].as_ref().is_none_or(|asked| asked.question != question) {
            return;
        }
        let Some(asked) = self.nodes[node].asked[product].take() else { return };
        self.tally.reach("a question to an owner had no answer");
        let mut back = Vec::new();
        for post in asked.posts {
            let again = match &post.ask {
                Ask::Command(Command::Reserve(reserve)) => reserve.key.is_some(),
                Ask::Command(_) => false,
                Ask::Order(_) | Ask::OrderOfKey { .. } => true,
            };
            if self.is(Broken::LostAskIsNotExecuted) {
                self.deliver(node, &post, Err(NotDone::Unavailable));
            } else if again {
                back.push(Post { asked_before: true, ..post });
            } else {
                self.deliver(node, &post, Err(NotDone::Unknown));
            }
        }
        self.put_back(node, product, back);
        self.keep(node, product);
        self.drained(node, product);
    }

    /// Whoever has waited too long for an owner is told so.
    pub(super) fn tell_the_waiting(&mut self, node: usize) {
        if self.nodes[node].stage != Stage::Open {
            return;
        }
        let now = self.nodes[node].clock.now(self.now);
        for product in 0..self.products.len() {
            let is_late = |post: &Post| now > post.arrived_ms.plus(WAITS_MS);
            if self.nodes[node].routes[product] == Route::Here {
                continue;
            }
            while self.nodes[node].mail[product].front().is_some_and(is_late) {
                let Some(post) = self.nodes[node].mail[product].pop_front() else { break };
                self.tally.reach("a question waited too long for an owner");
                let unknown = post.asked_before;
                self.deliver(node, &post, Err(if unknown { NotDone::Unknown } else { NotDone::Unavailable }));
            }
        }
    }

    // --- the owner hears --------------------------------------------------------------------------------------------------

    fn asked(
        &mut self,
        node: usize,
        (lead, process): (usize, u64),
        question: u64,
        session: i64,
        product: usize,
        asks: Vec<(Ask, By)>,
    ) {
        let is = &self.nodes[node];
        let follows = is.follows == session || self.is(Broken::AnyLeadAnswered);
        if !follows {
            self.tally.reach("an owner refused a question of a lead that it does not follow");
        }
        // A question that was asked again meanwhile, and has perhaps been answered otherwise.
        let is_late = question < is.newest[product] && !self.is(Broken::LateQuestionTaken);
        if is_late {
            return self.tally.reach("a question arrived after the one that was asked in its place");
        }
        self.nodes[node].newest[product] = question.max(self.nodes[node].newest[product]);
        let slot = &self.nodes[node].slots[product];
        if !follows || slot.is_cold() || slot.leaving.is_some() {
            let replies = asks.iter().map(|_| None).collect();
            return self.send(node, lead, process, Message::Answers { question, product, replies });
        }
        let count = asks.len();
        let arrived_ms = self.nodes[node].clock.now(self.now);
        let asked = Question { lead, process, session, product, replies: vec![None; count], open: count };
        self.nodes[node].questions.insert(question, asked);
        for (at, (ask, by)) in asks.into_iter().enumerate() {
            self.tokens += 1;
            let waiter = Waiter::Lead { question, at };
            let post = Post {
                token: self.tokens,
                ask,
                arrived: self.now,
                arrived_ms,
                waiter,
                print: None,
                by,
                asked_before: false,
            };
            self.nodes[node].mail[product].push_back(post);
        }
        self.wake(node, product);
    }

    /// An answer reaches whoever waits at the door; the claim of its key is kept or given back.
    pub(super) fn deliver(&mut self, node: usize, post: &Post, reply: Reply) {
        let attempt = match post.waiter {
            Waiter::Door(attempt) => attempt,
            Waiter::Key(attempt) => return self.key_is_known(node, attempt, reply),
            Waiter::Lead { .. } => return,
        };
        // A key whose order may stand is kept, whatever is said last.
        let unknown = post.asked_before && matches!(reply, Err(NotDone::Unavailable));
        let reply = if unknown { Err(NotDone::Unknown) } else { reply };
        if let Some(print) = post.print {
            let product = self.product_asked(attempt);
            let stands =
                matches!(reply, Err(NotDone::Unknown) | Ok(Answer::Reserved(_) | Answer::Replayed(_)));
            if stands {
                self.nodes[node].keys.keep(print, product);
            }
            self.nodes[node].keys.unclaim(print);
        }
        self.door_hears(node, attempt, reply);
    }

    // --- let go -----------------------------------------------------------------------------------------------------------

    /// Whatever is served here of that epoch or an older one is let go of, and nothing of it is opened again.
    pub(super) fn lets_go(&mut self, node: usize, product: usize, leaving: Leaving) {
        let known = &mut self.nodes[node].let_go[product];
        *known = (*known).max(leaving.epoch);
        let slot = &mut self.nodes[node].slots[product];
        if !slot.is_cold() && slot.epoch > leaving.epoch {
            // It is of an epoch that is over: nothing to do.
            self.tally.reach("a node was told late to let go");
            return;
        }
        if slot.protocol().is_none_or(|protocol| protocol.is_quiet()) {
            return self.has_left(node, product, leaving);
        }
        slot.leaving = Some(leaving);
        self.wake(node, product);
        let process = self.nodes[node].process;
        self.plan(SECOND / 10, Happening::Keep { node, process, product });
    }
}
