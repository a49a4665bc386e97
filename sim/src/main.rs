//! `stockade-sim`: plays seeds, prints what was reached, and how to replay what failed; or searches the model.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use stockade::clock::Clock;
use stockade_sim::Broken;
use stockade_sim::campaign::{self, Failure, Total};
use stockade_sim::model::check::Searched;
use stockade_sim::model::without::{Shows, Without};
use stockade_sim::model::{self, Search};
use stockade_sim::scenario::Scenario;
use stockade_sim::tally::sometimes;

/// Most seeds a safeguard taken out may need to be noticed: behind the one at which its hunt begins.
const HUNT_SEEDS: u64 = 500;

/// Deterministic simulation of Stockade's owners: one seed, one history.
#[derive(Debug, Parser)]
#[command(name = "stockade-sim", version)]
struct Options {
    /// How many seeds to play; the regressions come first and are extra.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Nodes that own products: 1, or 2 or 3 over one database.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    owners: u8,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Play this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happens, line by line.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Take a safeguard out, or each of them in turn (`all`), and see that it is noticed.
    #[arg(long, value_name = "NAME|all")]
    broken: Option<String>,
    /// Search the model of many nodes instead: whole (`good`), without a safeguard, or both and each (`all`), or
    /// of these those of the lead and its owners (`lead`).
    #[arg(long, value_name = "NAME|good|lead|all", conflicts_with_all = ["seed", "broken"])]
    model: Option<String>,
    /// Nodes in the whole model: 2, or 3, which takes minutes and three gigabytes.
    #[arg(long, default_value_t = 2, requires = "model", value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
}

fn main() -> ExitCode {
    let options = Options::parse();
    campaign::keep_panics_quiet();
    if let Some(name) = &options.model {
        return verdict(searches(name, options.nodes == 3).map(|searches| search(&searches, options.jobs)));
    }
    verdict(match (&options.broken, options.seed) {
        (Some(name), None) if name == "all" => Ok(hunt(Broken::ALL, &options)),
        (Some(name), seed) => name.parse().map(|broken| match seed {
            Some(seed) => one(seed, options.owners.into(), Some(broken), options.trace),
            None => hunt(&[broken], &options),
        }),
        (None, Some(seed)) => Ok(one(seed, options.owners.into(), None, options.trace)),
        (None, None) => many(&options),
    })
}

fn verdict(outcome: Result<bool, String>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("stockade-sim: {what}");
            ExitCode::from(2)
        }
    }
}

fn print_failure(failure: &Failure, owners: usize, broken: Option<Broken>) {
    let mut switch = broken.map_or(String::new(), |broken| format!(" --broken {}", broken.word()));
    if owners > 1 {
        switch = format!(" --owners {owners}{switch}");
    }
    println!("FAIL seed {}: {}: {}", failure.seed, failure.violation.invariant, failure.violation.what);
    println!("     replay: cargo run --release -p stockade-sim -- --seed {}{switch} --trace", failure.seed);
}

fn one(seed: u64, owners: usize, broken: Option<Broken>, aloud: bool) -> bool {
    if aloud && owners == 1 {
        println!("{:#?}", Scenario::of(seed));
    }
    let played = campaign::play(seed, owners, broken, aloud);
    if let Ok(outcome) = &played {
        println!(
            "seed {seed}: {} events, {} simulated s, {} requests, {} with a certain answer, {} faults, trace {:016x}",
            outcome.events,
            outcome.simulated / 1_000_000,
            outcome.answers.requests,
            outcome.answers.certain_requests,
            outcome.tally.faults_in_all(),
            outcome.trace
        );
    }
    match played.and_then(|outcome| outcome.verdict) {
        Ok(()) => true,
        Err(violation) => {
            print_failure(&Failure { seed, violation }, owners, broken);
            false
        }
    }
}

fn hunt(variants: &[Broken], options: &Options) -> bool {
    let mut all_caught = true;
    for broken in variants {
        let from = options.from.max(broken.shows_from());
        match campaign::hunt(*broken, from, options.seeds.min(HUNT_SEEDS)) {
            Some((seeds, failure)) => {
                let seed = if seeds == 1 { "seed" } else { "seeds" };
                println!("{:<26} caught after {seeds:>3} {seed}", broken.word());
                println!("     {}: {}", failure.violation.invariant, failure.violation.what);
            }
            None => {
                all_caught = false;
                println!("{:<26} NOT CAUGHT in {} seeds", broken.word(), options.seeds.min(HUNT_SEEDS));
            }
        }
    }
    all_caught
}

