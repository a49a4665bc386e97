//! The database between the nodes: statements on their way there and answers on their way back, one after another on each
//! connection, and what becomes of a connection that is lost.

use std::collections::VecDeque;

use stockade::domain::stock::Entry;

use super::node::Submission;
use super::{Cluster, Fault, Happening};
use crate::broken::Broken;
use crate::database::{Answer, Connection, Statement};
use crate::scenario::FAULTS_END;
use crate::time::{MS, Micros, SECOND};

/// Whoever has no answer for so long calls his connection lost.
const LOST_AFTER: Micros = 3 * SECOND;

/// What a node does with the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Join,
    /// Sent then.
    Beat(Micros),
    Group,
    Recover,
    Look,
    Lead,
    Seal,
    Keys,
    /// A lead's word, verified.
    Word,
    /// A row of a shard, written: the product, and the session that gets it.
    Row(usize, i64),
    Load(usize, u64),
    Snapshot,
    /// How far the tables and the journal are.
    Flush,
    /// The tables are brought up to date from one place to another.
    Fold(i64, i64),
    LookUp(u64),
}

/// Statements of one node on one connection.
#[derive(Debug)]
pub struct Script {
    pub node: usize,
    pub process: u64,
    pub connection: Connection,
    pub(super) todo: VecDeque<Statement>,
    pub answers: Vec<Answer>,
    /// The database has a statement whose answer has not come back.
    is_asking: bool,
    pub after: After,
    /// Connections that are ended first.
    kills: Vec<Connection>,
    /// Its connection has been ended: whatever answer is on its way, nobody can rely on another.
    pub(super) ended: bool,
}

impl Cluster {
    pub(super) fn ask_base(&mut self, node: usize, after: After, statements: &[Statement]) {
        self.ask_base_after(node, after, Vec::new(), statements);
    }

    pub(super) fn ask_base_after(
        &mut self,
        node: usize,
        after: After,
        kills: Vec<Connection>,
        statements: &[Statement],
    ) {
        self.scripts_begun += 1;
        let (number, is) = (self.scripts_begun, &self.nodes[node]);
        self.marks.insert(number, is.session);
        let todo = statements.iter().copied().collect();
        let script = Script {
            node,
            process: is.process,
            connection: number,
            todo,
            answers: Vec::new(),
            is_asking: false,
            after,
            kills,
            ended: false,
        };
        self.scripts.insert(number, script);
        let way = self.way();
        self.plan(way, Happening::AtBase { script: number });
        self.plan(LOST_AFTER, Happening::BaseIsSilent { script: number });
    }

    /// The connections of a session that the database knows.
    pub(super) fn connections_of(&self, session: i64) -> Vec<Connection> {
        self.marks.iter().filter(|(_, of)| **of == session).map(|(connection, _)| *connection).collect()
    }

    fn way(&mut self) -> Micros {
        self.chance.between(40, 400)
            + if self.now < FAULTS_END && self.chance.percent(1) {
                self.chance.between(0, 200) * MS
            } else {
                0
            }
    }

    fn is_cut_off(&self, node: usize) -> bool {
        self.now < self.nodes[node].cut_off_until
    }

    pub(super) fn at_base(&mut self, number: u64) {
        if self.now < self.base_down_until {
            return;
        }
        let Some(script) = self.scripts.get_mut(&number) else { return };
        let (node, connection) = (script.node, script.connection);
        let kills = std::mem::take(&mut script.kills);
        let Some(statement) = script.todo.pop_front() else { return };
        script.is_asking = true;
        if self.is_cut_off(node) {
            return;
        }
        kills.into_iter().for_each(|connection| self.end_connection(connection));
        if let Statement::Commit = statement {
            self.committed(connection);
        }
        let answer = self.database.ask(connection, statement);
        if statement == Statement::Commit && self.next_commit == Some(Fault::CommitUnheard) {
            // It is done, and nobody hears so.
            self.next_commit = None;
            self.tally.fault("the answer to a COMMIT is lost");
        } else if let Some(answer) = answer {
            self.say_back(number, answer);
        }
        self.released();
    }

    /// A connection is ended at the database; its node learns it when it asks or waits.
    pub(super) fn end_connection(&mut self, connection: Connection) {
        self.forget_transaction(connection);
        self.marks.remove(&connection);
        if let Some(answer) = self.database.kill(connection) {
            self.say_back(connection, answer);
        } else if let Some(script) = self.scripts.get_mut(&connection) {
            // The next statement, or the answer on its way, finds nobody.
            script.todo.clear();
            script.ended = true;
            self.say_back(connection, Answer::Lost);
        }
        self.released();
    }

    fn released(&mut self) {
        for (connection, answer) in self.database.answered() {
            self.say_back(connection, answer);
        }
    }

    fn say_back(&mut self, number: u64, answer: Answer) {
        let way = self.way();
        self.plan(way, Happening::FromBase { script: number, answer });
    }

