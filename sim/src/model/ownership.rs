//! Who may write: sessions, epochs, groups, unknown outcomes, take-overs, flushes and hand-overs as one model.
//!
//! Nothing here knows time. Any process may stand still between any two of its steps for as long as it likes, which is
//! what a stopped process, a paused machine and a node cut off from the ledger look like to everybody else; a lease runs
//! out whenever it likes. Connections, processes and the ledger break any number of times. What is bounded is named in
//! [`Setting`]: how many processes, shards, epochs and entries.

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use super::check::Told;
use super::moves::Move;
use super::rule::Rule;
use super::sight::Sight;
use super::state::{
    Alive, Flush, Group, HandOver, Hung, Life, PROCESSES_MAX, Process, SHARDS_MAX, Stage, State, Step, Tenure, Transaction,
};
use super::without::{Shows, Without};

/// How large the world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    /// Processes that run at the beginning.
    pub nodes: usize,
    /// Processes that may start later: restarts, or nodes that join.
    pub restarts: usize,
    pub shards: usize,
    pub epochs: u8,
    /// Entries a shard.
    pub entries: u8,
    /// With flushes and hand-overs.
    pub moves: bool,
}

impl Setting {
    pub fn processes(&self) -> usize {
        self.nodes + self.restarts
    }
}

/// The protocol in a world of this size, whole or without a safeguard.
#[derive(Debug)]
pub struct Ownership {
    pub setting: Setting,
    without: Option<Without>,
    /// What was seen on the way.
    seen: AtomicU32,
}

impl Ownership {
    pub fn new(setting: Setting, without: Option<Without>) -> Ownership {
        Ownership { setting, without, seen: AtomicU32::new(0) }
    }

    fn lacks(&self, safeguard: Without) -> bool {
        self.without == Some(safeguard)
    }

    fn has_key(&self) -> bool {
        !self.lacks(Without::NoKey) && !self.lacks(Without::SettleUnlockedNoKey)
    }

    /// Does a group's transaction hold its session row until it ends?
    fn locks_row(&self) -> bool {
        !self.lacks(Without::NoSessionCheck) && !self.lacks(Without::SessionReadUnlocked)
    }

    fn settles_unlocked(&self) -> bool {
        self.lacks(Without::SettleUnlocked)
            || self.lacks(Without::SettleUnlockedNoKey)
            || self.lacks(Without::SettleWithoutKill)
    }

    /// Judges a rule: all of them in the whole protocol, the one that a missing safeguard must break otherwise, so that
    /// another broken a step earlier does not hide it.
    fn judge(&self, state: &mut State, rule: Rule, holds: bool) {
        let judged = match self.without.map(Without::shows) {
            None | Some(Shows::NeverReaches(_) | Shows::Nothing) => true,
            Some(Shows::Breaks(expected)) => expected == rule,
        };
        if judged && !holds && state.broken.is_none() {
            state.broken = Some(rule);
        }
    }

    // --- what may happen ------------------------------------------------------------------------------------------------------

    fn fate(&self, state: &State, moves: &mut Vec<Move>) {
        let running = |process: &usize| state.processes[*process].life == Life::Running;
        for process in (0..self.setting.processes()).filter(running) {
            moves.push(Move::Crash { process });
            if let Some(Group { step: Step::Asked | Step::Answered, .. }) = state.processes[process].group {
                moves.push(Move::Lose { process });
            }
        }
        if let Some(process) =
            (0..self.setting.processes()).find(|process| state.processes[*process].life == Life::Absent)
        {
            let places = if self.lacks(Without::SameIdAfterRestart) { self.setting.nodes } else { 1 };
            moves.extend((0..places).map(|node| Move::Start { process, node }));
        }
        let in_flight = state.processes.iter().any(|process| {
            process.transactions.iter().any(Option::is_some)
                || process.group.is_some_and(|group| group.step == Step::Answered)
        });
        if in_flight || state.shards.iter().any(|shard| shard.flush.is_some() || shard.hand_over.is_some()) {
            moves.push(Move::LedgerCrash);
        }
        for (session, row) in state.sessions.iter().enumerate() {
            if row.alive == Alive::Live && !row.lapsed {
                moves.push(Move::Lapse { session });
            }
        }
    }

