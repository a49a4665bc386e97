//! Scheduled jobs: each occurrence in its order and once, whatever dies, hangs, fails or is asked for meanwhile; and their doors.

#[path = "jobs/moving.rs"]
mod moving;
#[path = "jobs/nights.rs"]
mod nights;
mod support;

use std::time::Duration;

use jiff::tz::TimeZone;
use moving::{House, Moving, NAME, next_day};
use serde_json::Value;
use stockade::actors::scheduler::{ByHand, Outcome, Unable};
use stockade::domain::calendar::{Calendar, DAY_MS};
use stockade::domain::job::{CATCH_UP_MAX, LEASE_MS};
use stockade::domain::stock::Millis;
use stockade::persistence::Tables;
use support::{Shop, user, wait_for};

const ROWS: u32 = 7;
const JOBS: &str = "/v1/admin/jobs";

#[actix_web::test]
async fn each_occurrence_that_was_missed_is_run_in_its_order() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    assert_eq!(job.runs(), [], "what came before the job was known is no concern of it");

    let first = house.calendar.next_after(house.clock.now());
    house.clock.advance(5 * DAY_MS);
    scheduler.look().await;
    let days: Vec<_> = (0..5).map(|day| first.plus(day * DAY_MS)).collect();
    assert_eq!(job.runs(), days);
    job.assert_moved_once_by_each(&days);
    scheduler.look().await;
    assert_eq!(job.runs().len(), 5);

    let sight = scheduler.job(NAME).await.unwrap();
    let last = sight.last.unwrap();
    assert_eq!((last.scheduled, last.outcome, last.by_hand), (days[4], Outcome::Done, false));
    assert_eq!((last.tally.seen, last.tally.moved, last.tally.failed), (u64::from(ROWS), u64::from(ROWS), 0));
    assert_eq!((sight.next, sight.running), (Some(days[4].plus(DAY_MS)), None));
    scheduler.stop().await;
}

#[actix_web::test]
async fn of_a_long_absence_the_latest_days_are_made_up_for_and_the_rest_is_told() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(1);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    house.clock.advance(100 * DAY_MS);
    scheduler.look().await;
    assert_eq!(job.runs().len(), CATCH_UP_MAX);
    assert_eq!(job.runs().last(), Some(&house.calendar.start_of(house.clock.now())));
    let told = scheduler.job(NAME).await.unwrap().last.unwrap().tally;
    assert!(told.problems[0].contains("left out") && told.failed == 0, "{told:?}");
    next_day(&house, &scheduler).await;
    assert_eq!(scheduler.job(NAME).await.unwrap().last.unwrap().tally.problems, [""; 0]);
    scheduler.stop().await;
}

#[actix_web::test]
async fn a_restart_knows_what_was_done() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    for day in 1..=3 {
        let scheduler = house.scheduler(&[&job]).await;
        scheduler.look().await;
        next_day(&house, &scheduler).await;
        assert_eq!(job.runs().len(), day);
        scheduler.stop().await;
    }
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    assert_eq!(job.runs().len(), 3);
    scheduler.stop().await;
}

#[actix_web::test]
async fn days_of_23_and_25_hours_are_days() {
    let calendar = Calendar::civil(TimeZone::get("Europe/Berlin").unwrap());
    for (from, midnights) in [
        ("2032-03-27T12:00:00Z", ["2032-03-27T23:00:00Z", "2032-03-28T22:00:00Z", "2032-03-29T22:00:00Z"]),
        ("2032-10-30T12:00:00Z", ["2032-10-30T22:00:00Z", "2032-10-31T23:00:00Z", "2032-11-01T23:00:00Z"]),
    ] {
        let house = House::open(calendar.clone()).await;
        house.clock.advance(at(from).0 - house.clock.now().0);
        let job = Moving::of(1);
        let scheduler = house.scheduler(&[&job]).await;
        scheduler.look().await;
        for midnight in midnights {
            house.clock.advance(at(midnight).0 - house.clock.now().0 - 5_000);
            scheduler.look().await;
            assert_ne!(job.runs().last(), Some(&at(midnight)));
            house.clock.advance(5_000);
            scheduler.look().await;
            assert_eq!(job.runs().last(), Some(&at(midnight)));
        }
        assert_eq!(job.runs().len(), 3);
        scheduler.stop().await;
    }
}

