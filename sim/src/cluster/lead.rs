//! Who lives, who leads, and who owns what: looks at the sessions, words to owners, and shards that move.

use stockade::actors::stock::Protocol;
use stockade::domain::stock::{Epoch, Sequence};

use super::base::After;
use super::node::{Leaving, Moving, Node, Route, Stage};
use super::wire::Message;
use super::{Cluster, Happening};
use crate::broken::Broken;
use crate::database::{Answer, Statement};
use crate::scenario::FAULTS_END;
use crate::time::{MS, Micros, SECOND};
use crate::world::keys::Print;

/// So long must a beat be seen to stand.
const DEAD_AFTER: Micros = 4 * SECOND;
/// Whoever could not look for longer has seen nothing.
const GAP_MAX: Micros = 1_500 * MS;
const BEAT_EVERY: Micros = SECOND;
pub(super) const LOOK_EVERY: Micros = 500 * MS;

type Rows = Vec<[i64; 3]>;

fn rows(answer: Option<&Answer>) -> Rows {
    match answer {
        Some(Answer::Rows(rows)) => rows.clone(),
        _ => Vec::new(),
    }
}

impl Cluster {
    pub(super) fn beat(&mut self, node: usize) {
        let (session, process) = (self.nodes[node].session, self.nodes[node].process);
        self.plan(BEAT_EVERY, Happening::Beat { node, process });
        let sent = self.now;
        self.ask_base(node, After::Beat(sent), &[Statement::Beat(session), Statement::Lives(session)]);
    }

    pub(super) fn look_around(&mut self, node: usize) {
        let process = self.nodes[node].process;
        self.plan(LOOK_EVERY, Happening::LookAround { node, process });
        self.tell_the_waiting(node);
        let session = self.nodes[node].session;
        // Whoever looks writes first: a database that only reads makes every heart stand still.
        let (beats, lives) = (Statement::Beat(session), Statement::Lives(session));
        self.ask_base(node, After::Look, &[beats, lives, Statement::Sessions, Statement::Shards]);
    }

    pub(super) fn looked(&mut self, node: usize, answers: &[Answer]) {
        if answers.get(1) == Some(&Answer::Done(0)) {
            return self.exits(node, "its session has ended");
        }
        let (sessions, shards) = (rows(answers.get(2)), rows(answers.get(3)));
        let own = self.nodes[node].session;
        let living: Vec<i64> = sessions.iter().filter(|row| row[1] != 0).map(|row| row[0]).collect();
        let stopped = self.observe(node, &sessions);
        let lead = sessions.iter().find(|row| row[1] == 1).map(|row| row[0]);
        match self.nodes[node].stage {
            Stage::Joining => {}
            Stage::Owner => match lead {
                None => self.ask_base(node, After::Lead, &[Statement::Lead(own)]),
                // It has not heard so.
                Some(lead) if lead == own => self.is_lead(node),
                Some(lead) => {
                    if let Some((_, beat)) = stopped.iter().find(|(session, _)| *session == lead) {
                        self.seal(node, lead, *beat);
                    }
                }
            },
            Stage::Announcing | Stage::Open => {
                for (session, beat) in stopped {
                    self.seal(node, session, beat);
                }
                let others: Vec<i64> = living.iter().copied().filter(|session| *session != own).collect();
                if self.nodes[node].stage == Stage::Announcing {
                    return self.announce(node, &others);
                }
                self.place(node, &living, &shards);
            }
        }
    }

    /// Beats that have stood still for as long as it takes, while this node could look and write.
    fn observe(&mut self, node: usize, sessions: &Rows) -> Vec<(i64, i64)> {
        let now = self.now;
        let is = &mut self.nodes[node];
        if now - std::mem::replace(&mut is.looked, now) > GAP_MAX {
            is.seen.clear();
        }
        let mut stopped = Vec::new();
        for [number, active, beat] in sessions.iter().copied() {
            if active == 0 || number == is.session {
                is.seen.remove(&number);
                continue;
            }
            let (known, since) = is.seen.entry(number).or_insert((beat, now));
            if *known != beat {
                (*known, *since) = (beat, now);
            } else if now - *since >= DEAD_AFTER {
                stopped.push((number, beat));
            }
        }
        stopped
    }

