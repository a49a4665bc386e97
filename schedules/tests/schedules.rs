//! Each scene in many thousands of schedules, drawn at random; and without a safeguard, where some schedule must show it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::{check_pct, check_random};
use stockade_schedules::keys::Meanwhile;
use stockade_schedules::{Without, keys, views};

/// Schedules of a scene, a third of them with few preemptions; `STOCKADE_SCHEDULES` says how many instead.
fn many() -> usize {
    std::env::var("STOCKADE_SCHEDULES").ok().and_then(|many| many.parse().ok()).unwrap_or(12_000)
}

fn holds(scene: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(scene.clone(), many() / 3 * 2);
    check_pct(scene, many() / 3, 3);
}

fn fails(scene: impl Fn() + Send + Sync + Clone + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| holds(scene)));
    assert!(found.is_err(), "in no schedule anything was noticed");
}

#[test]
fn nobody_is_refused_a_unit_that_has_come_back() {
    holds(|| views::a_unit_comes_back(Without::Nothing));
}

#[test]
fn without_saying_that_units_return_somebody_is() {
    fails(|| views::a_unit_comes_back(Without::SayingThatUnitsReturn));
}

#[test]
fn without_showing_them_first_somebody_is() {
    fails(|| views::a_unit_comes_back(Without::ShowingFirst));
}

#[test]
fn who_has_bought_is_told_of_his_limit() {
    holds(|| views::a_buyer_comes_again(Without::Nothing));
}

#[test]
fn without_noting_him_first_he_is_told_that_it_is_sold_out() {
    fails(|| views::a_buyer_comes_again(Without::NotingBuyersFirst));
}

#[test]
fn no_question_is_lost_when_an_owner_goes() {
    holds(|| views::an_owner_goes_while_it_is_asked(Without::Nothing));
}

#[test]
fn without_looking_before_it_closes_one_is() {
    fails(|| views::an_owner_goes_while_it_is_asked(Without::LookingBeforeClosing));
}

#[test]
fn one_key_makes_one_order() {
    holds(|| keys::one_key_makes_one_order(Meanwhile::Nothing, true));
}

#[test]
fn nor_does_it_make_two_while_it_becomes_old() {
    holds(|| keys::one_key_makes_one_order(Meanwhile::Ages, true));
}

#[test]
fn nor_while_what_it_was_used_for_before_is_learned_again() {
    holds(|| keys::one_key_makes_one_order(Meanwhile::IsLearned, true));
}

#[test]
fn asked_about_before_it_is_claimed_it_makes_two() {
    fails(|| keys::one_key_makes_one_order(Meanwhile::Nothing, false));
}
