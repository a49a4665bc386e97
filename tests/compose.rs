//! What `docker-compose.yml` says of the shop is true: its settings exist and are enough to start with, its secrets are nobody's, its
//! services are confined and say how they are, and whoever must know the nodes knows all of them.

#[path = "support/compose.rs"]
mod file;
#[path = "support/rights.rs"]
mod rights;

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;
use file::{DOCKERFILE, TEXT, callers_max, callers_of, compose, configuration, image_health_check, section};
use serde_json::{Map, Value};
use stockade::cli::Cli;
use stockade::config::{Config, Layers, Profile, SETTINGS};
use stockade::http::Code;

fn services() -> Map<String, Value> {
    compose()["services"].as_object().unwrap().clone()
}

/// The two that share a database.
fn nodes() -> Vec<String> {
    services().keys().filter(|name| name.starts_with("node-")).cloned().collect()
}

fn environment(service: &Value) -> Vec<(String, String)> {
    let Some(all) = service["environment"].as_object() else { return Vec::new() };
    let said = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    all.iter().map(|(name, value)| (name.clone(), said(value))).collect()
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
}

/// Every `${NAME…}`, without its brackets. `$$` is a dollar sign.
fn variables(text: &str) -> Vec<&str> {
    let dollars = text.match_indices("${").filter(|(at, _)| !text[..*at].ends_with('$'));
    dollars.filter_map(|(at, _)| text[at + 2..].split_once('}').map(|(inside, _)| inside)).collect()
}

/// What Docker would make of a value, each secret another one that stands nowhere.
fn filled(value: &str) -> String {
    let mut value = value.to_owned();
    while let Some(variable) = variables(&value).first().map(|inside| format!("${{{inside}}}")) {
        let half = |end: &str| {
            format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{variable}{end}").as_bytes()))
        };
        value = value.replace(&variable, &(half("left") + &half("right")));
    }
    value
}

#[test]
fn every_setting_exists_and_together_they_are_a_shop_in_production() {
    for (name, service) in services() {
        let ours: Vec<_> =
            environment(&service).into_iter().filter(|(name, _)| name.starts_with("STOCKADE_")).collect();
        for (variable, _) in &ours {
            assert!(SETTINGS.iter().any(|setting| setting.variable() == *variable), "{name}: {variable}");
        }
        if ours.is_empty() {
            continue;
        }
        let filled = ours.into_iter().map(|(variable, value)| (variable, filled(&value)));
        let config = Layers::of(None, filled, []).and_then(|layers| Config::read(&layers));
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.profile, Profile::Production);
        let is_many = nodes().contains(&name) || name == "migrate";
        assert_eq!(config.store.database_url.is_some(), is_many, "{name}");
    }
    assert_eq!(nodes().len(), 2);
}

#[test]
fn no_secret_has_a_default() {
    for inside in variables(TEXT) {
        let (name, hint) = inside.split_once(":?").unwrap_or_else(|| panic!("{inside} may be left out"));
        assert!(!hint.is_empty(), "{name}: nobody is told how to make one");
    }
    let secret = |name: &str| {
        let ours = SETTINGS.iter().any(|setting| setting.secret && setting.variable() == name);
        ours || ["PASSWORD", "SECRET", "KEY", "TOKEN"].iter().any(|word| name.contains(word))
    };
    for (service, said) in services() {
        for (name, value) in environment(&said) {
            let login = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
            let address = value.contains("://") && !login;
            if login || secret(&name) && !address {
                assert_eq!(variables(&value).len(), 1, "{service}: {name} stands there for everybody");
            }
        }
    }
}

#[test]
fn every_service_says_how_it_is_and_waits_for_those_that_do() {
    let services = services();
    for (name, service) in &services {
        let says = !service["healthcheck"]["test"].is_null();
        assert!(
            says || service["image"] == "localhost/stockade" && DOCKERFILE.contains("\nHEALTHCHECK "),
            "{name}"
        );
        let Some(others) = service["depends_on"].as_object() else {
            assert!(words(&service["depends_on"]).iter().all(|other| services.contains_key(other)), "{name}");
            continue;
        };
        for (other, how) in others {
            if how["condition"] == "service_completed_successfully" {
                assert!(services[other]["restart"].is_null(), "{other} never ends");
                continue;
            }
            assert_eq!(how["condition"], "service_healthy", "{name} waits for {other}");
            assert!(!services[other]["healthcheck"]["test"].is_null(), "{name} waits for {other}");
        }
    }
}