    fn seal(&mut self, node: usize, session: i64, beat: i64) {
        let kills = self.connections_of(session);
        self.say(|| format!("{node} seals session {session}"));
        self.tally.reach("a session was sealed");
        self.ask_base_after(node, After::Seal, kills, &[Statement::Seal { session, beat }]);
    }

    // --- a new lead -------------------------------------------------------------------------------------------------------

    pub(super) fn is_lead(&mut self, node: usize) {
        let session = self.nodes[node].session;
        let is = &mut self.nodes[node];
        if is.stage != Stage::Owner {
            return;
        }
        (is.stage, is.follows) = (Stage::Announcing, session);
        // What it was doing as another's owner has ended.
        is.word = None;
        self.tally.reach("a node became the lead");
        self.say(|| format!("{node} is the lead"));
        if self.is(Broken::KeysBeforeWord) {
            self.ask_base(node, After::Keys, &[Statement::Entries]);
        }
    }

    fn announce(&mut self, node: usize, others: &[i64]) {
        let (is, own) = (&self.nodes[node], self.nodes[node].session);
        let missing: Vec<i64> = others.iter().copied().filter(|other| !is.heard.contains(other)).collect();
        if missing.is_empty() && !is.answers_another(own) {
            if !std::mem::replace(&mut self.nodes[node].reads_keys, true) {
                self.ask_base(node, After::Keys, &[Statement::Entries]);
            }
            return;
        }
        self.nodes[node].reads_keys = false;
        missing.into_iter().for_each(|session| self.send_word(node, session));
    }

    fn send_word(&mut self, node: usize, session: i64) {
        if let Some(&(to, process)) = self.places.get(&session) {
            let own = self.nodes[node].session;
            self.send(node, to, process, Message::Word { session: own });
        }
    }

    /// What an owner would remember: not the keys of what it has forgotten.
    fn keys_of_ledger(&self, product: usize) -> Vec<Print> {
        let (id, entries) = (self.products[product].id, &self.chapters[product].entries);
        let Ok(protocol) = Protocol::<u64>::recover(id, Epoch(0), None, entries) else { return Vec::new() };
        let mut keys: Vec<Print> = protocol.ledger().keys().map(|(_, buyer, key)| (buyer, key)).collect();
        keys.sort_unstable();
        keys
    }

    /// The keys of all orders in the tables, and of what the journal has behind them; then the doors open.
    pub(super) fn reads_keys(&mut self, node: usize) {
        if self.nodes[node].stage != Stage::Announcing {
            return;
        }
        for product in 0..self.products.len() {
            let keys = if self.is(Broken::KeysOfLedgers) {
                self.keys_of_ledger(product)
            } else {
                self.shelves[product].all_keys(&self.chapters[product].events)
            };
            keys.into_iter().for_each(|print| self.nodes[node].keys.keep(print, product));
        }
        self.nodes[node].stage = Stage::Open;
        self.flush(node);
        self.look_for_due(node);
        self.say(|| format!("{node} opens its doors"));
        if self.leads_begun > 0 {
            self.tally.reach("another lead opened its doors");
        }
        self.leads_begun += 1;
    }

    // --- an owner and a lead's word -------------------------------------------------------------------------------------------

    pub(super) fn word_is_read(&mut self, node: usize, answers: &[Answer]) {
        let Some(word) = self.nodes[node].word else { return };
        let sessions = rows(answers.first());
        let leads = sessions.iter().any(|row| row[0] == word.session && row[1] == 1);
        if !leads {
            self.tally.reach("a word came of one who is not the lead");
            self.nodes[node].word = None;
            return;
        }
        self.nodes[node].follows = word.session;
        self.do_as_told(node, rows(answers.get(1)));
    }

