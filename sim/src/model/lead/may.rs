//! What may happen next in a state. A step that the database would refuse or make wait is not offered; a safeguard that is
//! out offers it.

use super::Leading;
use super::state::{Group, Node, Progress, Seat, Stage, State, Word};
use super::steps::Move;
use crate::model::without::Without;

impl Leading {
    pub(super) fn nodes(&self) -> std::ops::Range<usize> {
        0..self.setting.nodes
    }

    /// Deaths, and who leads.
    pub(super) fn sessions(&self, state: &State, moves: &mut Vec<Move>) {
        for node in self.nodes().filter(|node| state.runs(*node)) {
            let is = &state.nodes[node];
            if is.seat == Seat::Ended {
                moves.push(Move::Fence { node });
                continue;
            }
            let watched = self.nodes().any(|by| by != node && state.lives(by) && state.runs(by));
            if watched && state.in_transaction(node) {
                moves.push(Move::Kill { node });
            }
            let locked = state.in_transaction(node) && !self.lacks(Without::GroupUnlocked);
            if watched && !locked {
                moves.push(Move::Seal { node });
            }
        }
        let seat_is_free = self.nodes().all(|node| state.nodes[node].seat != Seat::Lead);
        for node in 1..self.setting.leads {
            let next = &state.nodes[node];
            if next.stage != Stage::Owner || next.seat != Seat::Owner {
                continue;
            }
            if seat_is_free {
                moves.push(Move::TakeLead { node });
            }
            if self.lacks(Without::KeysBeforeSeal) && !next.peeked {
                moves.push(Move::Peek { node });
            }
        }
    }

    /// What a node does as an owner.
    pub(super) fn owning(&self, state: &State, node: usize, moves: &mut Vec<Move>) {
        let is = &state.nodes[node];
        match is.group {
            Some(Group { progress: Progress::InTransaction, .. }) => moves.push(Move::Commit { node }),
            Some(Group { progress: Progress::Written, .. }) => moves.push(Move::Acknowledge { node }),
            Some(Group { progress: Progress::Undone, shard, keyed, .. }) => {
                self.begin(state, node, shard.into(), keyed, moves);
            }
            None => {
                for shard in 0..self.setting.owners.len() {
                    if !self.setting.keys {
                        self.begin(state, node, shard, false, moves);
                    } else if is.stage == Stage::Open
                        && is.key.is_none_or(|known| usize::from(known) == shard)
                    {
                        self.begin(state, node, shard, true, moves);
                    }
                }
            }
        }
    }

    /// The session row is read and locked, the place is taken, and the entry is inserted.
    fn begin(&self, state: &State, node: usize, shard: usize, keyed: bool, moves: &mut Vec<Move>) {
        let Some(tenure) = state.nodes[node].tenures[shard] else { return };
        let place_is_free = self.places_unlocked() || !self.nodes().any(|other| state.in_transaction(other));
        let there_is_room = tenure.head < self.setting.entries && state.taken < 6;
        let known = keyed && state.knows_key(shard, tenure.head);
        if state.lives(node) && place_is_free && there_is_room && !known {
            moves.push(Move::Begin { node, shard, keyed });
        }
    }

    /// What a node does as the lead, or as one that believes to be.
    pub(super) fn leading(&self, state: &State, lead: usize, moves: &mut Vec<Move>) {
        let is = &state.nodes[lead];
        let others = || self.nodes().filter(|to| *to != lead);
        let reaches = |to: &usize| state.runs(*to) && state.lives(*to);
        match is.stage {
            Stage::Announcing => {
                for to in others().filter(reaches) {
                    if is.words[to] == Word::None && is.heard & 1 << to == 0 {
                        moves.push(Move::SendWord { lead, to });
                    }
                }
                let all_heard = others().all(|to| !state.lives(to) || is.heard & 1 << to != 0);
                let answered = !asked_by_another(is, lead) || self.lacks(Without::OwnWithoutWaiting);
                if answered && (all_heard || self.lacks(Without::KeysBeforeWord)) {
                    moves.push(Move::Open { node: lead });
                }
            }
            Stage::Open => {
                if self.setting.moves || self.setting.keys {
                    let quiet = |to: &usize| is.words[*to] == Word::None;
                    moves
                        .extend(others().filter(reaches).filter(quiet).map(|to| Move::SendWord { lead, to }));
                }
                for shard in 0..self.setting.owners.len() {
                    self.placing(state, lead, shard, moves);
                    if self.setting.keys
                        && is.ask.is_none()
                        && is.key.is_none_or(|key| usize::from(key) == shard)
                    {
                        let serves = |to: &usize| state.nodes[*to].tenures[shard].is_some();
                        moves.extend(others().filter(serves).map(|to| Move::Ask { lead, to, shard }));
                    }
                }
                if is.moving.is_some() {
                    moves.push(Move::GiveUp { lead });
                }
                if self.setting.flushes && is.seat == Seat::Lead && state.checkpoint < state.top {
                    moves.push(Move::Flush { lead });
                }
            }
            Stage::Owner | Stage::Fenced => {}
        }
    }