/// Where strangers come in: by IPv4 alone.
const OPEN: &str = "0.0.0.0:8080:8080";

#[test]
fn strangers_reach_the_shop_and_nothing_else() {
    for (name, service) in services() {
        for port in words(&service["ports"]) {
            let ours = ["proxy", "stockade"].contains(&name.as_str()) && port == OPEN;
            assert!(ours || port.starts_with("127.0.0.1:"), "{name} is open at {port}");
        }
    }
    // Where the network has no IPv6, whoever comes by it would have Docker's own address, and share a stranger's hundred connections.
    assert!(compose()["networks"]["default"]["enable_ipv6"].is_null());
    for name in ["proxy", "stockade"] {
        assert_eq!(words(&services()[name]["ports"])[0], OPEN);
    }
}

#[test]
fn images_are_pinned() {
    let pinned = |image: &str| {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag.trim_start_matches('v')).unwrap_or_default();
        let number = tag.split('-').next().unwrap_or_default();
        number.split('.').count() == 3 && number.split('.').all(|part| part.parse::<u32>().is_ok())
    };
    let mut builders = Vec::new();
    for (name, service) in services() {
        let image = service["image"].as_str();
        // What is built here has one name, or `migrate` might be of another version than the nodes.
        match (image, service["build"].as_str()) {
            (Some("localhost/stockade"), Some(".")) => builders.push((service["profiles"].is_null(), name)),
            (Some("localhost/stockade"), None) => assert_eq!(service["pull_policy"], "never", "{name}"),
            (image, build) => assert!(build.is_none() && image.is_some_and(pinned), "{name}: {image:?}"),
        }
    }
    // Of those that start together one builds.
    assert_eq!(builders, [(true, "migrate".to_owned()), (false, "stockade".to_owned())]);
    assert!(!pinned("haproxy:3.2-alpine") && !pinned("haproxy") && !pinned("haproxy:latest"));
}

#[test]
fn what_is_mounted_exists_and_what_exists_is_mounted() {
    let compose = compose();
    let (mut volumes, mut configs) = (BTreeSet::new(), BTreeSet::new());
    for service in services().values() {
        let mut named = words(&service["volumes"]);
        // A folder of the repository is looked at elsewhere.
        named.retain(|volume| !volume.starts_with('.'));
        volumes.extend(
            named.iter().filter_map(|volume| volume.split_once(':')).map(|(name, _)| name.to_owned()),
        );
        let named = service["configs"].as_array().map(Vec::as_slice).unwrap_or_default();
        configs.extend(named.iter().map(|config| config["source"].as_str().unwrap().to_owned()));
    }
    let declared = |what: &str| compose[what].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(volumes, declared("volumes"));
    assert_eq!(configs, declared("configs"));
}

