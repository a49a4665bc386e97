//! What a step changes, and the rules that it is judged by.

use super::super::moves::Move;
use super::super::rule::Rule;
use super::super::state::{
    Alive, Flush, Group, HandOver, Hung, Life, Process, SHARDS_MAX, Stage, State, Step, Tenure, Transaction,
};
use super::super::without::Without;
use super::{Ownership, waits};

impl Ownership {
    pub(super) fn perform(&self, state: &mut State, step: Move) {
        match step {
            Move::Start { process, node } => {
                let same = self.lacks(Without::SameIdAfterRestart);
                let session = if same { state.processes[node].session } else { process as u8 };
                state.processes[process].life = Life::Running;
                state.processes[process].session = session;
                let row = &mut state.sessions[session as usize];
                (row.alive, row.lapsed) = (Alive::Live, false);
            }
            Move::Fence { process } => {
                let is = &mut state.processes[process];
                is.life = Life::Fenced;
                is.tenures = [None; SHARDS_MAX];
                is.peeked = [None; SHARDS_MAX];
                is.group = None;
            }
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
            Move::Beat { process } => {
                state.sessions[state.processes[process].session as usize].lapsed = false
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
                state.sessions[session].lapsed = true;
                if !self.lacks(Without::NoKill) {
                    cut(state, session);
                }
            }
            Move::Mark { session, .. } => state.sessions[session].alive = Alive::Dead,
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
        let there =
            |shard: usize| is.tenures[shard].is_none_or(|tenure| state.shards[shard].written > tenure.head);
        let by_number = (0..SHARDS_MAX).filter(|shard| group.shards[*shard]).all(there);
        let written = if self.lacks(Without::SettleByNumber) { by_number } else { group.written };
        if written {
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

/// All connections of a session are killed: open transactions are undone, and who waited for them knows nothing.
fn cut(state: &mut State, session: usize) {
    for process in state.processes.iter_mut().filter(|process| usize::from(process.session) == session) {
        helped(process);
        if waits(process) && process.transactions[0].is_some_and(|open| open.stage == Stage::Open) {
            lose(process, Hung::Cut);
        }
        let slots = process.transactions.iter_mut();
        slots.for_each(|slot| *slot = slot.filter(|lost| lost.stage != Stage::Open));
    }
}
