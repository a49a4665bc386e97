//! What a step changes, and the rules that it is judged by.

use super::Leading;
use super::state::{Ask, Group, LetGo, Moving, Node, Progress, SHARDS_MAX, Seat, Stage, State, Word};
use super::steps::Move;
use crate::model::rule::Rule;
use crate::model::state::Tenure;
use crate::model::without::Without;

impl Leading {
    pub(super) fn perform(&self, state: &mut State, step: Move) {
        match step {
            Move::Kill { node } => {
                if let Some(group) = &mut state.nodes[node].group {
                    *group = Group { progress: Progress::Undone, place: 0, ..*group };
                }
            }
            Move::Seal { node } => state.nodes[node].seat = Seat::Ended,
            Move::Fence { node } => fenced(state, node),
            Move::TakeLead { node } => {
                let is = &mut state.nodes[node];
                (is.seat, is.stage, is.follows) = (Seat::Lead, Stage::Announcing, node as u8);
                // What it was doing as another's owner has ended: it follows nobody any more.
                if !self.lacks(Without::WordsSideBySide) {
                    let in_hand = state.nodes.iter_mut().map(|lead| &mut lead.words[node]);
                    in_hand.filter(|word| **word > Word::Sent).for_each(|word| *word = Word::None);
                }
            }
            Move::Peek { node } => {
                state.nodes[node].key = state.key_in_journal();
                state.nodes[node].peeked = true;
            }
            Move::Open { node } => {
                let key = state.key_in_journal();
                let is = &mut state.nodes[node];
                is.key = if is.peeked { is.key } else { key };
                (is.stage, is.heard, is.peeked) = (Stage::Open, 0, false);
            }
            Move::SendWord { lead, to } => state.nodes[lead].words[to] = Word::Sent,
            Move::Word { lead, to } => self.word(state, lead, to),
            Move::Ask { lead, to, shard } => {
                state.nodes[lead].ask = Some(Ask { to: to as u8, shard: shard as u8 });
                state.nodes[lead].key = Some(shard as u8);
            }
            Move::AskArrives { lead } => self.asked(state, lead),
            Move::Begin { node, shard, keyed } => self.begun(state, node, shard, keyed),
            Move::Commit { node } => self.committed(state, node),
            Move::Acknowledge { node } => self.acknowledged(state, node),
            Move::AskLetGo { lead, shard, to } => {
                let row = state.shards[shard];
                state.nodes[lead].moving = Some(Moving {
                    shard: shard as u8,
                    from: row.owner,
                    to: to as u8,
                    epoch: row.epoch,
                    let_go: false,
                });
            }
            Move::LetGo { lead } => {
                let Some(moving) = &mut state.nodes[lead].moving else { return };
                moving.let_go = true;
                let Moving { shard, from, epoch, .. } = *moving;
                self.let_go(&mut state.nodes[usize::from(from)], shard.into(), epoch);
            }
            Move::GiveUp { lead } => give_up(&mut state.nodes[lead]),
            Move::LateLetGo { lead } => {
                let Some(LetGo { to, shard, epoch }) = state.nodes[lead].late.take() else { return };
                self.let_go(&mut state.nodes[usize::from(to)], shard.into(), epoch);
            }
            Move::WriteRow { lead } => {
                let Some(moving) = state.nodes[lead].moving.take() else { return };
                self.row(state, moving.shard.into(), moving.to.into());
            }
            Move::GiveAway { shard, to, .. } => self.row(state, shard, to),
            Move::OpenOwn { lead, shard } => {
                let epoch = state.shards[shard].epoch;
                self.open(state, lead, shard, epoch);
            }
            Move::Flush { .. } => state.checkpoint = state.top,
        }
    }

    fn word(&self, state: &mut State, lead: usize, to: usize) {
        let is_lead = state.nodes[lead].seat == Seat::Lead || self.lacks(Without::LeadUnverified);
        let rows: [u8; SHARDS_MAX] = std::array::from_fn(|shard| {
            let row = state.shards[shard];
            if usize::from(row.owner) == to && shard < self.setting.owners.len() { row.epoch } else { 0 }
        });
        let next = match state.nodes[lead].words[to] {
            Word::Sent if !is_lead => Word::None,
            Word::Sent if self.setting.keys => Word::Verified,
            // Without keys it makes no difference whose questions are answered, and without moves nor when rows are read.
            Word::Sent => Word::Looked(rows),
            Word::Verified => Word::Followed,
            Word::Followed => return self.looked(state, lead, to, rows),
            Word::Looked(rows) => return self.looked(state, lead, to, rows),
            Word::None => Word::None,
        };
        state.nodes[lead].words[to] = next;
        if next == Word::Followed {
            state.nodes[to].follows = lead as u8;
        }
    }

    /// It serves what the rows that it has read give it, and says that it has done as it was told.
    fn looked(&self, state: &mut State, lead: usize, to: usize, rows: [u8; SHARDS_MAX]) {
        for (shard, epoch) in rows.into_iter().enumerate().filter(|(_, epoch)| *epoch > 0) {
            let is = &state.nodes[to];
            let new = epoch > is.let_go[shard] || self.lacks(Without::OpenTwice);
            if is.tenures[shard].is_none() && new {
                self.open(state, to, shard, epoch);
            }
        }
        state.nodes[lead].words[to] = Word::None;
        if state.nodes[lead].stage == Stage::Announcing {
            state.nodes[lead].heard |= 1 << to;
        }
    }