/// Nothing of what builds the program is in the image, nor a shell, and nobody is root in it.
#[test]
fn the_image_is_the_program_alone() {
    let said = |word: &str| DOCKERFILE.lines().filter_map(|line| line.strip_prefix(word)).collect::<Vec<_>>();
    let stages = said("FROM ");
    assert!(
        stages.len() == 2 && stages[0].ends_with(" AS build") && !stages[1].contains("rust"),
        "{stages:?}"
    );
    assert!(said("COPY ").last().unwrap().starts_with("--from=build "));
    // The libraries of the Debian that it was built on.
    assert!(
        stages[0].contains("-bookworm ") && stages[1] == "gcr.io/distroless/cc-debian12:nonroot",
        "{stages:?}"
    );
    let (_, last) = DOCKERFILE.rsplit_once("\nFROM ").unwrap();
    assert!(!last.contains("\nRUN "), "there is no shell to run it");
    assert_eq!(said("USER "), ["10001:10001"]);
    assert_eq!(said("ENTRYPOINT "), [r#"["stockade"]"#]);
    // It needs no shell to say how it is.
    let check = image_health_check();
    assert_eq!(check[0], "stockade");
    Cli::try_parse_from(check).unwrap();
}

/// A caller of the proxy is two open files, and one of a node; a container may have as few as a thousand.
#[test]
fn whoever_is_let_in_finds_a_file_to_be() {
    for name in nodes().iter().map(String::as_str).chain(["proxy", "stockade"]) {
        let files = services()[name]["ulimits"]["nofile"].as_u64();
        assert!(files.is_some_and(|files| files > 2 * callers_max() + 100), "{name}: {files:?}");
    }
}

/// The doors of the proxy.
const FRONTENDS: [&str; 2] = ["everybody", "staff"];

/// Whoever reads the shop's refusals reads the proxy's: the same words, under the same status, and as many of them.
#[test]
fn the_proxy_refuses_in_the_shops_own_words() {
    let words = configuration("proxy");
    let errors: Vec<_> =
        words.lines().filter_map(|line| line.trim().strip_prefix("http-error status ")).collect();
    let met: Vec<_> = errors.iter().filter_map(|error| error.split(' ').next()).collect();
    assert_eq!(met, ["502", "503", "504"]);
    for error in errors {
        let problem: Value = serde_json::from_str(error.split('\'').nth(1).unwrap()).unwrap();
        let said = |name: &str| problem[name].as_str().unwrap();
        let code = Code::ALL.iter().find(|code| code.word() == said("code")).unwrap();
        assert_eq!(*code, Code::OutcomeUnknown);
        assert_eq!(problem["status"], code.status());
        assert_eq!(said("type"), format!("urn:stockade:problem:{}", code.word()));
        assert_eq!(said("title"), code.title());
        for name in ["detail", "instance", "request_id"] {
            assert!(!said(name).is_empty(), "{name}");
        }
        assert!(error.contains("' hdr Retry-After 1 hdr X-Request-Id "), "{error}");
    }
    let status = Code::OutcomeUnknown.status();
    let rule = format!(
        "http-after-response set-status {status} reason \"Service Unavailable\" if {{ status 502 504 }}"
    );
    for name in FRONTENDS {
        assert!(section(&format!("frontend {name}")).contains(&rule), "{name}");
    }
}

/// All connections of the nodes are the proxy's: what the shop grants an address, and how long it waits, is the proxy's to see to.
#[test]
fn the_proxy_keeps_the_limits_of_the_shop() {
    let http = Config::development(Path::new("data")).http;
    let most =
        format!("tcp-request connection reject if {{ sc0_conn_cur gt {} }}", http.connections_per_address);
    for name in FRONTENDS {
        let lines = section(&format!("frontend {name}"));
        for line in ["tcp-request connection track-sc0 src,ipmask(32,64)", &most] {
            assert!(lines.iter().any(|said| said == line), "{name}: {line}");
        }
    }
    let idle = format!("timeout http-keep-alive {}s", http.keep_alive.as_secs());
    for line in ["timeout http-request 5s", &idle] {
        assert!(section("defaults").iter().any(|said| said == line), "{line}");
    }
    // The whole of a request is waited for there.
    let shop = section("backend shop");
    assert!(
        ["option http-buffer-request", "timeout http-request 10s"]
            .iter()
            .all(|line| shop.iter().any(|said| said == line))
    );
    // A crowd does not keep the staff out.
    assert_eq!(FRONTENDS.map(callers_of).iter().sum::<u64>(), callers_max());
}

/// Where those come from who guess or ask too much only the proxy knows. It writes down no more than that, and not what was asked for in
/// an address, and its log has an end.
#[test]
fn the_proxy_writes_down_whom_somebody_turned_away() {
    let defaults = section("defaults");
    let format = defaults.iter().find_map(|line| line.strip_prefix("log-format ")).unwrap();
    assert!(format.starts_with("\"%ci ") && format.contains("%[var(txn.path)] %[var(txn.id)]"), "{format}");
    assert!(["%r", "%HU", "%HQ"].iter().all(|query| !format.contains(query)), "{format}");
    let quiet = "http-response set-log-level silent unless { status 401 404 429 }";
    for name in FRONTENDS {
        assert!(has(name, quiet), "{name}");
    }
    assert!(services()["proxy"]["logging"]["options"]["max-size"].is_string());
    // Who is hung up on has no line, and is counted where operators look.
    let counts = "http-request use-service prometheus-exporter if { path /proxy/metrics }";
    assert_eq!(FRONTENDS.map(|name| has(name, counts)), [false, true]);
}

fn has(frontend: &str, line: &str) -> bool {
    section(&format!("frontend {frontend}")).iter().any(|said| said == line)
}

/// What is mounted from here exists, and nobody writes into it.
#[test]
fn what_comes_from_the_repository_is_there() {
    let mut mounted = BTreeSet::new();
    for (name, service) in services() {
        for volume in words(&service["volumes"]).iter().filter(|volume| volume.starts_with('.')) {
            let (here, there) = volume.split_once(':').unwrap();
            assert!(there.ends_with(":ro"), "{name}: {volume}");
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(here);
            assert!(folder.is_dir(), "{name}: {volume}");
            mounted.insert(format!("{name} {}", there.trim_end_matches(":ro")));
        }
    }
    let home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].take();
    let providers = include_str!("../deploy/grafana/provisioning/dashboards/stockade.yml");
    let providers: Value = serde_saphyr::from_str(providers).unwrap();
    let shown = providers["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(mounted.contains(&format!("grafana {shown}")), "{mounted:?}");
    assert!(home.as_str().unwrap().starts_with(shown), "{home}");
    assert!(mounted.contains("prometheus /etc/prometheus"), "{mounted:?}");
}

/// Compose cannot put a configuration that stands in its file into a container that is read-only.
#[test]
fn services_are_confined() {
    for (name, service) in services() {
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["privileged"].is_null() && service["cap_add"].is_null(), "{name}");
        assert_eq!(service["read_only"].is_null(), !service["configs"].is_null(), "{name}");
    }
}

#[test]
fn the_proxy_and_those_who_watch_know_every_node() {
    let (proxy, prometheus) = (configuration("proxy"), include_str!("../deploy/prometheus/prometheus.yml"));
    let servers: Vec<Vec<&str>> = proxy
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|line| line.first() == Some(&"server"))
        .collect();
    assert_eq!(nodes(), ["node-one", "node-two"]);
    for node in nodes() {
        let (shop, ops, unseen) = (format!("{node}:8080"), format!("{node}:9090"), format!("{node}-unseen"));
        let has = |line: &[&str]| servers.iter().any(|server| *server == line);
        assert!(has(&["server", &node, &shop, "check"]), "{node}");
        for place in [&shop, &ops] {
            assert!(has(&["server", &unseen, place, "backup"]), "{node}");
        }
        assert!(has(&["server", &node, &ops, "track", &format!("shop/{node}")]), "{node}");
        assert!(prometheus.contains(&format!("\"{ops}\"")), "{node}");
    }
    assert_eq!(servers.len(), 4 * nodes().len());
    assert!(prometheus.contains("\"stockade:9090\""));
}