    /// What another lead had asked is answered first; then it serves what the rows give it.
    pub(super) fn do_as_told(&mut self, node: usize, shards: Rows) {
        let Some(word) = self.nodes[node].word else { return };
        if self.nodes[node].answers_another(word.session) {
            self.tally.reach("an owner answered the lead before first");
            let process = self.nodes[node].process;
            return self.plan(10 * MS, Happening::DoAsTold { node, process, shards });
        }
        self.nodes[node].word = None;
        let own = self.nodes[node].session;
        for [product, session, epoch] in shards {
            let product = product as usize;
            if session == own
                && epoch > self.nodes[node].let_go[product]
                && self.nodes[node].slots[product].is_cold()
            {
                self.open(node, product, epoch);
            }
        }
        let serves = self.nodes[node].slots.iter().enumerate();
        let serves = serves.filter(|(_, slot)| !slot.is_cold() && slot.leaving.is_none());
        let serves: Vec<(usize, i64)> = serves.map(|(product, slot)| (product, slot.epoch)).collect();
        self.send(node, word.lead, word.process, Message::WordDone { session: own, serves });
    }

    pub(super) fn word_is_done(&mut self, node: usize, session: i64, serves: &[(usize, i64)]) {
        let is = &mut self.nodes[node];
        if is.stage == Stage::Announcing {
            is.heard.insert(session);
        }
        for (product, epoch) in serves {
            is.confirmed[*product] = is.confirmed[*product].max(*epoch);
        }
    }

    // --- who owns what ------------------------------------------------------------------------------------------------------

    /// Gives away what nobody has, sees that owners serve what they have, and moves a shard now and then.
    fn place(&mut self, node: usize, living: &[i64], shards: &Rows) {
        let own = self.nodes[node].session;
        for [product, session, epoch] in shards.iter().copied() {
            let product = product as usize;
            if self.nodes[node].gives[product] || self.moves(node, product) {
                continue;
            }
            if !living.contains(&session) {
                self.route(node, product, Route::Moving);
                if self.nodes[node].asked[product].is_none() {
                    let to = living[self.chance.index(living.len())];
                    self.give(node, product, to, epoch);
                }
                continue;
            }
            let route = if session == own { Route::Here } else { Route::Away(session) };
            self.route(node, product, route);
            if session == own {
                if self.nodes[node].slots[product].is_cold() && epoch > self.nodes[node].let_go[product] {
                    self.open(node, product, epoch);
                    self.keep(node, product);
                } else if self.nodes[node].slots[product].is_cold() {
                    self.begin_move(node, product, own, own, epoch);
                }
            } else if self.nodes[node].confirmed[product] < epoch {
                self.send_word(node, session);
                // It has let go for a lead that is no more: it gets it again, under the next epoch.
                if self.chance.percent(10) {
                    self.begin_move(node, product, session, session, epoch);
                }
            }
        }
        if self.nodes[node].moving.is_none() && self.now < FAULTS_END && self.chance.percent(8) {
            let row = shards[self.chance.index(shards.len())];
            let to = living[self.chance.index(living.len())];
            let product = row[0] as usize;
            if living.contains(&row[1]) && to != row[1] && !self.nodes[node].gives[product] {
                self.begin_move(node, product, row[1], to, row[2]);
            }
        }
        self.go_on_moving(node, living);
    }

    fn moves(&self, node: usize, product: usize) -> bool {
        self.nodes[node].moving.is_some_and(|moving| moving.product == product)
    }

    /// Another keeper begins when all that was asked of the one before is answered: what comes back goes before what came since.
    fn route(&mut self, node: usize, product: usize, route: Route) {
        let was = self.nodes[node].routes[product];
        if was == route {
            return;
        }
        let waits = self.nodes[node].asked[product].is_some();
        self.nodes[node].routes[product] = if waits { Route::Moving } else { route };
        self.keep(node, product);
    }