    pub(super) fn base_answers(&mut self, number: u64, answer: Answer) {
        let Some(script) = self.scripts.get_mut(&number) else { return };
        let (node, ended) = (script.node, script.ended);
        if self.is_cut_off(node) {
            return;
        }
        if answer == Answer::Lost || ended {
            return self.lost(number);
        }
        let Some(script) = self.scripts.get_mut(&number) else { return };
        script.answers.push(answer.clone());
        script.is_asking = false;
        let (after, step) = (script.after, script.answers.len());
        match (after, step, &answer) {
            // Fenced: whoever holds no session writes nothing.
            (After::Group, 2 | 3, Answer::Done(0)) if !self.is(Broken::GroupWithoutSession) => {
                self.forget_connection(number);
                return self.exits(node, "its session has ended");
            }
            (After::Row(..) | After::Fold(..), 2, Answer::Done(0)) => {
                self.forget_connection(number);
                return self.exits(node, "it is not the lead any more");
            }
            // Another lead has been here before.
            (After::Fold(..), 3, Answer::Done(0)) => {
                self.nodes[node].flushing = false;
                return self.forget_connection(number);
            }
            (After::Fold(from, to), 3, _) => drop(self.flushes.insert(number, (from, to))),
            (After::Group, 3, _) => self.places_are_taken(number),
            (After::Group, _, Answer::Duplicate) => return self.lost(number),
            _ => {}
        }
        let Some(script) = self.scripts.get(&number) else { return };
        if script.todo.is_empty() {
            let Some(script) = self.scripts.remove(&number) else { return };
            self.marks.remove(&number);
            return self.base_said(node, script.after, script.answers);
        }
        if script.todo.front() == Some(&Statement::Commit) && self.next_commit == Some(Fault::CrashInCommit) {
            self.next_commit = None;
            self.tally.fault("a node is killed with its COMMIT on the way");
            return self.exits(node, "killed with its COMMIT on the way");
        }
        let way = self.way();
        self.plan(way, Happening::AtBase { script: number });
    }

    fn places_are_taken(&mut self, number: u64) {
        let Some(script) = self.scripts.get_mut(&number) else { return };
        let mut ends = script.answers.iter().filter_map(|answer| match answer {
            Answer::Value(end) => Some(*end),
            _ => None,
        });
        let Some(end) = ends.next() else { return };
        let groups = &self.nodes[script.node].writer.groups;
        let first = end - groups.len() as i64 + 1;
        let mut placed = Vec::new();
        for (place, group) in (first..).zip(groups) {
            let (product, first) = (group.product as i64, group.entry.first.0 as i64);
            script.todo.push_back(Statement::Insert { place, product, first });
            placed.push((place, group.clone()));
        }
        script.todo.push_back(Statement::Commit);
        self.inserted.insert(number, placed);
    }

    pub(super) fn silent(&mut self, number: u64) {
        if self.scripts.contains_key(&number) {
            self.lost(number);
        }
    }

    /// The node calls the connection lost; the database may not know that.
    fn lost(&mut self, number: u64) {
        let Some(script) = self.scripts.remove(&number) else { return };
        self.tally.reach("a node lost its connection to the database");
        self.base_is_lost(script.node, script.after, script.connection);
        if script.after != After::Group {
            self.forget_connection(number);
        }
    }

    fn forget_connection(&mut self, number: u64) {
        self.scripts.remove(&number);
        self.marks.remove(&number);
        self.forget_transaction(number);
        self.database.kill(number);
        self.released();
    }

    fn forget_transaction(&mut self, connection: Connection) {
        self.inserted.remove(&connection);
        self.flushes.remove(&connection);
        self.snapshots_sent.remove(&connection);
    }

    /// The process has ended. Usually the database sees that at once; sometimes its connections stay, with their locks.
    pub(super) fn leave_base(&mut self, node: usize) {
        let of_node = self.scripts.iter().filter(|(_, script)| script.node == node);
        let numbers: Vec<u64> = of_node.map(|(number, _)| *number).collect();
        let stays = self.chance.percent(40);
        for number in numbers {
            let Some(script) = self.scripts.remove(&number) else { continue };
            // A group is one text: whatever of it has come, the rest comes too.
            let is_on_the_way = script.todo.front() == Some(&Statement::Commit)
                && (!script.is_asking || script.after == After::Group);
            if is_on_the_way && self.chance.percent(50) && !self.is_cut_off(node) {
                self.tally.reach("a process ended while its COMMIT was on the way, and it was done");
                self.committed(number);
                self.database.lose_commit(number, true);
                self.marks.remove(&number);
                self.released();
            } else if !stays {
                self.forget_connection(number);
            }
        }
    }

    /// A transaction is committed: its entries are in the journal from here on, its rows in the tables, its snapshot stands.
    fn committed(&mut self, connection: Connection) {
        if let Some(taken) = self.snapshots_sent.remove(&connection) {
            self.snapshot_is_kept(taken);
        }
        if let Some((from, to)) = self.flushes.remove(&connection) {
            self.fold(from, to);
        }
        for (place, mut group) in self.inserted.remove(&connection).unwrap_or_default() {
            let Submission { product, ref entry, .. } = group;
            if place != self.last_place + 1 {
                let what = format!("place {place} was committed after place {}", self.last_place);
                self.violated("places_follow", what);
            }
            self.last_place = place;
            let chapter = &mut self.chapters[product];
            let before = chapter.entries.last();
            let (sequence, hash) =
                before.map_or_else(Default::default, |last: &Entry| (last.last, last.hash));
            if let Err(forked) = entry.continues(sequence, hash) {
                let what = format!("product {product}: a fork was written: {forked}");
                return self.violated("i9_prefix_durability", what);
            }
            match stockade::domain::stock::decode_events(&entry.events) {
                Ok(events) => chapter.events.extend(events),
                Err(error) => return self.violated("i9_prefix_durability", error.to_string()),
            }
            group.facts.iter_mut().for_each(|fact| fact.durable = self.now);
            chapter.facts.append(&mut group.facts);
            self.line.push((product, chapter.entries.len()));
            chapter.entries.push(group.entry);
        }
    }
}
