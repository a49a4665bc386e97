//! The program as one types it: what it prints, where it looks, and the exit codes that scripts rely on.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use tempfile::TempDir;

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Shop {
        Shop { folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, line: &str) -> Command {
        self.here(Command::new(env!("CARGO_BIN_EXE_stockade")), line)
    }

    /// As somebody who lets everybody read and write what he makes.
    fn run_openly(&self, line: &str) -> Said {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"umask 0; exec "$@""#, "sh", env!("CARGO_BIN_EXE_stockade")]);
        Said::of(self.here(shell, line).output().unwrap())
    }

    fn here(&self, mut command: Command, line: &str) -> Command {
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STOCKADE_")) {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, line: &str) -> Said {
        Said::of(self.command(line).output().unwrap())
    }

    fn run_with(&self, line: &str, variable: (&str, &str)) -> Said {
        Said::of(self.command(line).env(variable.0, variable.1).output().unwrap())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A person can do something with it: words, no trace of our insides.
    #[track_caller]
    fn fails_with(&self, words: &[&str]) {
        assert_eq!(self.code, 1, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word} is missing in: {}", self.err);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains("stack backtrace"), "{}", self.err);
    }
}

#[test]
fn the_help_names_every_command_and_shows_how() {
    let shop = Shop::new();
    let help = shop.run("--help");
    assert_eq!(help.code, 0);
    for word in [
        "serve",
        "migrate",
        "seed",
        "token",
        "audit",
        "backup",
        "restore",
        "healthcheck",
        "completions",
        "admin",
        "config",
        "--data-dir",
        "STOCKADE_HTTP_ADDR",
        "Examples:",
    ] {
        assert!(help.out.contains(word), "{word} is missing in:\n{}", help.out);
    }
    assert!(!help.out.contains("--jwt-secret"), "a secret on a command line is no secret");
    for command in ["seed", "token", "audit", "backup", "restore", "healthcheck", "completions"] {
        assert!(shop.run(&format!("{command} --help")).out.contains("Examples:"), "{command}");
    }
    assert_eq!(shop.run("sell --everything").code, 2);
}

#[test]
fn a_shell_learns_every_command_and_flag() {
    let shop = Shop::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shop.run(&format!("completions {shell}"));
        assert_eq!(script.code, 0, "{script:?}");
        for word in ["stockade", "restore", "healthcheck", "data-dir", "http-addr"] {
            assert!(script.out.contains(word), "{shell} does not learn {word}");
        }
    }
    assert_eq!(shop.run("completions cmd").code, 2);
}

/// What a container is asked: it needs no secret, and says what it hears.
#[tokio::test]
async fn the_program_itself_is_asked_how_the_shop_is() {
    use std::io::Read;
    let (shop, folder) = (Shop::new(), tempfile::tempdir().unwrap());
    let process = support::Process::start(folder.path(), &[]).await;
    process.is_ready().await;
    let addr = process.addr();
    for (line, says) in [("healthcheck", "\"status\":\"ready\""), ("healthcheck --live", "")] {
        let told = shop.run_with(line, ("STOCKADE_HTTP_ADDR", addr.as_str()));
        assert!(told.code == 0 && told.out.contains(says), "{told:?}");
    }
    let everywhere = addr.replace("127.0.0.1", "0.0.0.0");
    let told = shop.run(&format!("healthcheck --profile production --http-addr {everywhere}"));
    assert_eq!(told.code, 0, "{told:?}");
    process.stop().await;
    shop.run(&format!("healthcheck --http-addr {addr}")).fails_with(&["nobody answers", &addr]);
    shop.run("healthcheck --http-addr 127.0.0.1:0").fails_with(&["port 0"]);
    assert_eq!(std::fs::read_dir(shop.path()).unwrap().count(), 0, "it writes nothing");

    let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = node.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        let (mut caller, _) = node.accept().unwrap();
        let (mut heard, mut piece) = (Vec::<u8>::new(), [0; 256]);
        while !heard.ends_with(b"\r\n\r\n") {
            let read = caller.read(&mut piece).unwrap();
            assert!(read > 0);
            heard.extend_from_slice(&piece[..read]);
        }
        caller.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"not_ready\"}").unwrap();
        String::from_utf8(heard).unwrap()
    });
    let told = shop.run_with("healthcheck", ("STOCKADE_HTTP_ADDR", addr.as_str()));
    assert_eq!((told.code, told.out.as_str()), (1, "{\"status\":\"not_ready\"}\n"));
    assert!(answers.join().unwrap().starts_with("GET /readyz "));
}