    /// Who owns a shard.
    fn placing(&self, state: &State, lead: usize, shard: usize, moves: &mut Vec<Move>) {
        let (is, row) = (&state.nodes[lead], &state.shards[shard]);
        let writes = is.seat == Seat::Lead || self.lacks(Without::MoveUnfenced);
        let reaches = |to: &usize| state.runs(*to) && state.lives(*to);
        let owner = usize::from(row.owner);
        let more = row.epoch < self.setting.epochs;
        let mine = owner == lead && is.tenures[shard].is_none();
        if mine && (row.epoch > is.let_go[shard] || self.lacks(Without::OpenTwice)) {
            moves.push(Move::OpenOwn { lead, shard });
        }
        let dead = !state.lives(owner) || self.lacks(Without::GiveBeforeSeal) && owner != lead;
        let in_move = is.moving.is_some_and(|moving| usize::from(moving.shard) == shard);
        if more && dead && writes && !in_move {
            moves.extend(self.nodes().filter(reaches).map(|to| Move::GiveAway { lead, shard, to }));
        }
        if !self.setting.moves {
            return;
        }
        match is.moving {
            Some(moving) if usize::from(moving.shard) == shard => {
                let sealed = !state.lives(moving.from.into());
                let may = moving.let_go || sealed || self.lacks(Without::MoveBeforeLetGo);
                if more && may && writes {
                    moves.push(Move::WriteRow { lead });
                }
            }
            Some(_) => {}
            None if more && state.lives(owner) => {
                // To the same one as well: it may have let go of it for a lead that has died since.
                let other = |to: &usize| *to != owner || state.nodes[owner].tenures[shard].is_none();
                let to = self.nodes().filter(reaches).filter(other);
                moves.extend(to.map(|to| Move::AskLetGo { lead, shard, to }));
            }
            None => {}
        }
    }

    /// What was sent by this node arrives, or goes on where it has arrived.
    pub(super) fn wire(&self, state: &State, lead: usize, moves: &mut Vec<Move>) {
        let is = &state.nodes[lead];
        for to in self.nodes().filter(|to| state.runs(*to)) {
            let there = &state.nodes[to];
            let may = match is.words[to] {
                Word::None => false,
                // One word at a time: what was verified of one lead must not be done after another's.
                Word::Sent => {
                    self.lacks(Without::WordsSideBySide)
                        || !self.nodes().any(|by| state.nodes[by].words[to] > Word::Sent)
                }
                Word::Verified | Word::Looked(_) => true,
                Word::Followed => !asked_by_another(there, lead) || self.lacks(Without::LeadWithoutWaiting),
            };
            if may {
                moves.push(Move::Word { lead, to });
            }
        }
        if let Some(ask) = is.ask
            && state.runs(ask.to.into())
            && state.nodes[usize::from(ask.to)].group.is_none()
        {
            moves.push(Move::AskArrives { lead });
        }
        if let Some(moving) = is.moving
            && !moving.let_go
            && self.may_let_go(state, moving.from.into(), moving.shard.into())
        {
            moves.push(Move::LetGo { lead });
        }
        if let Some(late) = is.late
            && self.may_let_go(state, late.to.into(), late.shard.into())
        {
            moves.push(Move::LateLetGo { lead });
        }
    }

    /// Whoever lets go finishes first what is on its way.
    fn may_let_go(&self, state: &State, node: usize, shard: usize) -> bool {
        let is = &state.nodes[node];
        let on_its_way = is.group.is_some_and(|group| usize::from(group.shard) == shard);
        state.runs(node) && (!on_its_way || self.lacks(Without::LetGoUnwritten))
    }
}

/// Has it still to answer what another lead than this one asked?
fn asked_by_another(node: &Node, lead: usize) -> bool {
    node.group.is_some_and(|group| group.asked_by.is_some_and(|by| usize::from(by) != lead))
}
