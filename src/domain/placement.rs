//! Who owns which shard: bounded-load rendezvous with hysteresis.
//!
//! Where a shard has no owner, the member that ranks highest for it by a hash of both (highest random weight, Thaler and
//! Ravishankar 1998) and has room for it gets it; the heaviest are given first, so that what many ask for is spread. Whoever owns a
//! shard keeps it: one moves only because its owner leaves, has more than a quarter above the mean, or because somebody has less
//! than three quarters of it. What a member has is measured twice, by weight and by count, and weight goes first.
//!
//! Always true of what comes out: the same question has the same answer; a shard that had no owner, or one that leaves, has one that
//! stays; each move between two that stay lessens what lies outside the band, so asking again after they were made yields none.

use std::cmp::{Ordering, Reverse};

use xxhash_rust::xxh3::xxh3_64;

/// So many moves for each shard are far more than evening out takes; what was left then would be evened out by the next question.
const MOVES_A_SHARD: usize = 4;

/// A node that owns shards, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub id: [u8; 16],
    /// It owns nothing in the end.
    pub leaving: bool,
}

/// A shard as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardNow {
    /// Its place among the members; `None`: nobody that lives.
    pub owner: Option<usize>,
    /// What owning it costs. Only its share of the sum counts: a product that is to be spread evenly weighs more than all that are
    /// not together.
    pub weight: u32,
}

/// A shard gets another owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub shard: u16,
    /// Places among the members.
    pub from: Option<usize>,
    pub to: usize,
}

/// What has to move, in the order in which it is to: first what nobody serves, the heaviest ahead; then what leaves with its owner;
/// then what evens out, light ones ahead. Empty if nobody stays. `shards` are in order of their numbers, all of them.
pub fn moves(members: &[Member], shards: &[ShardNow]) -> Vec<Move> {
    let mut plan = Plan::new(members, shards);
    if plan.staying.is_empty() {
        return Vec::new();
    }
    plan.give_homes();
    plan.even_out();
    plan.moves()
}

/// What a member has, or all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Load {
    weight: u64,
    count: u64,
}

/// Within it nobody has to give or to take.
#[derive(Debug, Clone, Copy)]
struct Band {
    /// Three quarters of the mean, the mean, and five quarters; rounded up.
    low: u64,
    mean: u64,
    high: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Weight,
    Count,
}

struct Plan<'a> {
    shards: &'a [ShardNow],
    /// Places of the members that may own, and what they had at the beginning.
    staying: Vec<usize>,
    had: Vec<Load>,
    /// Of each member.
    loads: Vec<Load>,
    /// Of each shard: its owner as planned, and what members rank by, those of one shard side by side.
    owners: Vec<Option<usize>>,
    ranks: Vec<u64>,
    /// Shards in the order in which they were first touched.
    touched: Vec<usize>,
}

impl Load {
    fn of(shard: &ShardNow) -> Load {
        Load { weight: u64::from(shard.weight), count: 1 }
    }

    fn add(&mut self, more: Load) {
        self.weight += more.weight;
        self.count += more.count;
    }

    fn take(&mut self, less: Load) {
        self.weight -= less.weight;
        self.count -= less.count;
    }

    fn by(self, measure: Measure) -> u64 {
        match measure {
            Measure::Weight => self.weight,
            Measure::Count => self.count,
        }
    }
}

impl Band {
    fn of(total: u64, members: usize) -> Band {
        let members = members as u64;
        Band {
            low: (3 * total).div_ceil(4 * members),
            mean: total.div_ceil(members),
            high: (5 * total).div_ceil(4 * members),
        }
    }

    /// How far outside it this is.
    fn miss(self, load: u64) -> u64 {
        self.low.saturating_sub(load) + load.saturating_sub(self.high)
    }

    /// How what lies outside compares with what lay there before, if `amount` goes from one to the other.
    fn change(self, giver: u64, taker: u64, amount: u64) -> Ordering {
        let before = self.miss(giver) + self.miss(taker);
        (self.miss(giver - amount) + self.miss(taker + amount)).cmp(&before)
    }
}