#[test]
fn the_readme_tells_every_setting_and_its_default() {
    let readme = include_str!("../README.md");
    for setting in stockade::config::SETTINGS {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.variable())));
        let row = row.unwrap_or_else(|| panic!("the README does not tell {}", setting.variable()));
        assert!(setting.default.is_empty() || row.contains(&format!("`{}`", setting.default)), "{row}");
    }
}

#[test]
fn config_says_what_counts_and_who_said_it() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("stockade.toml"), "workers = 3\nhttp_addr = \"127.0.0.1:1\"\n").unwrap();
    let said =
        shop.run_with("config --http-addr 127.0.0.1:2", ("STOCKADE_JWT_SECRET", "hush-hush-hush-hush"));
    assert_eq!(said.code, 0, "{said:?}");
    let row = |key: &str| said.out.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    assert!(row("workers").contains("3") && row("workers").contains("file stockade.toml"), "{}", said.out);
    assert!(
        row("http_addr").contains("127.0.0.1:2") && row("http_addr").contains("flag --http-addr"),
        "{}",
        said.out
    );
    assert!(
        row("jwt_secret").contains("…") && row("jwt_secret").contains("environment STOCKADE_JWT_SECRET"),
        "{}",
        said.out
    );
    assert!(row("data_dir").contains("default"), "{}", said.out);
    assert!(!said.out.contains("hush") && !said.err.contains("hush"));
}

#[test]
fn what_cannot_be_meant_is_refused_in_words() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("wrong.toml"), "htp_addr = \"127.0.0.1:1\"\n").unwrap();
    shop.run("config --config wrong.toml").fails_with(&["htp_addr", "did you mean `http_addr`?"]);
    shop.run("serve --config missing.toml").fails_with(&["missing.toml"]);
    shop.run("serve --workers none").fails_with(&["workers", "none", "--workers"]);
    shop.run("serve --profile production").fails_with(&["STOCKADE_JWT_SECRET", "openssl rand"]);
    shop.run_with("serve", ("STOCKADE_MASTER_KEY", "hush-hush")).fails_with(&["master_key", "…", "32 bytes"]);
    for (url, why) in
        [("postgres://root:hush@db/shop", "expected sqlite"), ("mysql://root:hush@db/shop", "every node")]
    {
        let said = shop.run(&format!("migrate --database-url {url}"));
        said.fails_with(&["database_url", why]);
        assert!(!said.err.contains("hush"), "{}", said.err);
    }
}

/// A setting that nobody can read is not taken for one that nobody has made.
#[test]
fn a_variable_that_is_no_text_is_refused_by_its_name() {
    use std::os::unix::ffi::OsStrExt;
    let shop = Shop::new();
    let latin = std::ffi::OsStr::from_bytes(b"hush-\xfc");
    let said = |name: &str| Said::of(shop.command("config").env(name, latin).output().unwrap());
    for name in ["STOCKADE_MASTER_KEY", "STOCKADE_DATA_DIR"] {
        let said = said(name);
        said.fails_with(&[name, "not UTF-8"]);
        assert!(!said.err.contains("hush"), "{}", said.err);
    }
    let stranger = said("STOCKADE_PORT");
    assert!(stranger.code == 0 && stranger.err.contains("STOCKADE_PORT looks like"), "{stranger:?}");
    assert_eq!(said("LC_SHOP").code, 0);
}

