//! What operators are shown and called for: the queries of the dashboards and the rules of the alerts in `deploy/`, taken apart as far
//! as names, labels and words go.
#![allow(dead_code)]

use std::collections::BTreeSet;

use serde_json::Value;

pub const CONFIGURATION: &str = include_str!("../../deploy/prometheus/prometheus.yml");
pub const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
pub const DASHBOARDS: [(&str, &str); 3] = [
    ("sale-night", include_str!("../../deploy/grafana/dashboards/sale-night.json")),
    ("engine-room", include_str!("../../deploy/grafana/dashboards/engine-room.json")),
    ("cluster", include_str!("../../deploy/grafana/dashboards/cluster.json")),
];

/// One expression, and where it stands.
pub struct Query {
    pub place: String,
    pub expression: String,
    /// The labels that are shown or told with its values.
    pub shown: Vec<String>,
}

/// All queries of all dashboards.
pub fn panels() -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(Query {
                    place: format!("{name}: {}", panel["title"].as_str().unwrap()),
                    expression: target["expr"].as_str().unwrap().to_owned(),
                    shown: between(target["legendFormat"].as_str().unwrap(), "{{", "}}"),
                });
            }
        }
    }
    queries
}

/// All rules, as they stand.
pub fn rules() -> Vec<Value> {
    let alerts: Value = serde_saphyr::from_str(ALERTS).unwrap();
    let groups = alerts["groups"].as_array().unwrap().clone();
    groups.into_iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

pub fn name(rule: &Value) -> &str {
    rule["alert"].as_str().unwrap()
}

/// The expressions of all rules.
pub fn watched() -> Vec<Query> {
    let query = |rule: &Value| Query {
        place: name(rule).to_owned(),
        expression: rule["expr"].as_str().unwrap().to_owned(),
        shown: between(&rule["annotations"].to_string(), "$labels.", " "),
    };
    rules().iter().map(query).collect()
}

fn between(text: &str, opens: &str, closes: &str) -> Vec<String> {
    text.split(opens).skip(1).filter_map(|rest| Some(rest.split_once(closes)?.0.trim().to_owned())).collect()
}

/// Something that an expression asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub name: String,
    /// The labels by which it chooses.
    pub labels: BTreeSet<String>,
    /// As it stands, without a range.
    pub text: String,
}

/// Words of the language that may stand before something else than a parenthesis.
const WORDS: [&str; 17] = [
    "sum",
    "count",
    "min",
    "max",
    "avg",
    "topk",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "bool",
    "offset",
];
/// Those that a list of labels follows.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What an expression asks for, and by which labels it puts together what it gets.
pub fn taken_apart(expression: &str) -> (Vec<Selector>, BTreeSet<String>) {
    let (mut selectors, mut grouped) = (Vec::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = rest.split_once(']').unwrap().1;
            continue;
        }
        let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if word.is_empty() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        rest = &rest[word.len()..];
        let next = rest.trim_start();
        if LISTS.contains(&word.as_str()) && next.starts_with('(') {
            let (list, behind) = next[1..].split_once(')').unwrap();
            let labels = list.split(',').map(str::trim).filter(|label| !label.is_empty());
            grouped.extend(labels.map(str::to_owned));
            rest = behind;
        } else if !(next.starts_with('(') || WORDS.contains(&&*word) || first.is_ascii_digit()) {
            let (inside, behind) = match rest.strip_prefix('{') {
                Some(inside) => inside.split_once('}').unwrap(),
                None => ("", rest),
            };
            let matchers = inside.split("\",").filter_map(|matcher| matcher.split_once(['=', '!']));
            let labels = matchers.map(|(label, _)| label.trim().to_owned()).collect();
            let text = if inside.is_empty() { word.clone() } else { format!("{word}{{{inside}}}") };
            selectors.push(Selector { name: word, labels, text });
            rest = behind;
        }
    }
    (selectors, grouped)
}
