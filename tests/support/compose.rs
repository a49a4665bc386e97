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