/// ASVS 6.3.2, 13.3: whoever reads this repository can sign for no shop in production, and open nobody's data. It says which
/// setting is wrong and how to make a good one, and neither a socket nor a file is touched before.
#[test]
fn production_does_not_start_on_a_secret_that_anybody_knows() {
    let shop = Shop::new();
    // Somebody else has the port: had it tried to listen, it would complain about that instead.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let made_up = || format!("{:032x}", rand::random::<u128>());
    let (secret, master_key) = (made_up(), made_up() + &made_up());
    let serve = |changed: (&str, &str)| {
        let mut serve = shop.command("serve --profile production --ops-addr 127.0.0.1:0 --data-dir data");
        serve.args(["--http-addr", &addr]);
        // Who takes the money is another question, and so is who stands in front.
        serve.env("STOCKADE_ALLOW_SIMULATED_PAYMENT", "yes").env("STOCKADE_TRUSTED_PROXIES", "127.0.0.1");
        let others = [("JWT_SECRETS_FORMER", ""), ("BACKUP_KEYS", "")];
        serve.env("STOCKADE_FOUR_EYES_ABOVE", "none");
        for (name, good) in
            [("JWT_SECRET", secret.as_str()), ("MASTER_KEY", master_key.as_str())].into_iter().chain(others)
        {
            serve.env(format!("STOCKADE_{name}"), if name == changed.0 { changed.1 } else { good });
        }
        Said::of(serve.output().unwrap())
    };
    let counted: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    let typed = base64::prelude::BASE64_STANDARD.encode(b"change-me-please-0123456789abcde");
    let bad: [(&str, &[&str]); 4] = [
        (
            "JWT_SECRET",
            &[
                "",
                "changeme",
                "changeme-changeme-changeme-changeme",
                "please-CHANGE_ME-before-you-go-live-2",
                "your-256-bit-secret-your-256-bit-secret",
                "${STOCKADE_JWT_SECRET:?make one with `openssl rand -hex 32`}",
                "make one with `openssl rand -hex 32`",
                "0123456789abcdef0123456789abcdef",
                &"0".repeat(64),
                &secret[1..],
                support::SECRET,
            ],
        ),
        (
            "JWT_SECRETS_FORMER",
            &["changeme", &secret[1..], support::SECRET, &format!("{},changeme", made_up())],
        ),
        (
            "MASTER_KEY",
            &[
                "",
                "changeme",
                &"0".repeat(64),
                &"f".repeat(64),
                &"0123456789abcdef".repeat(4),
                &counted,
                &typed,
            ],
        ),
        ("BACKUP_KEYS", &["changeme", &"0".repeat(64), &counted, &typed, &master_key]),
    ];
    for (name, values) in bad {
        for value in values {
            let said = serve((name, value));
            said.fails_with(&["openssl rand -hex 32"]);
            assert!(said.err.to_uppercase().contains(name), "{name} is missing in: {}", said.err);
            assert!(value.is_empty() || !said.err.contains(value), "it told the secret: {}", said.err);
            assert!(!shop.path().join("data").exists(), "{name} {value}");
        }
    }
    serve(("", "")).fails_with(&["cannot listen on", &addr]);
}

#[test]
fn a_store_is_filled_once_and_adds_up() {
    let shop = Shop::new();
    let migrated = shop.run("migrate");
    assert_eq!(migrated.code, 0, "{migrated:?}");
    let seeded = shop.run("seed --users 5 --products 3 --stock 7 --hold-seconds 30 --per-customer-limit 2");
    assert_eq!(seeded.code, 0, "{seeded:?}");
    assert!(
        seeded.out.contains("3 products with 7 units each") && seeded.out.contains("prod_"),
        "{}",
        seeded.out
    );
    let again = shop.run("seed --products 2 --stock 1");
    assert_eq!(again.code, 0, "{again:?}");
    let audited = shop.run("audit");
    assert_eq!(audited.code, 0, "{audited:?}");
    assert!(
        audited.out.contains("trail 0 00000000000000000000000000000000: everything adds up"),
        "{}",
        audited.out
    );
    assert!(audited.out.contains("0 payments (0 taken), 0 refunds (0 given back)"), "{}", audited.out);
    let with = shop.run("audit --provider");
    assert_eq!(with.code, 0, "{with:?}");
    let told = "The provider (simulated) has 0 payments and 0 refunds of ours, 0 under way: its books agree with ours.";
    assert!(with.out.ends_with(&format!("{told}\n")), "{}", with.out);
    // What it has taken and we know nothing of is a difference.
    let book = "stockade simulated provider 1\ncharge pay_01h455vb4pex5vsknk084sn02q order_01h455vb4pex5vsknk084sn02q \
        5 KRW 5 KRW captured 0\n";
    std::fs::write(shop.path().join("data/simulated-provider.book"), book).unwrap();
    let with = shop.run("audit --provider");
    assert_eq!(with.code, 1, "{with:?}");
    assert!(with.out.contains("has taken 5 KRW, we do not"), "{}", with.out);
    assert_eq!(shop.run("audit").code, 0, "it was not asked for");
}