    fn ledger(&self, state: &State, moves: &mut Vec<Move>) {
        for (process, is) in state.processes.iter().enumerate() {
            for (slot, transaction) in is.transactions.iter().enumerate() {
                let Some(Transaction { stage: Stage::Committing, .. }) = transaction else { continue };
                moves.push(Move::Commit { process, slot });
                if !(slot == 0 && waits(is)) {
                    moves.push(Move::Undo { process, slot });
                }
            }
        }
        for (shard, row) in state.shards.iter().enumerate() {
            if row.hand_over.is_some() {
                moves.push(Move::HandOverArrives { shard });
                moves.push(Move::HandOverIsLost { shard });
            }
            if row.flush.is_some() {
                moves.push(Move::FlushArrives { shard });
            }
        }
    }

    /// Observing, killing and marking. Who does it makes no difference to anybody else, so the first who can does it.
    fn taking(&self, state: &State, moves: &mut Vec<Move>) {
        for (session, row) in state.sessions.iter().enumerate().filter(|(_, row)| row.alive == Alive::Live && row.lapsed) {
            let other = |by: &usize| state.lives(*by) && usize::from(state.processes[*by].session) != session;
            let Some(by) = (0..self.setting.processes()).find(other) else { continue };
            let kills = !self.lacks(Without::NoKill);
            if kills && (!row.cut || state.has_open(session as u8)) {
                moves.push(Move::Kill { by, session });
            }
            let free = !self.locks_row() || !state.row_is_locked(session as u8);
            if free && (row.cut || !kills) {
                moves.push(Move::Mark { by, session });
            }
        }
    }

    fn own(&self, state: &State, process: usize, moves: &mut Vec<Move>) {
        let is = &state.processes[process];
        let session = state.session_of(process);
        if session.alive == Alive::Dead {
            moves.push(Move::Fence { process });
        } else if session.lapsed && !(self.locks_row() && state.row_is_locked(is.session)) {
            moves.push(Move::Beat { process });
        }
        match is.group {
            None => self.new_groups(state, process, moves),
            Some(group) => match group.step {
                Step::Asked if is.transactions[0].is_some_and(|open| open.stage == Stage::Open) => {
                    moves.push(Move::SendCommit { process });
                }
                Step::Asked => {}
                Step::Answered => moves.push(Move::Acknowledge { process }),
                Step::Again => self.begin(state, process, group.shards, moves),
                Step::Unknown => self.unknown(state, process, moves),
            },
        }
        for shard in 0..self.setting.shards {
            self.shard(state, process, shard, moves);
        }
    }

    fn new_groups(&self, state: &State, process: usize, moves: &mut Vec<Move>) {
        let tenures = state.processes[process].tenures;
        for choice in 1..(1_usize << self.setting.shards) {
            let shards: [bool; SHARDS_MAX] = std::array::from_fn(|shard| choice & (1 << shard) != 0);
            if (0..SHARDS_MAX).all(|shard| !shards[shard] || tenures[shard].is_some()) {
                self.begin(state, process, shards, moves);
            }
        }
    }

    /// A transaction can begin when its session lives, there is room, and no uncommitted entry stands in its way.
    fn begin(&self, state: &State, process: usize, shards: [bool; SHARDS_MAX], moves: &mut Vec<Move>) {
        let is = &state.processes[process];
        let checked = self.lacks(Without::NoSessionCheck) || state.session_of(process).alive == Alive::Live;
        let free = (0..SHARDS_MAX).filter(|shard| shards[*shard]).all(|shard| {
            let place = is.tenures[shard].map_or(1, |tenure| tenure.head + 1);
            place <= self.setting.entries && !(self.has_key() && state.place_is_taken(shard, place))
        });
        let slot = is.transactions.iter().any(Option::is_none);
        if checked && free && slot {
            moves.push(Move::Begin { process, shards });
        }
    }