fn at(word: &str) -> Millis {
    Millis(word.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

#[actix_web::test]
async fn of_two_runs_at_once_there_is_one() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    // Two processes, as far as the rows know.
    let (here, there) = (house.scheduler(&[&job]).await, house.scheduler(&[&job]).await);
    tokio::join!(here.look(), there.look());
    job.stop_before(3);
    house.clock.advance(DAY_MS);
    let looked = tokio::spawn({
        let (here, there) = (here.clone(), there.clone());
        async move { tokio::join!(here.look(), there.look()) }
    });
    job.until_stopped().await;
    assert_eq!(job.runs().len(), 1);
    for scheduler in [&here, &there] {
        assert!(scheduler.job(NAME).await.unwrap().running.is_some());
        assert_eq!(scheduler.run(user(0), NAME, false).await, Err(Unable::Running));
    }
    job.go_on();
    looked.await.unwrap();
    tokio::join!(here.look(), there.look());
    assert_eq!(job.runs().len(), 1);
    job.assert_moved_once_by_each(&job.runs());
    tokio::join!(here.stop(), there.stop());
}

#[actix_web::test]
async fn a_hundred_who_ask_at_once_have_it_run_by_one() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    job.stop_before(3);
    let asking = (0..100).map(|_| scheduler.run(user(0), NAME, false));
    let asked = futures_util::future::join_all(asking);
    let (asked, ()) = tokio::join!(asked, async {
        job.until_stopped().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        job.go_on();
    });
    let ran = asked.iter().filter(|answer| matches!(answer, Ok(ByHand::Ended(_)))).count();
    let refused = asked.iter().filter(|answer| **answer == Err(Unable::Running)).count();
    assert_eq!((ran, refused, job.runs().len()), (1, 99, 1));
    scheduler.stop().await;
}

#[actix_web::test]
async fn what_died_in_the_middle_is_run_again_and_moves_nothing_twice() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    job.stop_before(3);
    house.clock.advance(2 * DAY_MS);
    let looked = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.look().await }
    });
    job.until_stopped().await;
    scheduler.abandon().await;
    looked.await.unwrap();
    assert_eq!((job.runs().len(), job.dropped()), (1, 1));

    job.never_stop();
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    assert_eq!(job.runs().len(), 1, "it might still be alive");
    house.clock.advance(LEASE_MS);
    scheduler.look().await;
    let runs = job.runs();
    assert_eq!((runs.len(), runs[0]), (3, runs[1]), "the same occurrence again, and then the next");
    job.assert_moved_once_by_each(&runs[1..]);
    scheduler.stop().await;
}

#[actix_web::test]
async fn a_run_that_lost_its_lease_stops_where_it_is() {
    let house = House::open(Calendar::utc()).await;
    // Both move the same rows; the first one hangs.
    let hung = Moving::of(ROWS);
    let other = hung.twin();
    let here = house.scheduler(&[&hung]).await;
    here.look().await;
    hung.stop_before(3);
    house.clock.advance(DAY_MS);
    tokio::spawn({
        let here = here.clone();
        async move { here.look().await }
    });
    hung.until_stopped().await;
    let there = house.scheduler(&[&other]).await;
    there.look().await;
    assert_eq!(other.runs(), []);
    // It sleeps for so long that it is believed dead.
    house.clock.advance(LEASE_MS);
    there.look().await;
    assert_eq!(other.runs(), hung.runs());
    wait_for(|| (hung.dropped() == 1).then_some(())).await;
    hung.assert_moved_once_by_each(&other.runs());
    let last = there.job(NAME).await.unwrap().last.unwrap();
    assert_eq!((last.outcome, last.tally.moved), (Outcome::Done, u64::from(ROWS) - 2));
    tokio::join!(here.stop(), there.stop());
}

/// Less than the second after which something is run again: the clock goes on while a test does.
const NOT_YET_NS: u64 = 900_000_000;
/// How often a story is told on a machine that is too slow for it.
const TOLD_AT_MOST: usize = 10;

/// What was run may have been due by real time: nothing follows from it.
struct TooSlow;

/// There were as many runs as wanted, or so much time went by that there may well have been more.
fn counted<const N: usize>(
    house: &House,
    since: u64,
    runs: [usize; N],
    wanted: [usize; N],
) -> Result<(), TooSlow> {
    if runs != wanted && house.clock.nanos() - since >= NOT_YET_NS {
        return Err(TooSlow);
    }
    assert_eq!(runs, wanted);
    Ok(())
}