#[test]
fn tokens_are_signed_for_the_same_users_in_the_same_order() {
    let shop = Shop::new();
    let signed = shop.run("token --users 4 --out tokens.txt --ttl-hours 1");
    assert_eq!((signed.code, signed.out.as_str()), (0, ""), "{signed:?}");
    let tokens = std::fs::read_to_string(shop.path().join("tokens.txt")).unwrap();
    assert_eq!(tokens.lines().count(), 4);
    assert!(tokens.lines().all(|token| token.split('.').count() == 3));
    let subject = |token: &str| claims(token)["sub"].as_str().unwrap().to_owned();
    let users: Vec<String> = tokens.lines().map(subject).collect();
    let third = shop.run("token --user 3").out;
    assert_eq!(subject(third.trim()), users[2]);
    let by_id = shop.run(&format!("token --user {}", users[1])).out;
    assert_eq!(subject(by_id.trim()), users[1]);
    let admin = claims(shop.run("token --role admin").out.trim());
    assert_eq!(admin["role"], "admin");
    assert!(!users.contains(&admin["sub"].as_str().unwrap().to_owned()));
    shop.run("token --user nobody").fails_with(&["nobody", "user_"]);
}

/// ASVS 9.1.2: whoever signs offline signs as the shop does, and by nothing that it does not know.
#[test]
fn a_token_is_signed_by_the_algorithm_that_is_configured() {
    let shop = Shop::new();
    let alg = |said: Said| part(said.out.trim(), 0)["alg"].as_str().unwrap().to_owned();
    assert_eq!(alg(shop.run("token")), "HS256");
    assert_eq!(alg(shop.run("token --jwt-algorithm EdDSA")), "EdDSA");
    assert_eq!(alg(shop.run_with("token", ("STOCKADE_JWT_ALGORITHM", "EdDSA"))), "EdDSA");
    for line in ["token", "serve", "audit"] {
        shop.run_with(line, ("STOCKADE_JWT_ALGORITHM", "none"))
            .fails_with(&["jwt_algorithm", "expected HS256 or EdDSA"]);
    }
}

/// ASVS 14.2: accounts, the journal and secrets are their owner's alone, however carelessly he makes files; and so are tokens in a
/// file that was there before.
#[test]
fn what_is_written_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let shop = Shop::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let tokens = shop.path().join("tokens.txt");
    std::fs::write(&tokens, "old\n".repeat(1_000)).unwrap();
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o644)).unwrap();
    let seeded = shop.run_openly("seed --users 1 --products 1 --stock 1");
    assert_eq!(seeded.code, 0, "{seeded:?}");
    assert_eq!(shop.run_openly("token --users 1 --out tokens.txt").code, 0);
    assert_eq!(std::fs::read_to_string(&tokens).unwrap().lines().count(), 1);

    let (mut left, mut seen) = (vec![shop.path().join("data"), tokens], 0);
    while let Some(path) = left.pop() {
        assert_eq!(mode(&path) & 0o077, 0, "{} is {:o}", path.display(), mode(&path));
        seen += 1;
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()));
        }
    }
    assert!(seen >= 7, "{seen}: the folder, four tables, a secret and the tokens at least");
}

/// What a token says, believed without a look at its signature.
fn claims(token: &str) -> serde_json::Value {
    part(token, 1)
}

fn part(token: &str, at: usize) -> serde_json::Value {
    let part = token.split('.').nth(at).unwrap();
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for letter in part.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_place_that_cannot_be_used_is_a_sentence() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("file"), "").unwrap();
    shop.run("serve --data-dir file/data --http-addr 127.0.0.1:0").fails_with(&["file/data"]);
    shop.run("audit --data-dir nowhere").fails_with(&["nowhere"]);
}

