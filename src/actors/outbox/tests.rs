//! The outbox with its own hands: what it claims, what it sends, and what it counts, and the thread that it does so on.

use super::*;
use crate::config::{Config, MasterKeys};
use crate::mail::{LinkToken, Why};
use crate::persistence::Tables;

struct House {
    dir: tempfile::TempDir,
    tables: Tables,
    vault: Vault,
    clock: Clock,
}

impl House {
    async fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let clock = Clock::start();
        let vault = Vault::new(&MasterKeys::one([9; 32]), &clock).unwrap();
        House { dir, tables, vault, clock }
    }

    /// Whoever sends, without his thread.
    fn sending(&self) -> Sending {
        let config = self.config();
        Sending {
            rows: self.tables.outbox(),
            vault: self.vault.clone(),
            words: Words::new(&config.mail.public_url).unwrap(),
            mailer: Mailer::new(&config.mail, self.dir.path()).unwrap(),
            clock: self.clock.clone(),
            metrics: Metrics::global().clone(),
            signals: Arc::default(),
            postage: Postage::new(config.mail.letters),
            held_back: Default::default(),
            count_at: self.clock.now(),
            uncounted: false,
        }
    }

    fn start(&self, config: &Config) -> Outbox {
        let words = Words::new(&config.mail.public_url).unwrap();
        let mailer = Mailer::new(&config.mail, self.dir.path()).unwrap();
        let (rows, vault) = (self.tables.outbox(), self.vault.clone());
        let limits = config.mail.letters;
        Outbox::start(rows, vault, words, mailer, limits, &self.clock, Metrics::global()).unwrap()
    }

    fn config(&self) -> Config {
        Config::development(self.dir.path())
    }

    fn mail(&self) -> Mail {
        let letter = Letter::VerifyAddress { token: LinkToken::new("verify_4f-_x") };
        let to = Email::parse("mina@example.com").unwrap();
        sealed(&self.vault, &self.clock, &letter, &to, Locale::En, None).unwrap()
    }

    async fn add(&self, mail: &Mail) {
        self.tables.outbox().add(std::slice::from_ref(mail)).await.unwrap();
    }

    /// Waits until nothing waits.
    async fn emptied(&self) {
        let emptied = async {
            while self.tables.outbox().waiting().await.unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), emptied).await.expect("the mail is sent");
    }
}

#[tokio::test]
async fn a_mail_leaves_as_soon_as_it_is_told() {
    let house = House::new().await;
    let outbox = house.start(&house.config());
    let mail = house.mail();
    house.add(&mail).await;
    outbox.wake();
    house.emptied().await;
    outbox.stop().await;
    let file = std::fs::read_to_string(house.dir.path().join(format!("mail/{}.eml", mail.id))).unwrap();
    assert!(
        file.contains("To: mina@example.com") && file.contains("Subject: Confirm your e-mail address"),
        "{file}"
    );
}

/// Somebody else has sent it meanwhile, or will.
#[tokio::test]
async fn who_was_stopped_for_longer_than_his_claim_sends_nothing() {
    let house = House::new().await;
    let mail = house.mail();
    house.add(&mail).await;
    let (mut sending, now) = (house.sending(), house.clock.now());
    let until = now.plus(LEASE_MS);
    let claimed = sending.rows.claim(LetterClass::Unproved, now, until, 1).await.unwrap().remove(0);
    house.clock.advance(LEASE_MS);
    assert!(!sending.deliver(&claimed, until).await);
    let file = house.dir.path().join(format!("mail/{}.eml", mail.id));
    assert!(!file.exists());
    // Whoever claims it now sends it.
    assert_eq!(sending.batch().await.unwrap(), 1);
    assert!(file.exists() && sending.rows.waiting().await.unwrap() == 0);
}

/// Whoever follows it hears so, and asks for another.
#[tokio::test]
async fn a_letter_whose_link_is_good_no_more_is_not_sent_and_takes_no_room() {
    let house = House::new().await;
    let mut sending = house.sending();
    sending.postage = Postage::new(PostageLimits { per_hour: 1, unproved_per_hour: 1 });
    let (late, later) = (house.mail(), house.mail());
    for mail in [&late, &later] {
        house.add(mail).await;
    }
    house.clock.advance(VERIFY_MS);
    let young = house.mail();
    house.add(&young).await;
    while sending.batch().await.unwrap() > 0 {}
    let has_left = |mail: &Mail| house.dir.path().join(format!("mail/{}.eml", mail.id)).exists();
    assert!(!has_left(&late) && !has_left(&later) && has_left(&young));
    assert_eq!(house.tables.outbox().waiting().await.unwrap(), 0);
}

/// Those of before are not read any more; whoever asks now waits in front of a screen.
#[tokio::test]
async fn under_a_flood_the_newest_leave_and_what_is_too_late_goes_though_there_is_no_room() {
    let house = House::new().await;
    let mut sending = house.sending();
    sending.postage = Postage::new(PostageLimits { per_hour: 100, unproved_per_hour: 2 });
    let has_left = |mail: &Mail| house.dir.path().join(format!("mail/{}.eml", mail.id)).exists();
    // More than two days of four an hour.
    for hour in 0..50 {
        let mut written = Vec::new();
        for _ in 0..4 {
            house.clock.advance(1);
            written.push(house.mail());
        }
        house.tables.outbox().add(&written).await.unwrap();
        while sending.batch().await.unwrap() > 0 {}
        let left: Vec<_> = written.iter().map(has_left).collect();
        assert_eq!(left, [false, false, true, true], "in hour {hour}");
        house.clock.advance(61 * 60_000);
    }
    let waiting = house.tables.outbox().waiting().await.unwrap();
    assert!(waiting <= 2 * 24, "{waiting} wait");
}