    fn unknown(&self, state: &State, process: usize, moves: &mut Vec<Move>) {
        let is = &state.processes[process];
        if self.lacks(Without::UnknownIsFailure) {
            if is.transactions.iter().any(Option::is_none) {
                moves.push(Move::Disown { process });
            }
            return;
        }
        let kills = !self.lacks(Without::SettleWithoutKill);
        let open = is.transactions.iter().flatten().any(|lost| lost.stage == Stage::Open);
        if kills && open {
            moves.push(Move::KillOwn { process });
        }
        let may_read = if self.settles_unlocked() { !(kills && open) } else { !state.row_is_locked(is.session) };
        let lives = state.session_of(process).alive == Alive::Live || self.lacks(Without::SettleByNumber);
        if may_read && lives {
            moves.push(Move::Settle { process });
        }
    }

    fn shard(&self, state: &State, process: usize, shard: usize, moves: &mut Vec<Move>) {
        let (is, row) = (&state.processes[process], &state.shards[shard]);
        let Some(tenure) = is.tenures[shard] else {
            if state.session_of(process).alive != Alive::Live {
                return;
            }
            let mine = row.owner == is.session;
            let opened = row.opened.epoch == row.epoch;
            let orphaned = state.sessions[row.owner as usize].alive == Alive::Dead;
            let again = mine && opened && !self.lacks(Without::ReopenSameEpoch);
            if (orphaned || again) && row.epoch < self.setting.epochs {
                moves.push(Move::Raise { process, shard });
            }
            let early = self.lacks(Without::ReadBeforeSeal) && !mine;
            if early && is.peeked[shard].is_none() && state.sessions[row.owner as usize].lapsed {
                moves.push(Move::Peek { process, shard });
            }
            let ready = !opened || self.lacks(Without::ReopenSameEpoch);
            if mine && ready {
                moves.push(Move::Open { process, shard });
            }
            return;
        };
        if !self.setting.moves {
            return;
        }
        let settled = is.group.is_none()
            || self.lacks(Without::HandOverUnsettled)
                && is.group.is_some_and(|group| matches!(group.step, Step::Unknown));
        if settled && row.hand_over.is_none() {
            let others = (0..self.setting.processes()).filter(|to| *to != process && state.lives(*to));
            moves.extend(others.map(|to| Move::HandOver { process, shard, to }));
        }
        if self.flush_of(state, process, shard, tenure).is_some() {
            moves.push(Move::Flush { process, shard });
            if row.flush.is_none() {
                moves.push(Move::SendFlush { process, shard });
            }
        }
    }

    /// What this owner would flush now: what it knows to be written and has not been carried yet.
    fn flush_of(&self, state: &State, process: usize, shard: usize, tenure: Tenure) -> Option<Flush> {
        let decided = state.processes[process].group.is_some_and(|group| group.shards[shard]);
        let ahead = u8::from(decided && self.lacks(Without::FlushUnwritten));
        let (from, to) = (state.shards[shard].checkpoint, tenure.head + ahead);
        (from < to).then_some(Flush { epoch: tenure.epoch, from, to })
    }

    // --- what it does ---------------------------------------------------------------------------------------------------------

