//! The database that nodes share, as far as the journal and the sessions need it: MariaDB's or MySQL's InnoDB at *read
//! committed*, one statement after another.
//!
//! Always true: nobody reads what is not committed but its own writer; a statement that looks at a row by its key and means
//! to lock or change it waits for whoever has locked it, and then looks at what is committed; what it was to change and does
//! not fit is let go at once if it had not to be waited for, all other locks are kept to the end of the transaction; a connection that is ended undoes its
//! transaction. The test
//! `conformance` plays the same schedules against this and against a server, and each [`Flaw`] must be seen there.

mod locks;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use locks::{Locks, Mode, Row};
pub use statement::{Answer, Statement};

pub type Connection = u64;

/// A mistake, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Holding a session locks nothing.
    HoldsNothing,
    /// Places are taken without waiting for whoever took some before.
    PlacesAtOnce,
    /// Everybody reads what anybody has written.
    DirtyReads,
    /// A connection that is ended commits.
    KillCommits,
    /// The unique key of a product and a sequence is none.
    NoFork,
    /// A session that has ended can still be held.
    HoldsTheEnded,
    /// A statement that waited looks at what it saw before it waited.
    StaleAfterWait,
    /// A beat is written into the row of its session.
    BeatInTheSession,
}

impl Flaw {
    pub const ALL: [Flaw; 8] = [
        Flaw::HoldsNothing,
        Flaw::PlacesAtOnce,
        Flaw::DirtyReads,
        Flaw::KillCommits,
        Flaw::NoFork,
        Flaw::HoldsTheEnded,
        Flaw::StaleAfterWait,
        Flaw::BeatInTheSession,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// 1: the lead; its own number, negative: an owner; `None`: ended.
    pub active: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub session: i64,
    pub epoch: i64,
}

/// A change that is not committed.
#[derive(Debug, Clone, Copy)]
enum Change {
    Session(i64, Session),
    Beat(i64, i64),
    Shard(i64, Shard),
    End(i64),
    Entry(i64, (i64, i64)),
    Checkpoint(i64),
}

/// All rows, committed.
#[derive(Debug, Clone, Default)]
struct Tables {
    sessions: BTreeMap<i64, Session>,
    /// By session.
    beats: BTreeMap<i64, i64>,
    shards: BTreeMap<i64, Shard>,
    end: i64,
    /// Product and first sequence by place, and the other way round.
    entries: BTreeMap<i64, (i64, i64)>,
    sequences: BTreeMap<(i64, i64), i64>,
    checkpoint: i64,
}

impl Tables {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Session(number, session) => drop(self.sessions.insert(number, session)),
            Change::Beat(number, beat) => drop(self.beats.insert(number, beat)),
            Change::Shard(number, shard) => drop(self.shards.insert(number, shard)),
            Change::End(end) => self.end = end,
            Change::Entry(place, entry) => {
                self.entries.insert(place, entry);
                self.sequences.insert(entry, place);
            }
            Change::Checkpoint(place) => self.checkpoint = place,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Open {
    /// Several statements, which end with COMMIT.
    several: bool,
    changes: Vec<Change>,
    waiting: Option<Statement>,
    /// It had to wait.
    waited: bool,
    /// The session and its beat as they were when the wait began, for whoever has that flaw.
    seen: (Option<Session>, Option<i64>),
}

#[derive(Debug, Clone, Default)]
pub struct Database {
    tables: Tables,
    locks: Locks,
    open: BTreeMap<Connection, Open>,
    /// Those who wait, in the order in which they came.
    queue: Vec<Connection>,
    flaw: Option<Flaw>,
}

/// A statement has to wait.
struct Waits;

type Told = Result<Answer, Waits>;

impl Database {
    pub fn new(shards: i64, flaw: Option<Flaw>) -> Database {
        let nobodys = (0..shards).map(|shard| (shard, Shard { session: 0, epoch: 0 }));
        Database {
            tables: Tables { shards: nobodys.collect(), ..Tables::default() },
            flaw,
            ..Database::default()
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub fn is_waiting(&self, by: Connection) -> bool {
        self.open.get(&by).is_some_and(|open| open.waiting.is_some())
    }

    pub fn is_in_transaction(&self, by: Connection) -> bool {
        self.open.get(&by).is_some_and(|open| open.several)
    }

    pub fn session(&self, number: i64) -> Option<Session> {
        self.tables.sessions.get(&number).copied()
    }

    pub fn sessions(&self) -> impl Iterator<Item = (i64, Session)> {
        self.tables.sessions.iter().map(|(number, session)| (*number, *session))
    }

    pub fn beat(&self, number: i64) -> Option<i64> {
        self.tables.beats.get(&number).copied()
    }

    pub fn shard(&self, shard: i64) -> Option<Shard> {
        self.tables.shards.get(&shard).copied()
    }

    pub fn end(&self) -> i64 {
        self.tables.end
    }

    pub fn checkpoint(&self) -> i64 {
        self.tables.checkpoint
    }

    /// The first sequence of the last entry of a product.
    pub fn head(&self, product: i64) -> i64 {
        let of_product = self.tables.sequences.range((product, i64::MIN)..=(product, i64::MAX));
        of_product.last().map_or(0, |((_, first), _)| *first)
    }

    /// Entries that are committed, by place.
    pub fn entries(&self) -> impl Iterator<Item = (i64, (i64, i64))> {
        self.tables.entries.iter().map(|(place, entry)| (*place, *entry))
    }

    /// Would somebody wait for himself if this were asked?
    pub fn would_circle(&self, by: Connection, statement: Statement) -> bool {
        self.clone().ask(by, statement) == Some(Answer::Circle)
    }

    /// Asks; the answer, or none while it waits. A connection asks one thing at a time.
    pub fn ask(&mut self, by: Connection, statement: Statement) -> Option<Answer> {
        let seen = match statement {
            Statement::HoldSession(number) | Statement::Seal { session: number, .. } => {
                (self.session(number), self.beat(number))
            }
            _ => (None, None),
        };
        let open = self.open.entry(by).or_default();
        (open.waiting, open.waited, open.seen) = (Some(statement), false, seen);
        self.queue.push(by);
        self.go_on(by)
    }

    /// Those who waited and have an answer now, in the order in which they had come.
    pub fn answered(&mut self) -> Vec<(Connection, Answer)> {
        let mut answers = Vec::new();
        loop {
            let next = self.queue.clone().into_iter().find_map(|by| Some((by, self.go_on(by)?)));
            match next {
                Some(answer) => answers.push(answer),
                None => return answers,
            }
        }
    }

    /// A connection is ended, by whomever: what it had open is undone. Whoever waits on it hears so.
    pub fn kill(&mut self, by: Connection) -> Option<Answer> {
        let open = self.open.remove(&by)?;
        if self.has(Flaw::KillCommits) {
            open.changes.iter().for_each(|change| self.tables.apply(*change));
        }
        self.locks.release_all(by);
        self.queue.retain(|waiting| *waiting != by);
        open.waiting.map(|_| Answer::Lost)
    }

    /// A connection is lost with its COMMIT on the way, which was done or not.
    pub fn lose_commit(&mut self, by: Connection, was_done: bool) {
        if was_done {
            self.end_transaction(by, true);
        }
        self.kill(by);
    }

    /// All connections are lost, and everything that is not committed.
    pub fn crash(&mut self) {
        self.locks = Locks::default();
        self.open.clear();
        self.queue.clear();
    }

    fn go_on(&mut self, by: Connection) -> Option<Answer> {
        let open = self.open.get(&by)?;
        let (statement, several) = (open.waiting?, open.several);
        let told = match self.perform(by, statement) {
            Err(Waits) if self.locks.is_in_a_circle(by) => {
                self.end_transaction(by, false);
                Answer::Circle
            }
            Err(Waits) => {
                if let Some(open) = self.open.get_mut(&by) {
                    open.waited = true;
                }
                return None;
            }
            Ok(told) => told,
        };
        self.queue.retain(|waiting| *waiting != by);
        if let Some(open) = self.open.get_mut(&by) {
            open.waiting = None;
        }
        if !several && statement != Statement::Begin {
            self.end_transaction(by, true);
        }
        Some(told)
    }

    fn end_transaction(&mut self, by: Connection, commits: bool) {
        let Some(open) = self.open.remove(&by) else { return };
        if commits {
            open.changes.iter().for_each(|change| self.tables.apply(*change));
        }
        self.locks.release_all(by);
    }

    fn lock(&mut self, row: Row, by: Connection, mode: Mode) -> Result<(), Waits> {
        if self.locks.ask(row, by, mode) { Ok(()) } else { Err(Waits) }
    }

    /// What does not fit is let go at once, but for what was waited for.
    fn let_go(&mut self, row: Row, by: Connection) {
        if self.open.get(&by).is_some_and(|open| !open.waited) {
            self.locks.release(row, by);
        }
    }

    fn changes(&self, by: Connection) -> impl Iterator<Item = Change> {
        let all = self.has(Flaw::DirtyReads);
        let visible = self.open.iter().filter(move |(other, _)| all || **other == by);
        visible.flat_map(|(_, open)| open.changes.iter().rev().copied())
    }

    fn change(&mut self, by: Connection, change: Change) {
        self.open.entry(by).or_default().changes.push(change);
    }

    fn session_for(&self, by: Connection, number: i64) -> Option<Session> {
        let own = self.changes(by).find_map(|change| match change {
            Change::Session(changed, session) if changed == number => Some(session),
            _ => None,
        });
        own.or_else(|| self.session(number))
    }

    /// What whoever has that flaw takes for the newest.
    fn stale(&self, by: Connection) -> (Option<Session>, Option<i64>) {
        let seen = self.open.get(&by).map(|open| open.seen);
        seen.filter(|_| self.has(Flaw::StaleAfterWait)).unwrap_or_default()
    }

    /// Looks at a row by its key, for a statement that locks what fits.
    fn locked_session(
        &mut self,
        by: Connection,
        number: i64,
        mode: Mode,
        fits: impl Fn(&Session) -> bool,
    ) -> Result<Option<Session>, Waits> {
        let had = self.locks.has(Row::Session(number), by, mode);
        self.lock(Row::Session(number), by, mode)?;
        let found = self.stale(by).0.or_else(|| self.session_for(by, number)).filter(fits);
        if found.is_none() && !had {
            self.let_go(Row::Session(number), by);
        }
        Ok(found)
    }

    fn changed_session(
        &mut self,
        by: Connection,
        number: i64,
        fits: impl Fn(&Session) -> bool,
        active: Option<i64>,
    ) -> Told {
        let found = self.locked_session(by, number, Mode::Exclusive, fits)?;
        if found.is_some() {
            self.change(by, Change::Session(number, Session { active }));
        }
        Ok(Answer::Done(found.is_some().into()))
    }

    /// Counts one more beat, if the newest fits.
    fn beats(&mut self, by: Connection, number: i64, fits: impl Fn(i64) -> bool) -> Told {
        if self.beat(number).is_none() {
            return Ok(Answer::Done(0));
        }
        let row = match self.has(Flaw::BeatInTheSession) {
            true => Row::Session(number),
            false => Row::Beat(number),
        };
        self.lock(row, by, Mode::Exclusive)?;
        let own = self.changes(by).find_map(|change| match change {
            Change::Beat(changed, beat) if changed == number => Some(beat),
            _ => None,
        });
        let found = self.stale(by).1.or(own).or_else(|| self.beat(number)).filter(|beat| fits(*beat));
        if let Some(beat) = found {
            self.change(by, Change::Beat(number, beat + 1));
        }
        Ok(Answer::Done(found.is_some().into()))
    }

    /// One statement for both rows: the session's first, for which it waits longest.
    fn seal(&mut self, by: Connection, number: i64, beat: i64) -> Told {
        let lives = |found: &Session| found.active.is_some();
        if self.locked_session(by, number, Mode::Exclusive, lives)?.is_none() {
            return Ok(Answer::Done(0));
        }
        if self.beats(by, number, |found| found == beat)? == Answer::Done(0) {
            return Ok(Answer::Done(0));
        }
        self.change(by, Change::Session(number, Session { active: None }));
        Ok(Answer::Done(2))
    }

    fn perform(&mut self, by: Connection, statement: Statement) -> Told {
        match statement {
            Statement::Begin => self.open.entry(by).or_default().several = true,
            Statement::Commit => self.end_transaction(by, true),
            Statement::Rollback => self.end_transaction(by, false),
            Statement::HoldSession(number) => {
                let ended = self.has(Flaw::HoldsTheEnded);
                return self.hold(by, number, |session| ended || session.active.is_some());
            }
            Statement::HoldLead(number) => return self.hold(by, number, |session| session.active == Some(1)),
            Statement::TakePlaces(count) => return self.take_places(by, count),
            Statement::Insert { place, product, first } => return self.insert(by, place, product, first),
            Statement::Join(number) => {
                if self.session(number).is_some() {
                    self.lock(Row::Session(number), by, Mode::Shared)?;
                    return Ok(Answer::Duplicate);
                }
                self.lock(Row::Session(number), by, Mode::Exclusive)?;
                self.change(by, Change::Session(number, Session { active: Some(-number) }));
                return Ok(Answer::Done(1));
            }
            Statement::FirstBeat(number) => {
                if self.beat(number).is_some() {
                    self.lock(Row::Beat(number), by, Mode::Shared)?;
                    return Ok(Answer::Duplicate);
                }
                self.lock(Row::Beat(number), by, Mode::Exclusive)?;
                self.change(by, Change::Beat(number, 0));
                return Ok(Answer::Done(1));
            }
            Statement::Lead(number) => {
                let is_owner = |session: &Session| session.active == Some(-number);
                if self.locked_session(by, number, Mode::Exclusive, is_owner)?.is_none() {
                    return Ok(Answer::Done(0));
                }
                if self.sessions().any(|(_, session)| session.active == Some(1)) {
                    return Ok(Answer::Duplicate);
                }
                return self.changed_session(by, number, is_owner, Some(1));
            }
            Statement::Beat(number) => return self.beats(by, number, |_| true),
            Statement::Lives(number) => {
                let lives = self.session_for(by, number).is_some_and(|session| session.active.is_some());
                return Ok(Answer::Done(lives.into()));
            }
            Statement::Seal { session, beat } => return self.seal(by, session, beat),
            Statement::Give { shard, session, epoch } => return self.give(by, shard, session, epoch),
            Statement::Pass { from, to } => return self.pass(by, from, to),
            Statement::Head(product) => {
                let own = self.changes(by).filter_map(|change| match change {
                    Change::Entry(_, (of, first)) if of == product => Some(first),
                    _ => None,
                });
                return Ok(Answer::Value(own.chain([self.head(product)]).max().unwrap_or(0)));
            }
            Statement::End => return Ok(Answer::Value(self.end_for(by))),
            Statement::Passed => return Ok(Answer::Value(self.checkpoint_for(by))),
            Statement::Sessions | Statement::Shards | Statement::Entries => {
                return Ok(Answer::Rows(self.rows(by, statement)));
            }
        }
        Ok(Answer::Done(0))
    }

    /// A row that is read by its whole key stays locked, whether it fits or not.
    fn hold(&mut self, by: Connection, number: i64, fits: impl Fn(&Session) -> bool) -> Told {
        let found = if self.has(Flaw::HoldsNothing) {
            self.session_for(by, number)
        } else {
            self.locked_session(by, number, Mode::Shared, |_| true)?
        };
        Ok(Answer::Done(found.filter(fits).is_some().into()))
    }

    fn end_for(&self, by: Connection) -> i64 {
        let own = self.changes(by).find_map(|change| match change {
            Change::End(end) => Some(end),
            _ => None,
        });
        own.unwrap_or(self.tables.end)
    }

    fn take_places(&mut self, by: Connection, count: i64) -> Told {
        if !self.has(Flaw::PlacesAtOnce) {
            self.lock(Row::End, by, Mode::Exclusive)?;
        }
        let end = self.end_for(by) + count;
        self.change(by, Change::End(end));
        Ok(Answer::Value(end))
    }

    /// First the primary key, then the other. Whoever else has a key that is not committed is waited for.
    fn insert(&mut self, by: Connection, place: i64, product: i64, first: i64) -> Told {
        let is_forked = !self.has(Flaw::NoFork);
        let (own, pair) = (Row::Place(place), Row::Sequence(product, first));
        let again = |change: Change| match change {
            Change::Entry(at, entry) => (at == place, is_forked && entry == (product, first)),
            _ => (false, false),
        };
        let (mine, forked) = self
            .changes(by)
            .map(again)
            .fold((false, false), |(place, pair), (same, fork)| (place || same, pair || fork));
        if self.tables.entries.contains_key(&place) || mine {
            return Ok(Answer::Duplicate);
        }
        self.lock(own, by, Mode::Exclusive)?;
        let stands = is_forked && self.tables.sequences.contains_key(&(product, first));
        if stands || forked {
            // The statement is undone, what it had put down under the other key included.
            self.locks.release(own, by);
            return Ok(Answer::Duplicate);
        }
        if is_forked {
            self.lock(pair, by, Mode::Exclusive)?;
        }
        self.change(by, Change::Entry(place, (product, first)));
        Ok(Answer::Done(1))
    }

    fn give(&mut self, by: Connection, shard: i64, session: i64, epoch: i64) -> Told {
        let had = self.locks.has(Row::Shard(shard), by, Mode::Exclusive);
        self.lock(Row::Shard(shard), by, Mode::Exclusive)?;
        let own = self.changes(by).find_map(|change| match change {
            Change::Shard(changed, row) if changed == shard => Some(row),
            _ => None,
        });
        let fits = own.or_else(|| self.shard(shard)).is_some_and(|row| row.epoch == epoch);
        if fits {
            self.change(by, Change::Shard(shard, Shard { session, epoch: epoch + 1 }));
        } else if !had {
            self.let_go(Row::Shard(shard), by);
        }
        Ok(Answer::Done(fits.into()))
    }

    fn checkpoint_for(&self, by: Connection) -> i64 {
        let own = self.changes(by).find_map(|change| match change {
            Change::Checkpoint(place) => Some(place),
            _ => None,
        });
        own.unwrap_or(self.tables.checkpoint)
    }

    fn pass(&mut self, by: Connection, from: i64, to: i64) -> Told {
        let had = self.locks.has(Row::Checkpoint, by, Mode::Exclusive);
        self.lock(Row::Checkpoint, by, Mode::Exclusive)?;
        let fits = self.checkpoint_for(by) == from;
        if fits {
            self.change(by, Change::Checkpoint(to));
        } else if !had {
            self.let_go(Row::Checkpoint, by);
        }
        Ok(Answer::Done(fits.into()))
    }

    fn rows(&self, by: Connection, what: Statement) -> Vec<[i64; 3]> {
        let mut rows: BTreeMap<i64, [i64; 3]> = BTreeMap::new();
        let session = |number: i64, session: Session| {
            let beat = self.beat(number)?;
            Some((number, [number, session.active.unwrap_or(0), beat]))
        };
        let shard = |number: i64, shard: Shard| [number, shard.session, shard.epoch];
        let entry = |place: i64, (product, first): (i64, i64)| [place, product, first];
        match what {
            Statement::Sessions => rows.extend(self.sessions().filter_map(|(at, is)| session(at, is))),
            Statement::Shards => {
                rows.extend(self.tables.shards.iter().map(|(at, is)| (*at, shard(*at, *is))))
            }
            _ => rows.extend(self.entries().map(|(at, is)| (at, entry(at, is)))),
        }
        // The oldest change first.
        for change in self.changes(by).collect::<Vec<_>>().into_iter().rev() {
            match (what, change) {
                (Statement::Sessions, Change::Session(at, is)) => rows.extend(session(at, is)),
                (Statement::Shards, Change::Shard(at, is)) => drop(rows.insert(at, shard(at, is))),
                (Statement::Entries, Change::Entry(at, is)) => drop(rows.insert(at, entry(at, is))),
                _ => {}
            }
        }
        rows.into_values().collect()
    }
}