/// Whoever is spoken to in the clear is on the one network, which is not open; the database is asked for TLS all the same.
#[test]
fn what_is_in_the_clear_stays_on_this_machine() {
    for node in nodes() {
        let said = |variable: &str| services()[&node]["environment"][variable].as_str().unwrap().to_owned();
        assert_eq!(said("STOCKADE_ALLOW_PLAINTEXT"), "true");
        assert!(said("STOCKADE_DATABASE_URL").ends_with("?ssl-mode=REQUIRED"));
        for variable in ["STOCKADE_REDIS_URL", "STOCKADE_SMTP_URL"] {
            let place = said(variable);
            let (_, place) = place.split_once("://").unwrap();
            let at = place.rsplit_once('@').map_or(place, |(_, at)| at);
            let name = at.split(':').next().unwrap().to_owned();
            let service = &services()[&name];
            assert!(
                service.is_object() && service["networks"].is_null(),
                "{node}: {place} is another machine"
            );
        }
    }
    // The shop of one process speaks to nobody.
    assert!(services()["stockade"]["environment"]["STOCKADE_ALLOW_PLAINTEXT"].is_null());
}

/// At a name that Compose gives it, and from inside alone.
#[test]
fn every_node_tells_the_others_where_they_reach_it() {
    for node in nodes() {
        let service = &services()[&node];
        let said = |variable: &str| service["environment"][variable].as_str().unwrap().to_owned();
        let port = |address: String| address.rsplit_once(':').unwrap().1.to_owned();
        let peers = port(said("STOCKADE_PEER_ADDR"));
        assert_eq!(said("STOCKADE_PEER_NAME"), format!("{node}:{peers}"));
        for other in ["STOCKADE_HTTP_ADDR", "STOCKADE_OPS_ADDR"] {
            assert_ne!(port(said(other)), peers, "{node}");
        }
        assert!(service["ports"].is_null(), "{node}");
    }
}