    fn perform(&self, state: &mut State, step: Move) {
        match step {
            Move::Start { process, node } => {
                let same = self.lacks(Without::SameIdAfterRestart);
                let session = if same { state.processes[node].session } else { process as u8 };
                state.processes[process].life = Life::Running;
                state.processes[process].session = session;
                let row = &mut state.sessions[session as usize];
                (row.alive, row.lapsed, row.cut) = (Alive::Live, false, false);
            }
            Move::Crash { process } => drop_all(&mut state.processes[process], Life::Gone),
            Move::Fence { process } => drop_all(&mut state.processes[process], Life::Fenced),
            Move::Lose { process } => lose(&mut state.processes[process], Hung::Broke),
            Move::LedgerCrash => {
                for process in &mut state.processes {
                    process.transactions = [None; 2];
                    lose(process, Hung::No);
                    helped(process);
                }
                for shard in &mut state.shards {
                    (shard.flush, shard.hand_over) = (None, None);
                }
            }
            Move::Lapse { session } => state.sessions[session].lapsed = true,
            Move::Beat { process } => {
                let row = &mut state.sessions[state.processes[process].session as usize];
                (row.lapsed, row.cut) = (false, false);
            }
            Move::Begin { process, shards } => self.begun(state, process, shards),
            Move::SendCommit { process } => {
                if let Some(open) = &mut state.processes[process].transactions[0] {
                    open.stage = Stage::Committing;
                }
            }
            Move::Commit { process, slot } => self.committed(state, process, slot),
            Move::Undo { process, slot } => state.processes[process].transactions[slot] = None,
            Move::Acknowledge { process } => self.acknowledged(state, process),
            Move::KillOwn { process } => {
                let slots = state.processes[process].transactions.iter_mut();
                slots.for_each(|slot| *slot = slot.filter(|lost| lost.stage != Stage::Open));
            }
            Move::Settle { process } => self.settled(state, process),
            Move::Disown { process } => {
                let is = &mut state.processes[process];
                let written = is.group.is_some_and(|group| group.written);
                is.group = None;
                if let Some(lost) = is.transactions[0].take() {
                    is.transactions[1] = Some(Transaction { disowned: true, ..lost });
                }
                self.judge(state, Rule::NotExecutedIsTrue, !written);
            }
            Move::Kill { session, .. } => {
                state.sessions[session].cut = true;
                for process in state.processes.iter_mut().filter(|process| usize::from(process.session) == session) {
                    helped(process);
                    if waits(process) && process.transactions[0].is_some_and(|open| open.stage == Stage::Open) {
                        lose(process, Hung::Cut);
                    }
                    let slots = process.transactions.iter_mut();
                    slots.for_each(|slot| *slot = slot.filter(|lost| lost.stage != Stage::Open));
                }
            }
            Move::Mark { session, .. } => {
                let row = &mut state.sessions[session];
                (row.alive, row.cut) = (Alive::Dead, false);
            }
            Move::Raise { process, shard } => {
                let row = &mut state.shards[shard];
                row.epoch += 1;
                row.owner = state.processes[process].session;
            }
            Move::Peek { process, shard } => {
                state.processes[process].peeked[shard] = Some(state.shards[shard].written);
            }
            Move::Open { process, shard } => {
                let row = state.shards[shard];
                let head = state.processes[process].peeked[shard].take().unwrap_or(row.written);
                let tenure = Tenure { epoch: row.epoch, head };
                state.processes[process].tenures[shard] = Some(tenure);
                state.shards[shard].opened = tenure;
                self.judge(state, Rule::OpensAfterAcked, head >= row.acked);
            }
            Move::HandOver { process, shard, to } => {
                let epoch = state.processes[process].tenures[shard].map_or(0, |tenure| tenure.epoch);
                state.processes[process].tenures[shard] = None;
                state.shards[shard].hand_over = Some(HandOver { epoch, to: state.processes[to].session });
            }
            Move::HandOverArrives { shard } => {
                let row = &mut state.shards[shard];
                if let Some(word) = row.hand_over.take()
                    && word.epoch == row.epoch
                    && row.epoch < self.setting.epochs
                {
                    row.epoch += 1;
                    row.owner = word.to;
                }
            }
            Move::HandOverIsLost { shard } => state.shards[shard].hand_over = None,
            Move::Flush { process, shard } => {
                let tenure = state.processes[process].tenures[shard];
                if let Some(flush) = tenure.and_then(|tenure| self.flush_of(state, process, shard, tenure)) {
                    self.flushed(state, shard, flush);
                }
            }
            Move::SendFlush { process, shard } => {
                let tenure = state.processes[process].tenures[shard];
                state.shards[shard].flush =
                    tenure.and_then(|tenure| self.flush_of(state, process, shard, tenure));
            }
            Move::FlushArrives { shard } => {
                if let Some(flush) = state.shards[shard].flush.take() {
                    self.flushed(state, shard, flush);
                }
            }
        }
    }