#[actix_web::test]
async fn a_poisoned_row_is_reported_and_tried_again_and_holds_up_no_other() {
    for _ in 0..TOLD_AT_MOST {
        if poisoned_row().await.is_ok() {
            return;
        }
    }
    panic!("too slow each time");
}

async fn poisoned_row() -> Result<(), TooSlow> {
    let house = House::open(Calendar::utc()).await;
    // No midnight comes by itself.
    house.clock.advance(at("2032-03-27T12:00:00Z").0 - house.clock.now().0);
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    // Nothing is run but by a look from here.
    scheduler.pause();
    job.poison(4);
    let since = house.clock.nanos();
    next_day(&house, &scheduler).await;
    counted(&house, since, [job.runs().len()], [1])?;
    let last = scheduler.job(NAME).await.unwrap().last.unwrap();
    assert_eq!((last.outcome, last.tally.moved, last.tally.failed), (Outcome::Done, u64::from(ROWS) - 1, 1));
    assert_eq!(last.tally.problems, ["row 4 is damaged"]);
    // The pause grows: one second, two seconds.
    let since = house.clock.nanos();
    let mut after_each = [0; 2];
    for runs in &mut after_each {
        house.clock.advance(1_000);
        scheduler.look().await;
        *runs = job.runs().len();
    }
    counted(&house, since, after_each, [2, 2])?;
    job.cure();
    house.clock.advance(1_000);
    scheduler.look().await;
    let runs = job.runs();
    assert_eq!(runs, [runs[0]; 3], "all for one day");
    job.assert_moved_once_by_each(&runs[..1]);
    house.clock.advance(1_000_000);
    scheduler.look().await;
    assert_eq!(job.runs().len(), 3);
    scheduler.stop().await;
    Ok(())
}

/// One leads and then another: what that one has left behind is done here, though it was looked at here before.
#[actix_web::test]
async fn what_another_node_left_behind_is_tried_again() {
    let house = House::open(Calendar::utc()).await;
    house.clock.advance(at("2032-03-27T12:00:00Z").0 - house.clock.now().0);
    let job = Moving::of(ROWS);
    let other = job.twin();
    let here = house.scheduler(&[&job]).await;
    here.look().await;
    here.pause();
    let there = house.scheduler(&[&other]).await;
    other.poison(4);
    next_day(&house, &there).await;
    assert_eq!(there.job(NAME).await.unwrap().last.unwrap().tally.failed, 1);
    there.stop().await;
    here.look().await;
    assert_eq!(job.runs(), other.runs()[..1]);
    job.assert_moved_once_by_each(&job.runs());
    here.stop().await;
}

#[actix_web::test]
async fn a_job_that_panics_or_fails_is_run_again_and_stops_nobody_else() {
    for _ in 0..TOLD_AT_MOST {
        if panics_and_fails().await.is_ok() {
            return;
        }
    }
    panic!("too slow each time");
}

async fn panics_and_fails() -> Result<(), TooSlow> {
    let house = House::open(Calendar::utc()).await;
    let (panics, fails, well) = (Moving::named("panics", 1), Moving::named("fails", 1), Moving::of(1));
    let scheduler = house.scheduler(&[&panics, &fails, &well]).await;
    scheduler.look().await;
    scheduler.pause();
    panics.panic(true);
    fails.fail(true);
    let since = house.clock.nanos();
    house.clock.advance(2 * DAY_MS);
    scheduler.look().await;
    counted(&house, since, [panics.runs().len(), fails.runs().len(), well.runs().len()], [1, 1, 2])?;
    for (name, words) in [("panics", "it panicked"), ("fails", "the sky fell")] {
        let sight = scheduler.job(name).await.unwrap();
        let last = sight.last.unwrap();
        assert_eq!(last.outcome, Outcome::Failed);
        assert!(last.tally.problems[0].starts_with(words), "{last:?}");
        assert_eq!(sight.next, Some(last.scheduled), "it is behind");
    }
    panics.panic(false);
    fails.fail(false);
    house.clock.advance(1_000);
    scheduler.look().await;
    for job in [&panics, &fails] {
        let runs = job.runs();
        assert_eq!((runs.len(), runs[0]), (3, runs[1]));
        job.assert_moved_once_by_each(&runs[1..]);
    }
    scheduler.stop().await;
    Ok(())
}