#[test]
fn what_may_have_been_taken_takes_room() {
    let unavailable = |why| Outcome::Later(MailError::Unavailable(why));
    for (outcome, takes_room) in [
        (Outcome::Sent(Sent::Accepted), true),
        (Outcome::Later(MailError::TIME_OUT), true),
        (unavailable(Why::Word("connection")), false),
        (unavailable(Why::Status(451)), false),
        (Outcome::TooLate, false),
        (Outcome::Never("it cannot be opened".to_owned()), false),
    ] {
        assert_eq!(outcome.takes_room(), takes_room);
    }
}

#[tokio::test]
async fn what_has_no_room_is_counted_once_and_leaves_when_the_hour_has_moved_on() {
    let house = House::new().await;
    let mut sending = house.sending();
    sending.postage = Postage::new(PostageLimits { per_hour: 100, unproved_per_hour: 2 });
    for _ in 0..5 {
        house.add(&house.mail()).await;
    }
    let waiting = async || house.tables.outbox().waiting().await.unwrap();
    let unproved = LetterClass::Unproved as usize;
    for (left, held_back) in [(2, 3), (0, 3), (0, 3)] {
        assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved]), (left, held_back));
    }
    // Nobody looks in vain: not before there is room, though they are due.
    assert!(sending.until_next().await > FAILED_PAUSE);
    house.clock.advance(61 * 60_000);
    assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved], waiting().await), (2, 1, 1));
    house.clock.advance(61 * 60_000);
    assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved], waiting().await), (1, 0, 0));
}

/// A crowd that nobody has room for wakes the outbox with every letter, and there may be a million of them.
#[tokio::test]
async fn what_waits_is_counted_now_and_then_and_a_count_that_fails_holds_up_nobody() {
    let house = House::new().await;
    let mut sending = house.sending();
    sending.postage = Postage::new(PostageLimits { per_hour: 100, unproved_per_hour: 1 });
    let (unproved, began) = (LetterClass::Unproved as usize, sending.count_at);
    for _ in 0..2 {
        house.add(&house.mail()).await;
    }
    assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved]), (1, 1));
    assert!(sending.count_at >= began.plus(COUNT_EVERY_MS));
    house.add(&house.mail()).await;
    sending.count_at = house.clock.now().plus(60_000);
    assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved]), (0, 1));
    house.clock.advance(60_000);
    assert_eq!((sending.batch().await.unwrap(), sending.held_back[unproved]), (0, 2));
    assert_eq!((counted(Ok(2)), counted(Err(StoreError::Closed))), (Some(2), None));
}

#[tokio::test]
async fn what_was_left_behind_is_sent_at_the_next_start() {
    let house = House::new().await;
    house.add(&house.mail()).await;
    let outbox = house.start(&house.config());
    house.emptied().await;
    outbox.stop().await;
}

#[tokio::test]
async fn a_row_tells_neither_address_nor_token() {
    let house = House::new().await;
    let mail = house.mail();
    for sealed in [&mail.recipient, &mail.letter] {
        for secret in ["mina", "example", "verify", "4f-_x"] {
            assert!(!sealed.windows(secret.len()).any(|piece| piece == secret.as_bytes()), "{secret}");
        }
    }
    assert_eq!(mail.kind, "verify_address");
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again_later() {
    let house = House::new().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = house.config();
    config.mail.smtp_url = Some(format!("smtp://{nobody}").into());
    house.add(&house.mail()).await;
    let outbox = house.start(&config);
    let rows = house.tables.outbox();
    let tried = async {
        // Until it was tried the lease stands, which is longer than the first pause.
        let next = async || rows.next_due(LetterClass::Unproved).await.unwrap();
        while next().await.is_none_or(|at| at > house.clock.now().plus(BACK_OFF_MS)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tried).await.expect("it is tried");
    outbox.stop().await;
    assert_eq!(rows.waiting().await.unwrap(), 1);
}

#[tokio::test]
async fn a_mail_that_cannot_be_opened_is_given_up_and_holds_up_nobody() {
    let house = House::new().await;
    let (mut bad, good) = (house.mail(), house.mail());
    bad.letter = good.letter.clone();
    house.add(&bad).await;
    house.add(&good).await;
    let outbox = house.start(&house.config());
    house.emptied().await;
    outbox.stop().await;
    assert!(house.dir.path().join(format!("mail/{}.eml", good.id)).exists());
    assert!(!house.dir.path().join(format!("mail/{}.eml", bad.id)).exists());
}

#[test]
fn pauses_double_up_to_an_hour_and_are_random() {
    assert_eq!((pause_ms(1, 0), pause_ms(1, 1_000), pause_ms(1, 1_001)), (1_000, 2_000, 1_000));
    assert_eq!((pause_ms(2, 0), pause_ms(2, 2_000)), (2_000, 4_000));
    assert_eq!(pause_ms(11, 1_024_000), 2_048_000);
    for tries in [12, TRIES_MAX, u32::MAX] {
        assert_eq!(pause_ms(tries, 0), BACK_OFF_MAX_MS / 2);
        assert_eq!(pause_ms(tries, 1_800_000), BACK_OFF_MAX_MS);
    }
}

#[test]
fn a_mail_is_given_up_after_six_hours_at_the_least_and_twelve_or_so_at_the_most() {
    let all = |chance_of: fn(u32) -> u128| -> i64 {
        (1..TRIES_MAX).map(|tries| pause_ms(tries, chance_of(tries))).sum()
    };
    let (shortest, longest) = (all(|_| 0), all(|tries| (1_000_u128 << (tries - 1)).min(1_800_000)));
    let hour = 3_600_000;
    assert!((6 * hour..7 * hour).contains(&shortest), "{shortest}");
    assert!((12 * hour..13 * hour).contains(&longest), "{longest}");
}