    fn begun(&self, state: &mut State, process: usize, shards: [bool; SHARDS_MAX]) {
        let is = &mut state.processes[process];
        let mut transaction = Transaction {
            places: [0; SHARDS_MAX],
            epochs: [0; SHARDS_MAX],
            stage: Stage::Open,
            disowned: false,
        };
        let mut collides = false;
        for shard in (0..SHARDS_MAX).filter(|shard| shards[*shard]) {
            let Some(tenure) = is.tenures[shard] else { continue };
            transaction.places[shard] = tenure.head + 1;
            transaction.epochs[shard] = tenure.epoch;
            collides |= state.shards[shard].written > tenure.head;
        }
        if collides && self.has_key() {
            // The primary key refuses it: somebody else's entry, or a lost copy of this one. It reads everything again.
            is.group = None;
            is.tenures = [None; SHARDS_MAX];
            return;
        }
        if is.transactions[0].is_some() {
            is.transactions.swap(0, 1);
        }
        is.transactions[0] = Some(transaction);
        let hung = is.group.map_or(Hung::No, |group| group.hung);
        is.group = Some(Group { shards, step: Step::Asked, written: false, hung });
    }

    fn committed(&self, state: &mut State, process: usize, slot: usize) {
        let Some(transaction) = state.processes[process].transactions[slot].take() else { return };
        for shard in (0..SHARDS_MAX).filter(|shard| transaction.places[*shard] > 0) {
            let row = state.shards[shard];
            let place = transaction.places[shard];
            self.judge(state, Rule::NoFork, place == row.written + 1);
            self.judge(state, Rule::NoWriteAfterSuccessor, transaction.epochs[shard] >= row.opened.epoch);
            state.shards[shard].written = row.written.max(place);
        }
        self.judge(state, Rule::NotExecutedIsTrue, !transaction.disowned);
        let is = &mut state.processes[process];
        let attached = slot == 0 && waits(is);
        if let Some(group) = is.group.as_mut().filter(|_| !transaction.disowned) {
            group.written = true;
            group.step = if attached { Step::Answered } else { group.step };
        }
    }

    fn acknowledged(&self, state: &mut State, process: usize) {
        let Some(group) = state.processes[process].group.take() else { return };
        self.judge(state, Rule::AckedIsWritten, group.written);
        for shard in (0..SHARDS_MAX).filter(|shard| group.shards[*shard]) {
            let Some(tenure) = &mut state.processes[process].tenures[shard] else { continue };
            tenure.head += 1;
            let Tenure { epoch, head } = *tenure;
            let opened = state.shards[shard].opened;
            self.judge(state, Rule::NoAckAfterSuccessor, epoch >= opened.epoch || head <= opened.head);
            state.shards[shard].acked = state.shards[shard].acked.max(head);
        }
    }

    fn settled(&self, state: &mut State, process: usize) {
        let is = &mut state.processes[process];
        let Some(group) = is.group else { return };
        let there = |shard: usize| is.tenures[shard].is_none_or(|tenure| state.shards[shard].written > tenure.head);
        let by_number = (0..SHARDS_MAX).filter(|shard| group.shards[*shard]).all(there);
        if if self.lacks(Without::SettleByNumber) { by_number } else { group.written } {
            self.acknowledged(state, process);
        } else {
            is.group = Some(Group { step: Step::Again, ..group });
        }
    }

