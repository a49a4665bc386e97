//! What `deploy/` and `.github/` say of the shop is true: units and manifests can be read, name settings that exist and are a shop that
//! starts in production, ask the doors that are there, and wait for as long as a shutdown takes; workflows call scripts that exist.

#[path = "packaging/rehearsal.rs"]
mod rehearsal;
#[path = "packaging/rotation.rs"]
mod rotation;
#[path = "packaging/workflows.rs"]
mod workflows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Parser;
use serde_json::Value;
use stockade::cli::Cli;
use stockade::config::{Config, Layers, Profile, SETTINGS};

const LABEL: &str = "app.kubernetes.io/name";
/// What the last flush may take, and a node that is handed the shop.
const LAST_WORDS_S: u64 = 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.variable() == name)
}

fn is_secret(name: &str) -> bool {
    // The address of a database holds a password.
    SETTINGS.iter().any(|setting| setting.secret && setting.variable() == name)
        || name == "STOCKADE_DATABASE_URL"
}

/// A secret that stands nowhere.
fn made_up(name: &str) -> String {
    let half = |end: &str| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{name}{end}").as_bytes()));
    let both = half("left") + &half("right");
    match name {
        "STOCKADE_DATABASE_URL" => format!("mysql://shop:{both}@db:3306/shop?ssl-mode=VERIFY_IDENTITY"),
        "STOCKADE_SMTP_URL" => format!("smtps://shop:{both}@mail"),
        "STOCKADE_STRIPE_SECRET_KEY" => format!("sk_live_{both}"),
        "STOCKADE_PAYMENT_WEBHOOK_SECRET" => format!("whsec_{both}"),
        _ => both,
    }
}

fn seconds(word: &str) -> u64 {
    word.parse().unwrap()
}

fn shutdown_s(config: &Config) -> u64 {
    config.http.shutdown.as_secs()
}

// --- systemd --------------------------------------------------------------------------------------------------------------------

/// A unit, by section: words behind words, each as often as it stands there.
fn unit(name: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut sections = BTreeMap::<String, Vec<_>>::new();
    let mut section = String::new();
    for line in text(&format!("deploy/systemd/{name}")).lines().filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
        assert!(!section.is_empty() && key.chars().all(char::is_alphanumeric), "{name}: {line}");
        sections.entry(section.clone()).or_default().push((key.to_owned(), value.to_owned()));
    }
    sections
}

fn said<'u>(unit: &'u BTreeMap<String, Vec<(String, String)>>, key: &str) -> &'u str {
    let found: Vec<_> = unit.values().flatten().filter(|(name, _)| name == key).collect();
    assert_eq!(found.len(), 1, "{key}");
    &found[0].1
}

/// The files that its secrets are read from.
fn secret_files(unit: &BTreeMap<String, Vec<(String, String)>>) -> Vec<&str> {
    let service = unit["Service"].iter().filter(|(name, _)| name == "EnvironmentFile");
    service.map(|(_, file)| file.as_str()).collect()
}

/// The secrets that the head of the unit names, one a line.
fn secrets_of_the_machine() -> Vec<String> {
    let head = text("deploy/systemd/stockade.service");
    let named = head.lines().filter_map(|line| line.strip_prefix("#   STOCKADE_")?.split_once('='));
    named.map(|(name, _)| format!("STOCKADE_{name}")).collect()
}

/// The file that the units name, with the secrets that their head names.
fn of_the_machine() -> Config {
    let secrets = secrets_of_the_machine();
    assert!(secrets.iter().all(|name| is_secret(name)), "{secrets:?}");
    let secrets = secrets.into_iter().map(|name| (name.clone(), made_up(&name)));
    let layers = Layers::of(Some(&root().join("deploy/systemd/stockade.toml")), secrets, []).unwrap();
    Config::read(&layers).unwrap()
}

