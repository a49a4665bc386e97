//! Ten hot products on three nodes, one that comes, one that goes, and any weights, anywhere.

use std::collections::BTreeSet;

use super::super::id::SHARDS;
use super::*;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn members(ids: impl IntoIterator<Item = u128>) -> Vec<Member> {
    let ids: BTreeSet<u128> = ids.into_iter().collect();
    ids.into_iter().map(|id| Member { id: id.to_be_bytes(), leaving: false }).collect()
}

fn unowned(weights: impl Fn(usize) -> u32) -> Vec<ShardNow> {
    (0..usize::from(SHARDS)).map(|shard| ShardNow { owner: None, weight: weights(shard) }).collect()
}

fn made(shards: &mut [ShardNow], moves: &[Move]) {
    for step in moves {
        let shard = &mut shards[usize::from(step.shard)];
        assert_eq!(shard.owner, step.from, "{step:?} is made once, and from where the shard is");
        shard.owner = Some(step.to);
    }
}

/// The moves, made.
fn placed(members: &[Member], shards: &mut [ShardNow]) -> Vec<Move> {
    let moves = moves(members, shards);
    made(shards, &moves);
    moves
}

fn owned(shards: &[ShardNow], member: usize) -> Load {
    let mut load = Load::default();
    shards.iter().filter(|shard| shard.owner == Some(member)).for_each(|shard| load.add(Load::of(shard)));
    load
}

fn heaviest(members: &[Member], shards: &[ShardNow]) -> Load {
    let all = (0..members.len()).map(|member| owned(shards, member));
    all.fold(Load::default(), |most, load| Load {
        weight: most.weight.max(load.weight),
        count: most.count.max(load.count),
    })
}

fn caps(members: usize, shards: &[ShardNow]) -> Load {
    let weight = shards.iter().map(|shard| u64::from(shard.weight)).sum();
    Load { weight: Band::of(weight, members).high, count: Band::of(shards.len() as u64, members).high }
}

#[test]
fn of_ten_hot_products_over_three_nodes_nobody_has_more_than_five() {
    for seed in 0..200_u128 {
        let hot: BTreeSet<usize> =
            (0..10).map(|product| (xxh3_64(&[product, seed as u8]) % u64::from(SHARDS)) as usize).collect();
        let members = members(
            (1..=3).map(|node: u128| node.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ seed),
        );
        let mut shards = unowned(|shard| u32::from(hot.contains(&shard)));
        placed(&members, &mut shards);
        let most = heaviest(&members, &shards);
        assert!(most.weight <= 5, "{most:?} with seed {seed}");
        // And if all of them were on one node when they became hot.
        for shard in shards.iter_mut().filter(|shard| shard.weight > 0) {
            shard.owner = Some((seed % 3) as usize);
        }
        placed(&members, &mut shards);
        assert!(heaviest(&members, &shards).weight <= 5, "with seed {seed}");
    }
}

#[test]
fn what_nobody_serves_goes_first_and_the_heaviest_ahead() {
    let members = members([1, 2, 3]);
    let mut shards = unowned(|_| 0);
    placed(&members, &mut shards);
    for (number, weight) in [(7, 1), (500, 9), (900, 4)] {
        shards[number] = ShardNow { owner: None, weight };
    }
    let mut leaving = members.clone();
    leaving[0].leaving = true;
    let moves = moves(&leaving, &shards);
    let firsts: Vec<u16> = moves.iter().take(3).map(|step| step.shard).collect();
    assert_eq!(firsts, [500, 900, 7]);
    assert!(moves[3..].iter().all(|step| step.from == Some(0)));
}

#[test]
fn what_weighs_more_than_all_else_stays_where_it_is_and_all_else_goes() {
    let members = members([1, 2]);
    let mut shards = unowned(|shard| if shard == 3 { 1_000_000 } else { 1 });
    shards.iter_mut().for_each(|shard| shard.owner = Some(0));
    placed(&members, &mut shards);
    assert_eq!((owned(&shards, 0).count, shards[3].owner), (1, Some(0)));
    assert!(moves(&members, &shards).is_empty());
}

#[test]
fn hot_products_are_spread_and_so_is_what_lies_around_them() {
    for seed in 0..20 {
        let members = members([seed + 1, seed << 40, seed << 90 | 7]);
        let mut shards = unowned(|shard| if shard % 100 == 0 && shard > 0 { 10_000 } else { 10 });
        placed(&members, &mut shards);
        for member in 0..3 {
            let load = owned(&shards, member);
            assert!((3..=4).contains(&(load.weight / 10_000)), "{load:?} with seed {seed}");
            assert!((256..=427).contains(&load.count), "{load:?} with seed {seed}");
        }
    }
}

#[test]
fn nobody_stays_so_nothing_moves() {
    let mut members = members([1, 2]);
    let mut shards = unowned(|_| 1);
    placed(&members, &mut shards);
    members.iter_mut().for_each(|member| member.leaving = true);
    assert!(moves(&members, &shards).is_empty());
    assert!(moves(&[], &unowned(|_| 1)).is_empty());
    // A place that nobody has is nobody's.
    let mut strange = unowned(|_| 1);
    strange[5].owner = Some(9);
    assert!(moves(&members[..0], &strange).is_empty());
}