    fn flushed(&self, state: &mut State, shard: usize, flush: Flush) {
        let row = state.shards[shard];
        let epoch_holds = flush.epoch == row.epoch || self.lacks(Without::FlushWithoutEpoch);
        let compares = flush.from == row.checkpoint || self.lacks(Without::FlushWithoutCompare);
        if !epoch_holds || !compares {
            return;
        }
        self.judge(state, Rule::NoFlushAfterSuccessor, flush.epoch >= row.opened.epoch);
        self.judge(state, Rule::FlushWithinJournal, flush.to <= row.written);
        self.judge(state, Rule::FlushOnce, flush.from == row.checkpoint && flush.to > row.checkpoint);
        state.shards[shard].checkpoint = flush.to;
    }

    /// The rules about what may stand side by side.
    fn judge_standing(&self, state: &mut State) {
        for shard in 0..self.setting.shards {
            let acked = state.shards[shard].acked;
            let (mut writers, mut stale) = (0, false);
            for process in (0..PROCESSES_MAX).filter(|process| state.lives(*process)) {
                writers += u8::from(state.processes[process].tenures[shard].is_some());
            }
            for process in state.processes.iter().filter(|process| process.life == Life::Running) {
                let Some(tenure) = process.tenures[shard] else { continue };
                let trusted = !state.sessions[process.session as usize].lapsed;
                stale |= (trusted || self.lacks(Without::RefuseWithoutLease)) && tenure.head < acked;
            }
            self.judge(state, Rule::OneWriter, writers <= 1);
            self.judge(state, Rule::RefusesFromTheHead, !stale);
        }
    }
}

/// Does it wait on a connection that holds?
fn waits(process: &Process) -> bool {
    process.group.is_some_and(|group| group.step == Step::Asked)
}

fn lose(process: &mut Process, hung: Hung) {
    let open = process.transactions[0].is_some_and(|open| open.stage == Stage::Open);
    if let Some(group) = &mut process.group
        && matches!(group.step, Step::Asked | Step::Answered)
    {
        group.hung = if open && group.step == Step::Asked { hung } else { group.hung };
        group.step = Step::Unknown;
    }
}

/// Somebody else ends what hung on a connection that broke.
fn helped(process: &mut Process) {
    if let Some(group) = process.group.as_mut().filter(|group| group.hung == Hung::Broke) {
        group.hung = Hung::No;
    }
}

/// What was in memory is gone; what is in the ledger stays there.
fn drop_all(process: &mut Process, life: Life) {
    process.life = life;
    process.tenures = [None; SHARDS_MAX];
    process.peeked = [None; SHARDS_MAX];
    process.group = None;
}

impl Model for Ownership {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.setting.nodes, self.setting.shards)]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if state.broken.is_some() {
            return;
        }
        self.fate(state, moves);
        self.ledger(state, moves);
        self.taking(state, moves);
        for process in (0..self.setting.processes()).filter(|at| state.processes[*at].life == Life::Running) {
            self.own(state, process, moves);
        }
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = *state;
        self.perform(&mut next, step);
        self.judge_standing(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |model: &Ownership, state: &State| {
            let seen = model.seen.load(Ordering::Relaxed);
            let new = Sight::new_in(state, seen);
            if new != 0 {
                model.seen.fetch_or(new, Ordering::Relaxed);
            }
            state.broken.is_none()
        })]
    }
}

impl Told for Ownership {
    fn tell(&self, before: &State, step: &Move, after: &State) -> String {
        step.tell(before, after)
    }

    fn broken(state: &State) -> Option<Rule> {
        state.broken
    }

    fn unseen(&self) -> Vec<&'static str> {
        let seen = self.seen.load(Ordering::Relaxed);
        let due = Sight::ALL.iter().filter(|sight| self.setting.moves || !sight.needs_moves());
        due.filter(|sight| seen & sight.bit() == 0).map(|sight| sight.says()).collect()
    }
}