#[test]
fn an_administrator_is_made_with_a_password_that_no_command_line_shows() {
    let shop = Shop::new();
    let breached = support::breached_list(&["seven swans swim south"]);
    std::fs::write(shop.path().join("breached.txt"), breached).unwrap();
    let make = |email: &str, password: &str| {
        let mut command = shop.command(&format!("admin create --email {email}"));
        command.env("STOCKADE_BREACHED_PASSWORDS", "breached.txt");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        Said::of(process.wait_with_output().unwrap())
    };
    let made = make("boss@example.com", "four foxes fly far\n");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(
        made.out.starts_with("user_") && !made.out.contains("foxes") && !made.err.contains("foxes"),
        "{made:?}"
    );
    make("Boss@Example.com", "four foxes fly far\n").fails_with(&["already"]);
    make("other@example.com", "short\n").fails_with(&["8 characters"]);
    make("other@example.com", "seven swans swim south\n").fails_with(&["known from a breach"]);
    make("other@example.com", "").fails_with(&["no password"]);
    make("nonsense", "four foxes fly far\n").fails_with(&["--email"]);
    assert_eq!(shop.run("admin create --email a@example.com --password x").code, 2);
    assert_eq!(shop.run("audit").code, 0);
}

/// ASVS 6.2.12: what cannot be looked into is not taken for a list on which nothing stands.
#[test]
fn nothing_starts_on_a_list_of_breached_passwords_that_is_none() {
    let shop = Shop::new();
    // Somebody else has the port: whoever gets as far as that complains about it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let line = format!("serve --data-dir data --http-addr {addr}");
    let serve = |list: &str| shop.run_with(&line, ("STOCKADE_BREACHED_PASSWORDS", list));
    let good = support::breached_list(&["password", "letmein", "four foxes fly far"]);
    let backwards: String = good.lines().rev().map(|line| format!("{line}\n")).collect();
    let bad = [
        ("empty.txt", "", "the file is empty"),
        ("words.txt", "password\nletmein\n", "40 hexadecimal digits"),
        ("backwards.txt", backwards.as_str(), "not sorted by their hashes"),
    ];
    for (name, text, why) in bad {
        std::fs::write(shop.path().join(name), text).unwrap();
        serve(name).fails_with(&["STOCKADE_BREACHED_PASSWORDS", name, why]);
    }
    serve("missing.txt").fails_with(&["STOCKADE_BREACHED_PASSWORDS", "missing.txt", "No such file"]);
    assert!(!shop.path().join("data").exists());
    std::fs::write(shop.path().join("good.txt"), good).unwrap();
    serve("good.txt").fails_with(&["cannot listen on", &addr]);
}

/// Whoever was to vouch for the mail server vouches, or nothing starts: letters that do not leave are found out late.
#[test]
fn nothing_starts_on_roots_of_the_mail_server_that_are_none() {
    let shop = Shop::new();
    let line = "serve --data-dir data --http-addr 127.0.0.1:0";
    let serve = |file: &str| shop.run_with(line, ("STOCKADE_SMTP_ROOTS", file));
    let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
    let bad = [
        ("empty.pem", String::new()),
        ("words.pem", "these are no certificates\n".to_owned()),
        ("torn.pem", format!("{begin}AAAA\n")),
        ("nothing.pem", format!("{begin}AAAA\n{end}")),
        ("damaged.pem", format!("{begin}A*A\n{end}")),
    ];
    for (name, text) in bad {
        std::fs::write(shop.path().join(name), text).unwrap();
        serve(name).fails_with(&["STOCKADE_SMTP_ROOTS", name, "cannot be used as certificates"]);
    }
    serve("missing.pem").fails_with(&["STOCKADE_SMTP_ROOTS", "missing.pem", "No such file"]);
    assert!(!shop.path().join("data").exists());
}

/// What only operators may see has a listener of its own there, or nothing starts.
#[test]
fn production_does_not_start_without_a_listener_for_operators() {
    let shop = Shop::new();
    let made_up = || format!("{:032x}", rand::random::<u128>());
    let mut serve = shop.command("serve --profile production --http-addr 127.0.0.1:0 --data-dir data");
    serve.env("STOCKADE_JWT_SECRET", made_up()).env("STOCKADE_MASTER_KEY", made_up() + &made_up());
    serve.env("STOCKADE_ALLOW_SIMULATED_PAYMENT", "yes");
    let said = Said::of(serve.output().unwrap());
    said.fails_with(&["production needs STOCKADE_OPS_ADDR", "only operators reach", "127.0.0.1:9090"]);
    assert!(!shop.path().join("data").exists());
}