impl Plan<'_> {
    fn new<'a>(members: &[Member], shards: &'a [ShardNow]) -> Plan<'a> {
        let staying = (0..members.len()).filter(|member| !members[*member].leaving).collect();
        let mut loads = vec![Load::default(); members.len()];
        let mut owners = Vec::with_capacity(shards.len());
        let mut ranks = Vec::with_capacity(shards.len() * members.len());
        for (number, shard) in shards.iter().enumerate() {
            let owner = shard.owner.filter(|owner| members.get(*owner).is_some_and(|member| !member.leaving));
            if let Some(owner) = owner {
                loads[owner].add(Load::of(shard));
            }
            owners.push(owner);
            ranks.extend(members.iter().map(|member| rank(member, number)));
        }
        Plan { shards, staying, had: loads.clone(), loads, owners, ranks, touched: Vec::new() }
    }

    /// Every shard that nobody has who stays gets an owner, the heaviest first.
    fn give_homes(&mut self) {
        let mut homeless: Vec<usize> =
            (0..self.shards.len()).filter(|shard| self.owners[*shard].is_none()).collect();
        homeless.sort_by_key(|shard| Reverse(self.shards[*shard].weight));
        let mut given = self.total();
        for shard in homeless {
            let load = Load::of(&self.shards[shard]);
            given.add(load);
            // Measured by what is given so far, so that shards of one weight are spread, whatever is to come after them.
            let to = self.home(shard, load, given);
            self.give(shard, to);
        }
    }

    /// The best of those that need it; else of those with room for it; else whoever has least.
    fn home(&self, shard: usize, load: Load, given: Load) -> usize {
        let (weights, counts) = self.bands(given);
        let choice = |member: &usize| {
            let has = self.loads[*member];
            let is_light = has.weight + load.weight <= weights.high;
            let has_room = is_light && has.count < counts.high;
            let is_poor = (load.weight > 0 && has.weight < weights.low, has.count < counts.low);
            let rank = self.rank(shard, *member);
            match is_light {
                true => (true, has_room, is_poor, Reverse((0, 0)), rank),
                false => (false, false, (false, false), Reverse((has.weight, has.count)), rank),
            }
        };
        self.staying.iter().copied().max_by_key(choice).unwrap_or_default()
    }

    /// Moves one after the other as long as one lessens what lies outside the bands.
    fn even_out(&mut self) {
        let (weights, counts) = self.bands(self.total());
        let next = |plan: &Self| {
            plan.better(Measure::Weight, weights, counts)
                .or_else(|| plan.better(Measure::Count, weights, counts))
        };
        for _ in 0..MOVES_A_SHARD * self.shards.len() {
            let Some((shard, to)) = next(self) else { break };
            self.give(shard, to);
        }
    }

    /// From whoever has most to whoever had least. Of one's shards the lightest goes, since fewest wait for it: where it does not
    /// help a heavier one does not either.
    fn better(&self, measure: Measure, weights: Band, counts: Band) -> Option<(usize, usize)> {
        let lightest = self.lightest(measure);
        let mut givers = self.staying.clone();
        givers.sort_by_key(|member| Reverse(self.loads[*member].by(measure)));
        let mut takers = self.staying.clone();
        let other = if measure == Measure::Weight { Measure::Count } else { Measure::Weight };
        takers.sort_by_key(|member| (self.had[*member].by(measure), self.had[*member].by(other)));
        for giver in givers {
            let Some(weight) = lightest[giver] else { continue };
            let helps = |taker: &&usize| {
                let (gives, takes) = (self.loads[giver], self.loads[**taker]);
                let by_weight = weights.change(gives.weight, takes.weight, weight);
                match measure {
                    // Whoever does not have to give gives nothing heavier than what the other lacks.
                    Measure::Weight => {
                        let lacks = weights.mean.saturating_sub(takes.weight);
                        by_weight.is_lt() && (gives.weight > weights.high || weight <= lacks)
                    }
                    Measure::Count => by_weight.is_le() && counts.change(gives.count, takes.count, 1).is_lt(),
                }
            };
            if let Some(taker) = takers.iter().filter(|taker| **taker != giver).find(helps) {
                let of_that_weight = (0..self.shards.len()).filter(|shard| {
                    self.owners[*shard] == Some(giver) && u64::from(self.shards[*shard].weight) == weight
                });
                let shard = of_that_weight.max_by_key(|shard| self.rank(*shard, *taker))?;
                return Some((shard, *taker));
            }
        }
        None
    }

    /// Of each member the weight of its lightest shard that changes anything by this measure.
    fn lightest(&self, measure: Measure) -> Vec<Option<u64>> {
        let mut lightest: Vec<Option<u64>> = vec![None; self.loads.len()];
        for (shard, owner) in self.shards.iter().zip(&self.owners) {
            let load = Load::of(shard);
            if let Some(owner) = owner.filter(|_| load.by(measure) > 0) {
                let known = lightest[owner].unwrap_or(u64::MAX);
                lightest[owner] = Some(known.min(load.weight));
            }
        }
        lightest
    }

    fn give(&mut self, shard: usize, to: usize) {
        let load = Load::of(&self.shards[shard]);
        if let Some(from) = self.owners[shard].replace(to) {
            self.loads[from].take(load);
        }
        self.loads[to].add(load);
        self.touched.push(shard);
    }

    fn total(&self) -> Load {
        let mut total = Load::default();
        self.loads.iter().for_each(|load| total.add(*load));
        total
    }

    fn bands(&self, total: Load) -> (Band, Band) {
        let members = self.staying.len();
        (Band::of(total.weight, members), Band::of(total.count, members))
    }

    fn rank(&self, shard: usize, member: usize) -> u64 {
        self.ranks[shard * self.loads.len() + member]
    }

    fn moves(self) -> Vec<Move> {
        let members = self.loads.len();
        let mut is_told = vec![false; self.shards.len()];
        let mut moves = Vec::new();
        for shard in self.touched {
            let (from, to) = (self.shards[shard].owner.filter(|from| *from < members), self.owners[shard]);
            if let Some(to) = to.filter(|to| from != Some(*to) && !is_told[shard]) {
                moves.push(Move { shard: shard as u16, from, to });
            }
            is_told[shard] = true;
        }
        // Stable: within each kind they stay in the order in which they were found.
        moves.sort_by_key(|step| step.from.is_some());
        moves
    }
}

/// The higher, the rather this member owns it.
fn rank(member: &Member, shard: usize) -> u64 {
    let mut both = [0; 24];
    both[..16].copy_from_slice(&member.id);
    both[16..].copy_from_slice(&(shard as u64).to_be_bytes());
    xxh3_64(&both)
}

#[cfg(test)]
mod tests;