/// The nodes believe the proxy, and nobody else, about who asks.
#[test]
fn the_proxy_has_the_address_that_the_nodes_trust() {
    let address = services()["proxy"]["networks"]["default"]["ipv4_address"].take();
    for node in nodes() {
        assert_eq!(services()[&node]["environment"]["STOCKADE_TRUSTED_PROXIES"], address);
    }
    let address = address.as_str().unwrap();
    let network = compose()["networks"]["default"]["ipam"]["config"][0]["subnet"].take();
    let network: stockade::config::Network = network.as_str().unwrap().parse().unwrap();
    assert!(network.contains(address.parse().unwrap()));
}

/// What stands in Redis is read by every node.
#[test]
fn the_nodes_meet_at_the_redis_that_is_there() {
    for node in nodes() {
        let (_, said) = environment(&services()[&node])
            .into_iter()
            .find(|(name, _)| name == "STOCKADE_REDIS_URL")
            .unwrap();
        assert!(
            said.starts_with("redis://stockade:${REDIS_PASSWORD:") && said.ends_with("@redis:6379"),
            "{said}"
        );
    }
    assert!(services()["redis"]["ports"].is_null());
}

/// The nodes' users have the rights that docs/operating.md gives them, and only the one whom no node knows may change tables.
#[test]
fn nodes_have_the_rights_of_the_guide_and_no_others() {
    let address = |service: &str| {
        let all = environment(&services()[service]);
        let (_, said) = all.into_iter().find(|(name, _)| name == "STOCKADE_DATABASE_URL").unwrap();
        said
    };
    for node in nodes() {
        assert!(address(&node).starts_with("mysql://stockade:${MYSQL_PASSWORD:"), "{node}");
        assert_eq!(services()[&node]["depends_on"]["migrate"]["condition"], "service_completed_successfully");
    }
    assert_eq!(words(&services()["migrate"]["command"]), ["migrate"]);
    assert!(address("migrate").starts_with("mysql://stockade_owner:${MYSQL_OWNER_PASSWORD:"));
    let mysql = environment(&services()["mysql"]);
    let said = |name: &str| mysql.iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!(said("MYSQL_USER"), "stockade_owner");
    assert!(said("NODE_PASSWORD").starts_with("${MYSQL_PASSWORD:"));
    assert!(
        words(&services()["mysql"]["volumes"])[0].starts_with("./deploy/mysql:/docker-entrypoint-initdb.d:")
    );
    let made: Vec<_> =
        include_str!("../deploy/mysql/users.sh").lines().filter(|line| line.ends_with(';')).collect();
    let [user, right] = made[..] else { panic!("{made:?}") };
    assert!(user.starts_with("create user stockade identified by '${NODE_PASSWORD:"), "{user}");
    let right = right.trim_end_matches(';').replace("stockade", "shop");
    assert!(rights::statements().iter().any(|said| *said == right), "{right}");

    let redis = words(&services()["redis"]["command"]);
    let mut users = redis.split(|word| word == "--user").skip(1);
    assert_eq!(users.next().unwrap(), ["default", "on", "nopass", "+ping"]);
    let node = users.next().unwrap();
    assert!(node[..2] == ["stockade", "on"] && node[2].starts_with(">${REDIS_PASSWORD:"), "{node:?}");
    let (_, guide) = rights::acls()[0].split_once(" >PASSWORD ").unwrap();
    assert_eq!(node[3..].join(" "), guide);
    assert!(users.next().is_none());
}

/// `serve` looks at these, and does not start without them.
#[test]
fn the_database_says_yes_to_what_is_on_its_disk() {
    let told = words(&services()["mysql"]["command"]);
    for flag in ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--character-set-server=utf8mb4"] {
        assert!(told.iter().any(|word| word == flag), "{flag}");
    }
    assert!(told.iter().any(|word| word.starts_with("--sql-mode=STRICT_TRANS_TABLES")));
}