#[actix_web::test]
async fn by_hand_a_row_goes_no_further_than_its_days_allow() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    next_day(&house, &scheduler).await;
    for _ in 0..3 {
        let ByHand::Ended(ran) = scheduler.run(user(0), NAME, false).await.unwrap() else { panic!() };
        assert_eq!((ran.scheduled, ran.by_hand, ran.tally.moved), (job.runs()[0], true, 0));
    }
    job.assert_moved_once_by_each(&job.runs()[..1]);
    assert_eq!(scheduler.run(user(0), "nothing", false).await, Err(Unable::NoJob));
    scheduler.stop().await;
}

#[actix_web::test]
async fn a_dry_run_moves_nothing() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    house.clock.advance(DAY_MS);
    let ByHand::Ended(ran) = scheduler.run(user(0), NAME, true).await.unwrap() else { panic!() };
    assert_eq!(ran.tally.moved, u64::from(ROWS));
    // The run that is due may have been made by itself by now, and then it has moved everything once.
    let last = scheduler.job(NAME).await.unwrap().last;
    assert!(last.is_none_or(|ran| !ran.by_hand));
    scheduler.look().await;
    job.assert_moved_once_by_each(&[ran.scheduled]);
    scheduler.stop().await;
}

#[actix_web::test]
async fn an_end_waits_for_a_run_that_is_nearly_done() {
    let house = House::open(Calendar::utc()).await;
    let job = Moving::of(ROWS);
    let scheduler = house.scheduler(&[&job]).await;
    scheduler.look().await;
    job.stop_before(3);
    house.clock.advance(DAY_MS);
    tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.look().await }
    });
    job.until_stopped().await;
    tokio::join!(scheduler.stop(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        job.go_on();
    });
    assert_eq!(job.dropped(), 0);
    job.assert_moved_once_by_each(&job.runs());
}

async fn jobs(shop: &Shop) -> Vec<Value> {
    shop.admin("GET", JOBS).send().await.ok(200)["data"].as_array().unwrap().clone()
}

async fn clearing(shop: &Shop) -> Value {
    jobs(shop).await.into_iter().find(|job| job["name"] == "clearing").unwrap()
}

#[actix_web::test]
async fn an_administrator_sees_the_jobs_and_runs_them() {
    let shop = Shop::open().await;
    shop.app().scheduler().look().await;
    let job = clearing(&shop).await;
    assert_eq!((&job["schedule"], &job["running"]), (&"30 3 * * *".into(), &false.into()));
    assert!(job["last_run"].is_null() && job["running_since"].is_null());
    assert!(job["next_at"].as_str().unwrap().ends_with("T03:30:00.000Z"));

    let path = format!("{JOBS}/clearing/run");
    let dry = shop.admin("POST", &format!("{path}?dry_run=true")).send().await.ok(200);
    assert_eq!(
        (&dry["dry_run"], &dry["by_hand"], &dry["outcome"]),
        (&true.into(), &true.into(), &"done".into())
    );
    assert!(clearing(&shop).await["last_run"].is_null());
    let ran = shop.admin("POST", &path).send().await.ok(200);
    assert_eq!(
        (&ran["dry_run"], &ran["failed"], &ran["problems"]),
        (&false.into(), &0.into(), &Value::Array(vec![]))
    );
    assert!(ran["scheduled_at"].as_str().unwrap().ends_with("T03:30:00.000Z"));
    assert_eq!(clearing(&shop).await["last_run"], ran);

    shop.admin("POST", &format!("{JOBS}/sweeping/run")).send().await.problem(404, "not_found");
    assert_eq!(shop.admin("POST", &format!("{path}?dry_run=maybe")).send().await.invalid(), "?dry_run");
    shop.by(1, "POST", &path).send().await.problem(403, "forbidden");

    let trail = Tables::read_only(shop.folder()).trail().before(i64::MAX, 10).await.unwrap();
    let told: Vec<_> = trail.iter().filter(|entry| entry.kind == "job_run").collect();
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].detail.as_str(), &told[0].actor), ("job=clearing dry_run=no", &user(0).to_string()));

    let metrics = shop.get("/metrics").send().await.text;
    for line in [
        r#"stockade_job_last_ok{name="clearing"} 1"#,
        r#"stockade_job_runs_total{name="clearing",outcome="failed"} 0"#,
        r#"stockade_job_seconds_count{name="clearing"}"#,
        r#"stockade_job_next_timestamp_seconds{name="clearing"}"#,
        r#"stockade_job_rows_moved_total{name="clearing"}"#,
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    shop.close().await;
}