/// At an address of this machine alone everybody comes through somebody else: who that is has been said, or nothing starts.
#[test]
fn production_does_not_start_where_everybody_would_be_this_machine() {
    let shop = Shop::new();
    let made_up = || format!("{:032x}", rand::random::<u128>());
    // Somebody else has the port: whoever gets as far as that complains about it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let serve = |proxies: Option<&str>| {
        let mut serve = shop.command("serve --profile production --ops-addr 127.0.0.1:0 --data-dir data");
        serve.args(["--http-addr", &addr]).env("STOCKADE_ALLOW_SIMULATED_PAYMENT", "yes");
        serve.env("STOCKADE_FOUR_EYES_ABOVE", "none");
        serve.env("STOCKADE_JWT_SECRET", made_up()).env("STOCKADE_MASTER_KEY", made_up() + &made_up());
        if let Some(proxies) = proxies {
            serve.env("STOCKADE_TRUSTED_PROXIES", proxies);
        }
        Said::of(serve.output().unwrap())
    };
    serve(None).fails_with(&["stands behind a proxy", "STOCKADE_TRUSTED_PROXIES", "empty list"]);
    serve(Some("127.0.0.1,::/0")).fails_with(&["STOCKADE_TRUSTED_PROXIES holds every address"]);
    assert!(!shop.path().join("data").exists());
    for said in ["127.0.0.1", ""] {
        serve(Some(said)).fails_with(&["cannot listen on", &addr]);
    }
}

/// Whatever is copied away is sealed, or somebody has said that it is not; a shop that sells does not need the keys.
#[test]
fn production_takes_no_backup_that_is_not_sealed() {
    let shop = Shop::new();
    assert_eq!(shop.run("seed --products 1 --stock 1 --data-dir data").code, 0);
    let made_up = || format!("{:032x}", rand::random::<u128>());
    let (master_key, backup_key) = (made_up() + &made_up(), made_up() + &made_up());
    let run = |line: &str, (name, value): (&str, &str)| {
        let mut run = shop.command(line);
        run.env("STOCKADE_JWT_SECRET", made_up()).env("STOCKADE_MASTER_KEY", &master_key);
        run.env("STOCKADE_ALLOW_SIMULATED_PAYMENT", "yes").env("STOCKADE_OPS_ADDR", "127.0.0.1:0");
        run.env("STOCKADE_TRUSTED_PROXIES", "127.0.0.1").env("STOCKADE_FOUR_EYES_ABOVE", "none");
        Said::of(run.env(name, value).output().unwrap())
    };
    let take = |said: (&str, &str)| run("backup --profile production --data-dir data --to backup", said);
    take(("STOCKADE_BACKUP_KEYS", "")).fails_with(&[
        "production seals its backups",
        "STOCKADE_BACKUP_KEYS",
        "STOCKADE_ALLOW_PLAIN_BACKUPS",
    ]);
    take(("STOCKADE_BACKUP_KEYS", &master_key)).fails_with(&["is one of STOCKADE_MASTER_KEY"]);
    assert!(!shop.path().join("backup").exists());
    let head = || std::fs::read_to_string(shop.path().join("backup/manifest.json")).unwrap();
    for (said, is_sealed) in [
        (("STOCKADE_BACKUP_KEYS", backup_key.as_str()), true),
        (("STOCKADE_ALLOW_PLAIN_BACKUPS", "true"), false),
    ] {
        let told = take(said);
        let words = if is_sealed { "It is sealed under the backup key " } else { "It is not sealed" };
        assert!(told.code == 0 && told.out.contains(words), "{told:?}");
        assert_eq!(head().contains("\"wrapped_key\""), is_sealed);
        // It is restored by whoever says the same, and what is not sealed by nobody else.
        let restore =
            |said: (&str, &str)| run("restore --profile production --from backup --into again", said);
        let why =
            if is_sealed { "which is not among STOCKADE_BACKUP_KEYS" } else { "the backup is not sealed" };
        restore(("STOCKADE_BACKUP_KEYS", "")).fails_with(&[why]);
        assert!(!shop.path().join("again").exists());
        assert_eq!(restore(said).code, 0);
        std::fs::remove_dir_all(shop.path().join("again")).unwrap();
        std::fs::remove_dir_all(shop.path().join("backup")).unwrap();
    }
}