    fn begin_move(&mut self, node: usize, product: usize, from: i64, to: i64, epoch: i64) {
        if self.nodes[node].moving.is_some() {
            return;
        }
        self.say(|| format!("{node} moves product {product} from session {from} to {to}"));
        self.tally.reach("a shard began to move");
        let moving = Moving { product, from, to, epoch, let_go: false, writing: false };
        self.nodes[node].moving = Some(moving);
        self.route(node, product, Route::Moving);
        self.drained(node, product);
        if self.is(Broken::MoveBeforeLetGo) {
            self.give(node, product, to, epoch);
        }
    }

    /// What was asked of the owner is answered: now it may let go.
    pub(super) fn drained(&mut self, node: usize, product: usize) {
        let Some(moving) = self.nodes[node].moving.filter(|moving| moving.product == product) else { return };
        if self.nodes[node].asked[product].is_some() || moving.let_go {
            return;
        }
        let (epoch, process) = (moving.epoch, self.nodes[node].process);
        if moving.from == self.nodes[node].session {
            return self.lets_go(node, product, Leaving { lead: node, process, epoch });
        }
        if let Some(&(to, process)) = self.places.get(&moving.from) {
            self.send(node, to, process, Message::LetGo { product, epoch });
        }
    }

    /// It asks again whoever has not let go, and needs not ask the dead.
    fn go_on_moving(&mut self, node: usize, living: &[i64]) {
        let Some(moving) = self.nodes[node].moving else { return };
        // What was asked of the dead may be in the journal: it goes before whatever has come since.
        if !living.contains(&moving.from) && !moving.let_go {
            if self.nodes[node].asked[moving.product].is_some() {
                return;
            }
            self.tally.reach("an owner died while its shard moved");
            return self.let_gone(node, moving.product, moving.epoch);
        }
        if moving.let_go && !moving.writing {
            return self.let_gone(node, moving.product, moving.epoch);
        }
        self.drained(node, moving.product);
    }

    pub(super) fn let_gone(&mut self, node: usize, product: usize, epoch: i64) {
        let Some(moving) = &mut self.nodes[node].moving else { return };
        if moving.product != product || moving.epoch != epoch || moving.writing {
            return;
        }
        (moving.let_go, moving.writing) = (true, true);
        let to = moving.to;
        self.give(node, product, to, epoch);
    }

    fn give(&mut self, node: usize, product: usize, to: i64, epoch: i64) {
        self.nodes[node].gives[product] = true;
        let (lead, shard) = (self.nodes[node].session, product as i64);
        let give = Statement::Give { shard, session: to, epoch };
        self.ask_base(
            node,
            After::Row(product, to),
            &[Statement::Begin, Statement::HoldLead(lead), give, Statement::Commit],
        );
    }

    /// The row says it, or somebody has written it before; the next look says what it is.
    pub(super) fn row_is_written(&mut self, node: usize, product: usize, to: i64) {
        self.nodes[node].gives[product] = false;
        if self.moves(node, product) {
            self.nodes[node].moving = None;
            self.tally.reach("a shard has moved");
        }
        if to != self.nodes[node].session {
            self.send_word(node, to);
        }
    }

    pub(super) fn row_is_lost(&mut self, node: usize, product: usize) {
        let is: &mut Node = &mut self.nodes[node];
        is.gives[product] = false;
        if let Some(moving) = is.moving.as_mut().filter(|moving| moving.product == product) {
            moving.writing = false;
        }
    }

    // --- the mirror ---------------------------------------------------------------------------------------------------------

    /// What somebody sees in the mirror is in the journal, and nobody sees less than he has seen.
    pub(super) fn look_at_mirror(&mut self) {
        for product in 0..self.products.len() {
            let Some((epoch, sequence)) = self.mirror.look(&product) else { continue };
            let head = self.chapters[product].events.len() as u64;
            let seen = &mut self.mirror_seen[product];
            let (before, now) = (*seen, (epoch, Sequence(sequence)));
            if sequence > head || now < before {
                let what =
                    format!("product {product}: #{sequence} after #{}, the journal has #{head}", before.1.0);
                return self.violated("the mirror is behind, never ahead, and never goes back", what);
            }
            *seen = now;
        }
    }
}