/// What a text has root run as the service runs: each such command, a broken line put together, without what runs it.
fn run_as_the_service(path: &str) -> Vec<String> {
    let text = text(path).replace("\\\n#", "");
    let runs = "systemd-run --pty --uid=stockade -p UMask=0077 -p EnvironmentFile=/etc/stockade/secrets ";
    let keys = "-p EnvironmentFile=/etc/stockade/backup-keys ";
    let lines = text.lines().filter_map(|line| line.split_once("systemd-run "));
    lines
        .map(|(before, rest)| {
            let line = format!("systemd-run {rest}");
            assert!(["", "#   "].contains(&before), "{path}: {before}{line}");
            let rest = line.strip_prefix(runs).unwrap_or_else(|| panic!("{path}: {line}"));
            let command = rest.strip_prefix(keys).unwrap_or(rest);
            // Who takes backups, or restores one, has their keys, and nobody else.
            let wants = [" backup ", " restore "].iter().any(|word| command.contains(word));
            assert_eq!(command != rest, wants, "{path}: {line}");
            command.trim().to_owned()
        })
        .collect()
}

#[test]
fn the_unit_starts_a_shop_in_production_and_lets_it_end() {
    let (unit, config) = (unit("stockade.service"), of_the_machine());
    assert_eq!(config.profile, Profile::Production);
    let words: Vec<&str> = said(&unit, "ExecStart").split(' ').collect();
    assert_eq!(words, ["/usr/local/bin/stockade", "serve", "--config", "/etc/stockade/stockade.toml"]);
    Cli::try_parse_from(words).unwrap();
    assert_eq!(config.store.data_dir, Path::new("/var/lib").join(said(&unit, "StateDirectory")));
    assert_eq!(said(&unit, "KillSignal"), "SIGTERM");
    assert!(seconds(said(&unit, "TimeoutStopSec")) >= shutdown_s(&config) + LAST_WORDS_S);
    assert!(said(&unit, "LimitNOFILE").parse::<usize>().unwrap() > config.http.connections_max);
    // Nobody but this machine reaches either listener: TLS is the proxy's, and what it says of who asks is believed.
    assert!(config.http.addr.ip().is_loopback() && config.http.ops_addr.unwrap().ip().is_loopback());
    for proxy in ["127.0.0.1", "::1"] {
        assert!(
            config.http.trusted_proxies.iter().any(|ours| ours.contains(proxy.parse().unwrap())),
            "{proxy}"
        );
    }
    // Letters leave the machine.
    assert!(config.mail.smtp_url.is_some());
    // The clock is read once, at the start.
    let after: Vec<_> = said(&unit, "After").split(' ').collect();
    assert!(after.contains(&"time-sync.target"), "{after:?}");
}

#[test]
fn commands_are_run_as_the_service_is() {
    let unit = unit("stockade.service");
    for (path, count) in [("deploy/systemd/stockade.service", 1), ("docs/operating.md", 3)] {
        let commands = run_as_the_service(path);
        assert_eq!(commands.len(), count, "{path}: {commands:?}");
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            Cli::try_parse_from(words.iter().copied())
                .unwrap_or_else(|error| panic!("{path}: {command}: {error}"));
            assert_eq!(words[..3], ["/usr/local/bin/stockade", "--config", "/etc/stockade/stockade.toml"]);
        }
    }
    for (key, value) in
        [("User", "stockade"), ("UMask", "0077"), ("EnvironmentFile", "/etc/stockade/secrets")]
    {
        assert_eq!(said(&unit, key), value);
    }
    let timer = self::unit("stockade-backup.service");
    assert_eq!(secret_files(&timer), ["/etc/stockade/secrets", "/etc/stockade/backup-keys"]);
}

#[test]
fn the_units_are_confined() {
    for name in ["stockade.service", "stockade-backup.service", "stockade-restore-check.service"] {
        let unit = unit(name);
        for (key, value) in [
            ("User", "stockade"),
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
            ("SystemCallFilter", "@system-service"),
            ("UMask", "0077"),
        ] {
            assert_eq!(said(&unit, key), value, "{name}: {key}");
        }
        assert!(
            !unit["Service"].iter().any(|(key, _)| key == "Environment"),
            "{name}: a secret is read by all"
        );
    }
    for name in ["stockade.service", "stockade-backup.service"] {
        // Each start sets its mode, whoever starts.
        for (key, value) in [("StateDirectory", "stockade"), ("StateDirectoryMode", "0700")] {
            assert_eq!(said(&unit(name), key), value, "{name}: {key}");
        }
    }
}