/// Ids of some nodes.
fn ids(count: std::ops::Range<usize>) -> impl Strategy<Value = BTreeSet<u128>> {
    btree_set(any::<u128>(), count)
}

/// As weights are: most shards are idle, some have a few products, a few are hot.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    let few = prop_oneof![20 => Just(0_u32), 5 => 1..10_u32, 1 => 100..1_000_u32];
    prop_oneof![
        vec(few, usize::from(SHARDS)),
        vec(prop_oneof![50 => Just(0_u32), 1 => Just(1_u32)], usize::from(SHARDS)),
        vec(prop_oneof![0..30_u32, 0..1_000_000_000_u32], usize::from(SHARDS)),
        vec(5..15_u32, usize::from(SHARDS)),
    ]
}

/// Hot or not.
fn hot() -> impl Strategy<Value = Vec<u32>> {
    (0..=1_024_u32).prop_flat_map(|of| {
        vec((0..1_024_u32).prop_map(move |dice| u32::from(dice < of)), usize::from(SHARDS))
    })
}

/// Anybody has anything, or nobody has.
fn anyhow_owned(weights: &[u32], owners: &[Option<usize>], members: usize) -> Vec<ShardNow> {
    let owner = |owner: &Option<usize>| owner.map(|owner| owner % members);
    weights.iter().zip(owners).map(|(weight, of)| ShardNow { owner: owner(of), weight: *weight }).collect()
}

fn owners() -> impl Strategy<Value = Vec<Option<usize>>> {
    prop_oneof![
        vec(proptest::option::of(0..8_usize), usize::from(SHARDS)),
        vec(proptest::option::of(0..2_usize), usize::from(SHARDS)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_shard_has_one_owner_who_stays_and_the_same_question_the_same_answer(
        ids in ids(1..8), weights in weights(), owners in owners(), leaving in any::<u8>(),
    ) {
        let mut members = members(ids);
        // The last one stays.
        for (number, member) in members.iter_mut().rev().enumerate().skip(1) {
            member.leaving = leaving >> number & 1 == 1;
        }
        let mut shards = anyhow_owned(&weights, &owners, members.len());
        let again = moves(&members, &shards);
        let told = placed(&members, &mut shards);
        prop_assert_eq!(&again, &told);
        prop_assert!(shards.iter().all(|shard| shard.owner.is_some_and(|owner| !members[owner].leaving)));
        prop_assert!(told.is_sorted_by_key(|step| step.from.is_some()));
        prop_assert!(moves(&members, &shards).is_empty(), "what was evened out stays as it is");
    }

    #[test]
    fn nobody_has_more_than_a_quarter_above_the_mean_by_either_measure(
        ids in ids(1..8), weights in hot(), owners in owners(),
    ) {
        let members = members(ids);
        let mut shards = anyhow_owned(&weights, &owners, members.len());
        placed(&members, &mut shards);
        let (most, caps) = (heaviest(&members, &shards), caps(members.len(), &shards));
        prop_assert!(most.weight <= caps.weight && most.count <= caps.count, "{:?} of {:?}", most, caps);
    }

    #[test]
    fn weights_that_are_no_more_than_a_quarter_of_the_mean_never_break_the_cap(
        ids in ids(1..8), weights in vec(0..25_u32, usize::from(SHARDS)), owners in owners(),
    ) {
        let members = members(ids);
        let mut shards = anyhow_owned(&weights, &owners, members.len());
        placed(&members, &mut shards);
        prop_assert!(heaviest(&members, &shards).weight <= caps(members.len(), &shards).weight);
    }

    #[test]
    fn who_comes_takes_and_nobody_else_does(ids in ids(2..8), weights in hot()) {
        let all = members(ids);
        for new in [0, all.len() / 2, all.len() - 1] {
            let before: Vec<Member> = all.iter().enumerate().filter(|(at, _)| *at != new).map(|(_, one)| *one).collect();
            let mut shards = unowned(|shard| weights[shard]);
            placed(&before, &mut shards);
            for shard in &mut shards {
                shard.owner = shard.owner.map(|owner| owner + usize::from(owner >= new));
            }
            let told = placed(&all, &mut shards);
            prop_assert!(told.iter().all(|step| step.to == new));
            let (has, total) = (owned(&shards, new), u64::from(SHARDS));
            prop_assert!(has.count >= Band::of(total, all.len()).low, "{:?}", has);
        }
    }

    #[test]
    fn who_goes_leaves_the_others_as_they_are(
        ids in ids(2..8), weights in hot(), weighted in any::<bool>(), dies in any::<bool>(),
    ) {
        let mut members = members(ids);
        let mut shards = unowned(|shard| if weighted { weights[shard] } else { 0 });
        placed(&members, &mut shards);
        let gone = members.len() / 2;
        members[gone].leaving = true;
        if dies {
            shards.iter_mut().filter(|shard| shard.owner == Some(gone)).for_each(|shard| shard.owner = None);
        }
        let had = shards.iter().filter(|shard| shard.owner.is_none_or(|owner| owner == gone)).count();
        let told = placed(&members, &mut shards);
        // Where counts alone matter nothing else moves; where weights do, a shard or two may follow to fill a gap.
        let more = if weighted { members.len() } else { 0 };
        prop_assert!((had..=had + more).contains(&told.len()), "{} of {had}", told.len());
        prop_assert!(told.iter().take(had).all(|step| step.from == (!dies).then_some(gone)));
    }
}