    fn open(&self, state: &mut State, node: usize, shard: usize, epoch: u8) {
        let row = &mut state.shards[shard];
        let tenure = Tenure { epoch, head: row.written };
        if epoch >= row.opened.epoch {
            row.opened = tenure;
        }
        let holds = row.written >= row.acked;
        state.nodes[node].tenures[shard] = Some(tenure);
        self.judge(state, Rule::OpensAfterAcked, holds);
    }

    fn let_go(&self, node: &mut Node, shard: usize, epoch: u8) {
        let served = node.tenures[shard].take().map_or(0, |tenure| tenure.epoch);
        let named = if self.lacks(Without::LetGoWithoutEpoch) { served } else { epoch };
        node.let_go[shard] = node.let_go[shard].max(named).max(served);
    }

    fn row(&self, state: &mut State, shard: usize, to: usize) {
        let row = &mut state.shards[shard];
        row.owner = to as u8;
        row.epoch += u8::from(!self.lacks(Without::MoveUnderSameEpoch));
    }

    fn asked(&self, state: &mut State, lead: usize) {
        let Some(Ask { to, shard }) = state.nodes[lead].ask.take() else { return };
        let is = &state.nodes[usize::from(to)];
        let heard = usize::from(is.follows) == lead || self.lacks(Without::OldLeadAnswered);
        let Some(tenure) = is.tenures[usize::from(shard)].filter(|_| heard) else { return };
        if !state.knows_key(shard.into(), tenure.head) {
            state.nodes[usize::from(to)].group = Some(Group {
                shard,
                keyed: true,
                asked_by: Some(lead as u8),
                progress: Progress::Undone,
                place: 0,
                owner: tenure,
            });
        }
    }

    fn begun(&self, state: &mut State, node: usize, shard: usize, keyed: bool) {
        let is = &mut state.nodes[node];
        let Some(tenure) = is.tenures[shard] else { return };
        if state.shards[shard].written > tenure.head {
            // The unique key refuses it.
            (is.group, is.tenures[shard]) = (None, None);
            return;
        }
        let asked_by = is.group.and_then(|group| group.asked_by);
        if keyed && asked_by.is_none() {
            is.key = Some(shard as u8);
        }
        let place = if self.lacks(Without::PlaceOutsideTransaction) {
            state.taken += 1;
            state.taken
        } else {
            state.end + 1
        };
        is.group = Some(Group {
            shard: shard as u8,
            keyed,
            asked_by,
            progress: Progress::InTransaction,
            place,
            owner: tenure,
        });
    }

    fn committed(&self, state: &mut State, node: usize) {
        let Some(group) = &mut state.nodes[node].group else { return };
        group.progress = Progress::Written;
        let Group { shard, keyed, place, owner, .. } = *group;
        let row = state.shards[usize::from(shard)];
        let number = owner.head + 1;
        self.judge(state, Rule::NoFork, number == row.written + 1);
        self.judge(state, Rule::NoWriteAfterSuccessor, owner.epoch >= row.opened.epoch);
        self.judge(state, Rule::PlacesFollow, place == state.end + 1);
        self.judge(state, Rule::FlushSkipsNothing, place > state.checkpoint);
        let elsewhere = state.key_in_journal().is_some();
        self.judge(state, Rule::OneOrderAKey, !(keyed && elsewhere));
        state.end += 1;
        state.top = state.top.max(place);
        let row = &mut state.shards[usize::from(shard)];
        row.written = row.written.max(number);
        row.key_at = if keyed { number } else { row.key_at };
    }

    fn acknowledged(&self, state: &mut State, node: usize) {
        let Some(Group { shard, owner, .. }) = state.nodes[node].group.take() else { return };
        let (shard, number) = (usize::from(shard), owner.head + 1);
        if let Some(tenure) = state.nodes[node].tenures[shard].as_mut().filter(|now| now.epoch == owner.epoch)
        {
            tenure.head = number;
        }
        let opened = state.shards[shard].opened;
        self.judge(state, Rule::NoAckAfterSuccessor, owner.epoch >= opened.epoch || number <= opened.head);
        state.shards[shard].acked = state.shards[shard].acked.max(number);
    }
}

/// What was sent may still arrive.
fn give_up(node: &mut Node) {
    if let Some(Moving { shard, from, epoch, let_go: false, .. }) = node.moving.take() {
        node.late = Some(LetGo { to: from, shard, epoch });
    }
}

/// It drops all it had; what it has sent stays on the wire, and what was sent to it is never heard.
fn fenced(state: &mut State, node: usize) {
    let is = &mut state.nodes[node];
    give_up(is);
    (is.stage, is.heard, is.key, is.peeked) = (Stage::Fenced, 0, None, false);
    (is.tenures, is.let_go, is.group) = ([None; SHARDS_MAX], [0; SHARDS_MAX], None);
    for sender in &mut state.nodes {
        sender.words[node] = Word::None;
        sender.late = sender.late.filter(|late| usize::from(late.to) != node);
        sender.ask = sender.ask.filter(|ask| usize::from(ask.to) != node);
    }
}