#[test]
fn the_timer_takes_backups_of_the_same_shop() {
    let backup = unit("stockade-backup.service");
    let to = said(&backup, "ReadWritePaths");
    let line = said(&backup, "ExecStart");
    assert_eq!(
        line,
        format!("/usr/local/bin/stockade backup --config /etc/stockade/stockade.toml --in {to} --keep 8")
    );
    Cli::try_parse_from(line.split(' ')).unwrap();
    assert!(unit("stockade-backup.timer").contains_key("Timer"));
    let head = text("deploy/systemd/stockade.service");
    assert!(
        head.contains("systemctl enable --now stockade stockade-backup.timer stockade-restore-check.timer\n")
    );
    assert!(head.contains(&format!("install -d -o stockade -g stockade -m 0700 /var/lib/stockade {to}\n")));
    // Its key is made with the secrets, and the shop that sells does not have it.
    assert!(head.contains(
        "(umask 0077; echo \"STOCKADE_BACKUP_KEYS=$(openssl rand -hex 32)\" > /etc/stockade/backup-keys)"
    ));
    assert!(of_the_machine().backups.keys.is_none());
}

// --- Kubernetes -----------------------------------------------------------------------------------------------------------------

fn manifests() -> Vec<Value> {
    let all: Value = serde_saphyr::from_str(&text("deploy/kubernetes/kustomization.yaml")).unwrap();
    let files = all["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap().to_owned());
    files
        .flat_map(|file| {
            serde_saphyr::from_multiple::<Value>(&text(&format!("deploy/kubernetes/{file}"))).unwrap()
        })
        .collect()
}

fn manifest(kind: &str, name: &str) -> Value {
    let found = manifests().into_iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The pods that are started, with the one container of each.
fn pods() -> [(Value, Value); 2] {
    let nodes = manifest("Deployment", "stockade")["spec"]["template"]["spec"].take();
    let backup =
        manifest("CronJob", "stockade-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"].take();
    [nodes, backup].map(|pod| {
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        let container = pod["containers"][0].clone();
        (pod, container)
    })
}

/// What the head of the manifests puts into the secret of this name.
fn secrets(of: &str) -> Vec<String> {
    let head = text("deploy/kubernetes/stockade.yaml");
    let mut made = head.split("create secret generic ").skip(1);
    let made = made.find(|made| made.split_whitespace().next() == Some(of));
    let made = made.unwrap_or_else(|| panic!("nobody makes the secret {of}"));
    let named = made.split("--from-literal=").skip(1).filter_map(|rest| rest.split_once('='));
    named.map(|(name, _)| name.to_owned()).collect()
}

/// What nobody but the operator knows, and what he might say.
const CHOSEN: (&str, &str) = ("STOCKADE_TRUSTED_PROXIES", "10.244.7.0/24");

fn configured(container: &Value) -> Config {
    let mut said = shipped(container);
    let (name, value) = CHOSEN;
    said.iter_mut().filter(|(other, _)| other == name).for_each(|(_, word)| *word = value.to_owned());
    Config::read(&Layers::of(None, said, []).unwrap()).unwrap()
}

/// What a container is told, as it stands there.
fn shipped(container: &Value) -> Vec<(String, String)> {
    let mut said: Vec<(String, String)> = Vec::new();
    let settings = manifest("ConfigMap", "stockade");
    for (name, value) in settings["data"].as_object().unwrap() {
        assert!(is_setting(name) && !is_secret(name), "{name} in a ConfigMap");
        said.push((name.clone(), value.as_str().unwrap_or_else(|| panic!("{name} is no word")).to_owned()));
    }
    let from = container["envFrom"].as_array().unwrap().iter();
    let (maps, of): (Vec<_>, Vec<_>) = from.partition(|from| from["secretRef"].is_null());
    assert_eq!(maps.len(), 1);
    assert_eq!(maps[0]["configMapRef"]["name"], "stockade");
    let secrets: Vec<String> =
        of.iter().flat_map(|of| secrets(of["secretRef"]["name"].as_str().unwrap())).collect();
    assert!(secrets.iter().all(|name| is_secret(name)), "{secrets:?}");
    said.extend(secrets.iter().map(|name| (name.clone(), made_up(name))));
    for one in container["env"].as_array().unwrap() {
        let name = one["name"].as_str().unwrap();
        assert!(is_setting(name) || name == "POD_IP", "{name}");
        assert!(!is_secret(name), "{name} stands in a manifest");
        if let Some(value) = one["value"].as_str() {
            said.push((name.to_owned(), value.replace("$(POD_IP)", "10.1.2.3")));
        }
    }
    said
}

#[test]
fn every_pod_is_started_as_a_shop_in_production_on_a_database() {
    for (_, container) in pods() {
        let config = configured(&container);
        assert_eq!(config.profile, Profile::Production);
        assert!(config.store.database_url.is_some());
    }
    let (_, node) = &pods()[0];
    let words: Vec<_> = node["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    Cli::try_parse_from(["stockade"].into_iter().chain(words)).unwrap();
    let (_, backup) = &pods()[1];
    let words: Vec<_> =
        backup["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words, ["backup", "--in", "/backups", "--keep", "8"]);
    assert!(backup["volumeMounts"][0]["mountPath"] == "/backups" && backup["command"].is_null());
    Cli::try_parse_from(["stockade"].into_iter().chain(words)).unwrap();
    // A backup is sealed, and no node has the keys.
    assert!(configured(node).backups.keys.is_none());
    assert!(configured(backup).backups.sealed_with(Profile::Production).is_ok_and(|keys| keys.is_some()));
}

/// Nodes read and write rows. Tables are made before each of them starts, by a user whose address no node is told.
#[test]
fn only_what_runs_before_a_node_may_change_tables() {
    let (pod, node) = &pods()[0];
    let before = pod["initContainers"].as_array().unwrap();
    assert_eq!(before.len(), 1);
    let migrate = &before[0];
    assert_eq!(migrate["args"][0], "migrate");
    for same in ["image", "envFrom", "securityContext"] {
        assert_eq!(migrate[same], node[same], "{same}");
    }
    let address = &migrate["env"][0];
    assert_eq!(address["name"], "STOCKADE_DATABASE_URL");
    assert_eq!(address["valueFrom"]["secretKeyRef"]["name"], "stockade-owner");
    let head = text("deploy/kubernetes/stockade.yaml");
    assert!(
        head.contains(
            "create secret generic stockade-owner \\\n#       --from-literal=STOCKADE_DATABASE_URL="
        )
    );
    assert!(manifests().iter().filter(|one| one.to_string().contains("stockade-owner")).count() == 1);
    assert!(!node.to_string().contains("stockade-owner"));
}

/// A network that is too wide would be believed by a shop that starts: there is none until somebody has chosen one.
#[test]
fn no_pod_starts_before_somebody_has_said_where_the_ingress_is() {
    for (_, container) in pods() {
        let refused = Config::read(&Layers::of(None, shipped(&container), []).unwrap()).map(drop);
        let told = refused.unwrap_err().to_string();
        assert!(told.starts_with("trusted_proxies = ") && told.contains("expected addresses"), "{told}");
    }
    assert!(text("deploy/kubernetes/stockade.yaml").contains("externalTrafficPolicy: Local"));
}

/// What is begun with is encrypted on its way to other machines, and its backups are sealed: nothing that is shipped admits plain text.
#[test]
fn what_is_shipped_speaks_to_other_machines_over_tls() {
    for place in [
        "kubernetes/stockade.yaml",
        "kubernetes/backup.yaml",
        "systemd/stockade.toml",
        "systemd/stockade.service",
        "systemd/stockade-backup.service",
        "systemd/stockade-restore-check.service",
    ] {
        assert!(!text(&format!("deploy/{place}")).to_lowercase().contains("allow_plain"), "{place}");
    }
    assert!(
        text("deploy/kubernetes/stockade.yaml").contains("@HOST:3306/stockade?ssl-mode=VERIFY_IDENTITY'")
    );
}

/// As `kubectl apply -k` has it: whoever says which version the nodes have says it of the backup as well.
#[test]
fn nodes_and_backup_are_of_one_version() {
    let all: Value = serde_saphyr::from_str(&text("deploy/kubernetes/kustomization.yaml")).unwrap();
    let images = all["images"].as_array().unwrap();
    assert_eq!(images.len(), 1);
    let image = |key: &str| images[0][key].as_str().unwrap();
    for (_, container) in pods() {
        assert_eq!(container["image"], format!("{}:{}", image("name"), image("newTag")));
    }
}

#[test]
fn nodes_are_asked_at_doors_that_are_there_and_given_time_to_leave() {
    let (pod, node) = &pods()[0];
    let config = configured(node);
    let ports: BTreeMap<&str, u64> = node["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("shop", u64::from(config.http.addr.port())),
        ("operators", u64::from(config.http.ops_addr.unwrap().port())),
        ("nodes", u64::from(config.peers.addr.port())),
    ];
    assert_eq!(ports, BTreeMap::from(expected));
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(node[probe]["httpGet"]["path"], path, "{probe}");
        assert_eq!(node[probe]["httpGet"]["port"], "shop", "{probe}");
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    // The image has the program and nothing else, so nothing else is run in it.
    let pause = node["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    for (_, container) in pods() {
        assert!(
            container["lifecycle"]["preStop"]["exec"].is_null()
                && container["livenessProbe"]["exec"].is_null()
        );
    }
    assert!(grace >= pause + shutdown_s(&config) + LAST_WORDS_S, "{grace} s");
    let deployment = manifest("Deployment", "stockade");
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap();
    let budget = manifest("PodDisruptionBudget", "stockade")["spec"]["maxUnavailable"].as_u64().unwrap();
    assert!(budget < replicas - 1, "one that sells and one that takes over stay");
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
}

#[test]
fn whoever_is_selected_is_there_and_nodes_are_reached_by_nodes_alone() {
    let labels = |one: &Value| one[LABEL].as_str().map(str::to_owned).unwrap();
    let deployment = manifest("Deployment", "stockade");
    let pods = labels(&deployment["spec"]["template"]["metadata"]["labels"]);
    let policy = manifest("NetworkPolicy", "stockade");
    for selected in [
        &deployment["spec"]["selector"]["matchLabels"],
        &deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        &manifest("Service", "stockade")["spec"]["selector"],
        &manifest("Service", "stockade-operators")["spec"]["selector"],
        &manifest("PodDisruptionBudget", "stockade")["spec"]["selector"]["matchLabels"],
        &policy["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(labels(selected), pods);
    }
    let backup = manifest("CronJob", "stockade-backup");
    assert_ne!(
        labels(&backup["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]),
        pods,
        "it is no node"
    );
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let who = |port: &str| {
        let rule: Vec<_> = rules.iter().filter(|rule| rule["ports"][0]["port"] == port).collect();
        assert_eq!(rule.len(), 1, "{port}");
        rule[0]["from"].clone()
    };
    assert!(who("shop").is_null());
    assert!(who("operators")[0]["namespaceSelector"]["matchLabels"].is_object());
    assert_eq!(labels(&who("nodes")[0]["podSelector"]["matchLabels"]), pods);
    assert_eq!(rules.len(), 3);
    // Only the shop is behind the address that strangers are sent to.
    let shop = manifest("Service", "stockade");
    assert_eq!(shop["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(shop["spec"]["ports"][0]["targetPort"], "shop");
}

#[test]
fn pods_are_confined() {
    for (pod, container) in pods() {
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(text("Dockerfile").contains(&format!("\nUSER {}:", pod["securityContext"]["runAsUser"])));
        let confined = &container["securityContext"];
        assert_eq!(confined["allowPrivilegeEscalation"], false);
        assert_eq!(confined["readOnlyRootFilesystem"], true);
        assert_eq!(confined["capabilities"]["drop"][0], "ALL");
        assert!(container["resources"]["requests"]["cpu"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
        // Whatever is mounted is there.
        let names = |list: &Value| {
            list.as_array().unwrap().iter().map(|one| one["name"].to_string()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    }
}