fn many(options: &Options) -> Result<bool, String> {
    let clock = Clock::start();
    let began = clock.nanos();
    let owners = usize::from(options.owners);
    let mut seeds = campaign::regressions(owners)?;
    let regressions = seeds.len();
    seeds.extend(options.from..options.from.saturating_add(options.seeds));
    let all = seeds.len() as u64;
    let live = std::io::stderr().is_terminal();
    let total = campaign::run(&seeds, owners, options.jobs, |done| {
        if live && (done.is_multiple_of(50) || done == all) {
            eprint!("\r{done} of {all} seeds ");
            let _ = std::io::stderr().flush();
        }
    });
    if live {
        eprintln!();
    }
    let took_ms = (clock.nanos() - began) / 1_000_000;
    summary(&total, regressions, took_ms);
    for failure in &total.failures {
        print_failure(failure, owners, None);
    }
    let missing = total.missing();
    for what in &missing {
        println!("FAIL never reached in {} seeds: {what}", total.seeds);
    }
    let proves_nothing = total.proves_nothing();
    if let Some(why) = &proves_nothing {
        println!("FAIL it proves nothing: {why}");
    }
    Ok(total.failures.is_empty() && missing.is_empty() && proves_nothing.is_none())
}

fn summary(total: &Total, regressions: usize, took_ms: u64) {
    let from = campaign::seeds_to_meet_all(total.owners);
    println!("sometimes, in {} seeds (each must be reached from {from} seeds on):", total.seeds);
    for what in sometimes(total.owners) {
        println!("  {:>9}  {what}", total.tally.reached(what));
    }
    println!("faults:");
    for (kind, count) in &total.tally.faults {
        println!("  {count:>9}  {kind}");
    }
    let per_mille = |part: u64, whole: u64| (part * 1_000).checked_div(whole).unwrap_or(0);
    let answers = total.answers;
    let share = per_mille(answers.certain_requests, answers.requests);
    println!("requests: {}, with a certain answer {}.{} %", answers.requests, share / 10, share % 10);
    let share = per_mille(answers.certain_wishes, answers.wishes);
    println!(
        "wishes: {}, whose owner heard a certain answer in the end {}.{} %",
        answers.wishes,
        share / 10,
        share % 10
    );
    println!("{} seeds run twice", total.twice);
    let factor = (total.simulated_s * 1_000).checked_div(took_ms).unwrap_or(0);
    let hours = total.simulated_s * 10 / 3_600;
    println!(
        "{} seeds ({regressions} regressions), {} events, {} faults, {}.{} simulated hours in {}.{} s: {factor} x real time; {} failed",
        total.seeds,
        total.events,
        total.tally.faults_in_all(),
        hours / 10,
        hours % 10,
        took_ms / 1_000,
        took_ms % 1_000 / 100,
        total.failures.len()
    );
}

fn searches(name: &str, three_nodes: bool) -> Result<Vec<Search>, String> {
    let each = || Without::ALL.iter().map(|without| Search::without(*without));
    Ok(match name {
        "good" => Search::whole(three_nodes),
        "lead" => {
            let of_lead = |search: &Search| matches!(search, Search::Leading(..));
            Search::whole(false).into_iter().chain(each()).filter(of_lead).collect()
        }
        "all" => Search::whole(three_nodes).into_iter().chain(each()).collect(),
        word => vec![Search::without(word.parse()?)],
    })
}

/// Searches the models and says of each what came of it; the story of a broken rule where it is news or was asked for.
fn search(searches: &[Search], jobs: usize) -> bool {
    let clock = Clock::start();
    let (began, mut all_well, mut states) = (clock.nanos(), true, 0);
    let alone = searches.len() == 1;
    model::run(
        searches,
        jobs,
        || clock.nanos(),
        |search, searched, took_ms| {
            states += searched.states;
            let verdict = searched.as_expected(search.safeguard());
            println!("{}{}", if verdict.is_ok() { "" } else { "FAIL " }, search.name());
            let words = verdict.as_ref().err().cloned().unwrap_or_else(|| came_to(search, searched));
            println!("     {words}");
            println!(
                "     {} states, {} steps, depth {}, {}.{} s",
                searched.states,
                searched.steps,
                searched.depth,
                took_ms / 1_000,
                took_ms % 1_000 / 100
            );
            if let Some((rule, story)) = searched.broken.as_ref().filter(|_| alone || verdict.is_err()) {
                for (number, line) in story.iter().enumerate() {
                    println!("     {:>3}. {line}", number + 1);
                }
                println!("          which breaks the rule that {rule}");
            }
            all_well &= verdict.is_ok();
        },
    );
    let took_ms = (clock.nanos() - began) / 1_000_000;
    println!(
        "{} searches, {states} states in {}.{} s",
        searches.len(),
        took_ms / 1_000,
        took_ms % 1_000 / 100
    );
    all_well
}

fn came_to(search: &Search, searched: &Searched) -> String {
    match (search.safeguard().map(Without::shows), &searched.broken) {
        (_, Some((rule, story))) => format!("noticed after {} steps: {rule}", story.len()),
        (Some(Shows::NeverReaches(what)), None) => format!("noticed: never met: {what}"),
        (Some(_), None) => "breaks nothing, as its description says".to_owned(),
        (None, None) => "holds".to_owned(),
    }
}
