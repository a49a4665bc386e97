//! What a run must show beside the verdicts: its workload's thresholds.

use std::collections::BTreeMap;

use crate::answer::Outcome;
use crate::drive::grouped;
use crate::judge::Verdict;
use crate::report::{Latency, Summary};
use crate::workload::Workload;

pub fn verdicts(workload: &Workload, is_harmed: bool, summary: &Summary, answered: &Latency) -> Vec<Verdict> {
    let limits = workload.thresholds;
    let figure = |name: &str, met: bool, detail: String| {
        if met { Verdict::pass(name, detail) } else { Verdict::miss(name, detail) }
    };
    let mut verdicts = Vec::new();
    // A killed server makes buyers wait; how long is not what such a run is about.
    if let Some(limit) = limits.p99_ms.filter(|_| !is_harmed) {
        let p99_ms = answered.p99_us as f64 / 1000.0;
        verdicts.push(figure("p99", p99_ms <= limit, format!("{p99_ms:.2} ms, at most {limit} ms")));
    }
    if let Some(least) = limits.min_acknowledged {
        let acknowledged = summary.outcomes.get(Outcome::Acknowledged.word()).copied().unwrap_or(0);
        let detail = format!("{}, at least {}", grouped(acknowledged), grouped(least));
        verdicts.push(match acknowledged >= least {
            true => Verdict::pass("acknowledged", detail),
            false => Verdict::fail("acknowledged", detail),
        });
    }
    if let Some(least) = limits.min_answers_per_second {
        let detail = format!("{:.0}/s, at least {least:.0}/s", summary.answers_per_s);
        verdicts.push(figure("answers", summary.answers_per_s >= least, detail));
    }
    if let Some(most) = limits.max_unavailable_share {
        let unavailable = Outcome::ALL.iter().filter(|outcome| outcome.is_unavailable());
        let count: u64 = unavailable.filter_map(|outcome| summary.outcomes.get(outcome.word())).sum();
        let share = count as f64 / summary.outcomes.values().sum::<u64>().max(1) as f64;
        let detail = format!("{:.3} % of the answers, at most {:.3} %", share * 100.0, most * 100.0);
        verdicts.push(figure("unavailable", share <= most, detail));
    }
    if !workload.exactly.is_empty() {
        verdicts.push(exactly(&workload.exactly, &summary.outcomes));
    }
    verdicts
}

fn exactly(wanted: &BTreeMap<String, u64>, heard: &BTreeMap<String, u64>) -> Verdict {
    let list = |outcomes: &BTreeMap<String, u64>| {
        let words = outcomes.iter().map(|(word, count)| format!("{word} {}", grouped(*count)));
        words.collect::<Vec<_>>().join(", ")
    };
    match heard == wanted {
        true => Verdict::pass("exactly", format!("{}, and nothing else", list(heard))),
        false => Verdict::fail("exactly", format!("{} instead of {}", list(heard), list(wanted))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;

    #[test]
    fn exactly_is_neither_one_less_nor_something_else_beside_it() {
        let outcomes = |list: &[(&str, u64)]| -> BTreeMap<String, u64> {
            list.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
        };
        let wanted = outcomes(&[("acknowledged", 200), ("sold_out", 200)]);
        let ruled = |heard: &[(&str, u64)]| exactly(&wanted, &outcomes(heard)).ruling;
        assert_eq!(ruled(&[("sold_out", 200), ("acknowledged", 200)]), Ruling::Pass);
        assert_eq!(ruled(&[("acknowledged", 199), ("sold_out", 201)]), Ruling::Fail);
        assert_eq!(ruled(&[("acknowledged", 200), ("sold_out", 200), ("overloaded", 1)]), Ruling::Fail);
        assert_eq!(ruled(&[("acknowledged", 200)]), Ruling::Fail);
    }
}
