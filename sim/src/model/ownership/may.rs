//! What may happen next in a state: fate, the ledger, takers, and each process for itself.
//!
//! A step that the ledger would refuse or make wait is not offered; a safeguard that is out offers it.

use super::super::moves::Move;
use super::super::state::{Alive, Flush, Group, Life, SHARDS_MAX, Stage, State, Step, Tenure, Transaction};
use super::super::without::Without;
use super::{Ownership, waits};

impl Ownership {
    pub(super) fn fate(&self, state: &State, moves: &mut Vec<Move>) {
        let running = |process: &usize| state.processes[*process].life == Life::Running;
        for process in (0..self.setting.processes()).filter(running) {
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
    }

    pub(super) fn ledger(&self, state: &State, moves: &mut Vec<Move>) {
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
    pub(super) fn taking(&self, state: &State, moves: &mut Vec<Move>) {
        for (session, row) in state.sessions.iter().enumerate().filter(|(_, row)| row.alive == Alive::Live) {
            let other = |by: &usize| state.lives(*by) && usize::from(state.processes[*by].session) != session;
            let Some(by) = (0..self.setting.processes()).find(other) else { continue };
            if !row.lapsed || state.has_open(session as u8) && !self.lacks(Without::NoKill) {
                moves.push(Move::Kill { by, session });
            }
            if row.lapsed && !(self.locks_row() && state.row_is_locked(session as u8)) {
                moves.push(Move::Mark { by, session });
            }
        }
    }

    pub(super) fn own(&self, state: &State, process: usize, moves: &mut Vec<Move>) {
        let is = &state.processes[process];
        let session = state.session_of(process);
        if session.alive == Alive::Dead {
            moves.push(Move::Fence { process });
        } else if session.lapsed {
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
        let may_read =
            if self.settles_unlocked() { !(kills && open) } else { !state.row_is_locked(is.session) };
        let lives = state.session_of(process).alive == Alive::Live || self.lacks(Without::SettleByNumber);
        if may_read && lives {
            moves.push(Move::Settle { process });
        }
    }

    fn shard(&self, state: &State, process: usize, shard: usize, moves: &mut Vec<Move>) {
        let (is, row) = (&state.processes[process], &state.shards[shard]);
        let Some(tenure) = is.tenures[shard] else {
            if state.session_of(process).alive != Alive::Live && !self.lacks(Without::RaiseWhileDead) {
                return;
            }
            let mine = row.owner == is.session;
            let opened = row.opened.epoch == row.epoch;
            // The first owner of a shard has its number.
            let remembered = self.lacks(Without::RaiseWithoutCompare) && !mine;
            let owner = if remembered { shard } else { row.owner as usize };
            let orphaned = state.sessions[owner].alive == Alive::Dead;
            let again = mine && opened && !self.lacks(Without::ReopenSameEpoch);
            if (orphaned || again) && row.epoch < self.setting.epochs {
                moves.push(Move::Raise { process, shard });
            }
            let early = self.lacks(Without::ReadBeforeSeal) && !mine;
            if early && is.peeked[shard].is_none() {
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
            // At once is the same as sent and arrived, unless another is on its way.
            moves.push(match row.flush {
                None => Move::SendFlush { process, shard },
                Some(_) => Move::Flush { process, shard },
            });
        }
    }

    /// What this owner would flush now: what it knows to be written and has not been carried yet.
    pub(super) fn flush_of(
        &self,
        state: &State,
        process: usize,
        shard: usize,
        tenure: Tenure,
    ) -> Option<Flush> {
        let decided = state.processes[process].group.is_some_and(|group| group.shards[shard]);
        let ahead = u8::from(decided && self.lacks(Without::FlushUnwritten));
        let (from, to) = (state.shards[shard].checkpoint, tenure.head + ahead);
        (from < to).then_some(Flush { epoch: tenure.epoch, from, to })
    }
}
