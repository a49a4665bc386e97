//! `docker-compose.yml`, read: anchors and merges followed, variables of the environment left as they stand.
#![allow(dead_code)]

use serde_json::Value;

pub const TEXT: &str = include_str!("../../docker-compose.yml");
pub const DOCKERFILE: &str = include_str!("../../Dockerfile");

pub fn compose() -> Value {
    serde_saphyr::from_str(TEXT).unwrap()
}

/// One of the configurations that stand in it, as a container gets it.
pub fn configuration(name: &str) -> String {
    let content = compose()["configs"][name]["content"].as_str().unwrap().to_owned();
    content.replace("$$", "$")
}

/// What a container of the image is asked to know how it is: the command and its arguments.
pub fn image_health_check() -> Vec<String> {
    let (_, said) = DOCKERFILE.split_once("\nHEALTHCHECK ").unwrap();
    let (_, command) = said.split_once("CMD ").unwrap();
    serde_json::from_str(command.lines().next().unwrap()).unwrap()
}

/// How many callers the proxy lets in at once.
pub fn callers_max() -> u64 {
    let words = configuration("proxy");
    let (_, rest) = words.split_once("maxconn ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many of them one of its frontends lets in.
pub fn callers_of(frontend: &str) -> u64 {
    let lines = section(&format!("frontend {frontend}"));
    let most = lines.iter().find_map(|line| line.strip_prefix("maxconn "));
    most.unwrap_or_else(|| panic!("{frontend} may take all of them")).parse().unwrap()
}

/// The lines of one section of the proxy's configuration.
pub fn section(head: &str) -> Vec<String> {
    let words = configuration("proxy");
    let inside = words.lines().skip_while(|line| *line != head).skip(1);
    inside.take_while(|line| line.starts_with(' ')).map(|line| line.trim().to_owned()).collect()
}
