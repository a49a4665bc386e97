//! The words of every letter, in every language: text files in the binary, made into a message twice over.
//!
//! A letter's file is its subject, a blank line, and paragraphs; a paragraph in brackets is the button. The file is filled in
//! first; what comes out is set into one layout for HTML, where everything is escaped, and one for plain text. Always true: each
//! letter exists in each language, and a value that is missing is an error, never a gap.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use super::Letter;
use crate::domain::user::Locale;

macro_rules! texts {
    ($( $kind:literal ),* $(,)?) => {
        &[$(
            (concat!($kind, ".ko.txt"), include_str!(concat!("words/", $kind, ".ko.txt"))),
            (concat!($kind, ".en.txt"), include_str!(concat!("words/", $kind, ".en.txt"))),
        )*]
    };
}

const TEXTS: &[(&str, &str)] = texts![
    "verify_address",
    "address_taken",
    "phone_taken",
    "password_reset",
    "password_changed",
    "confirm_new_address",
    "address_changing",
    "address_changed",
    "order_placed",
    "order_hold_lapses",
    "order_payment_failed",
    "order_expired",
    "order_paid",
    "order_cancelled",
    "order_shipped",
    "order_delivered",
    "order_returned",
];

const LAYOUTS: [(&str, &str); 2] =
    [("layout.html", include_str!("words/layout.html")), ("layout.txt", include_str!("words/layout.txt"))];

/// A letter's text could not be made. It is a mistake in a file of ours.
#[derive(Debug, thiserror::Error)]
#[error("a letter's text is wrong: {0}")]
pub struct NoWords(#[from] minijinja::Error);

/// A letter in somebody's language.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    pub html: String,
    pub plain: String,
}

/// All texts, ready to be filled in.
pub struct Words {
    texts: Environment<'static>,
    public_url: String,
}

impl Words {
    /// Links lead to `public_url`, which has no slash at its end.
    pub fn new(public_url: &str) -> Result<Words, NoWords> {
        let mut texts = Environment::empty();
        texts.set_undefined_behavior(UndefinedBehavior::Strict);
        texts.set_auto_escape_callback(|name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        });
        for (name, text) in TEXTS.iter().chain(&LAYOUTS) {
            texts.add_template(name, text)?;
        }
        Ok(Words { texts, public_url: public_url.to_owned() })
    }

    /// The letter as a message.
    pub fn message(&self, letter: &Letter, locale: Locale) -> Result<Message, NoWords> {
        let name = format!("{}.{}.txt", letter.kind(), locale.as_str());
        let order = letter.order().map(|order| order.values(locale));
        let filled =
            self.texts.get_template(&name)?.render(context! { minutes => letter.minutes(), order })?;
        let (subject, body) = filled.split_once("\n\n").unwrap_or((&filled, ""));
        let values = context! {
            language => locale.as_str(),
            subject,
            blocks => blocks(body),
            link => letter.link(&self.public_url),
            shop => self.public_url.as_str(),
        };
        let set = |layout: &str| self.texts.get_template(layout)?.render(&values);
        Ok(Message {
            subject: subject.trim().to_owned(),
            html: set("layout.html")?,
            plain: set("layout.txt")?,
        })
    }
}

/// Paragraphs, and the button among them.
fn blocks(body: &str) -> Vec<Value> {
    let paragraphs = body.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    paragraphs
        .map(|text| match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(label) => context! { text => label, is_button => true },
            None => {
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                context! { text, lines, is_button => false }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Money};
    use crate::domain::id::OrderId;
    use crate::domain::notice::NoticeKind;
    use crate::domain::stock::Millis;
    use crate::mail::{LetterLine, LinkToken, OrderLetter};

    fn about(kind: NoticeKind) -> OrderLetter {
        let price = Money { amount: 19_900, currency: Currency::KRW };
        OrderLetter {
            kind,
            order: OrderId::from_bytes([7; 16]),
            whole: true,
            lines: vec![LetterLine { name: "Moon jar".to_owned(), quantity: 2, unit_price: price }],
            total: Some(Money { amount: 39_800, ..price }),
            pay_until: Some(Millis(1_800_000_000_000)),
            money_back: true,
            back: Some(Money { amount: 39_800, ..price }),
            sold: true,
            declined: true,
            undecided: false,
        }
    }

    pub fn all_letters() -> Vec<Letter> {
        let token = || LinkToken::new("verify_4f-_x");
        let orders = NoticeKind::ALL.iter().map(|kind| Letter::Order(Box::new(about(*kind))));
        let mut letters: Vec<Letter> = orders.collect();
        letters.extend([
            Letter::VerifyAddress { token: token() },
            Letter::AddressTaken,
            Letter::PhoneTaken,
            Letter::PasswordReset { token: token(), minutes: 30 },
            Letter::PasswordChanged,
            Letter::ConfirmNewAddress { token: token() },
            Letter::AddressChanging,
            Letter::AddressChanged,
        ]);
        letters
    }

    #[test]
    fn every_letter_exists_in_every_language_and_both_forms() {
        let words = Words::new("https://shop.example.com").unwrap();
        let letters = all_letters();
        assert_eq!(letters.len() * Locale::ALL.len(), TEXTS.len());
        for letter in &letters {
            let link = letter.link("https://shop.example.com");
            for locale in Locale::ALL {
                let message = words.message(letter, locale).unwrap();
                let told = format!(
                    "{letter:?} {locale:?}\n{}\n{}\n{}",
                    message.subject, message.plain, message.html
                );
                assert!(!message.subject.is_empty() && !message.subject.contains('\n'), "{told}");
                assert!(message.plain.contains(&link), "{told}");
                let html = message.html.replace("&#x2f;", "/");
                assert!(html.contains(&format!("href=\"{link}\"")), "{told}");
                assert!(message.html.contains(&format!("<html lang=\"{}\">", locale.as_str())), "{told}");
                let korean = |text: &str| text.chars().any(|c| ('가'..='힣').contains(&c));
                assert_eq!(korean(&message.plain), locale == Locale::Ko, "{told}");
                assert_eq!(korean(&message.subject), locale == Locale::Ko, "{told}");
                assert!(!message.plain.contains('['), "{told}");
                assert!(!message.plain.contains("{{") && !message.html.contains("{{"), "{told}");
            }
        }
    }

    #[test]
    fn a_link_carries_its_token_where_no_server_sees_it() {
        let token = LinkToken::new("reset_4f");
        let letter = Letter::PasswordReset { token, minutes: 30 };
        assert_eq!(letter.link("https://a"), "https://a/reset#token=reset_4f");
        let message = Words::new("https://a").unwrap().message(&letter, Locale::En).unwrap();
        assert!(message.plain.contains("30 minutes"), "{}", message.plain);
        assert!(!format!("{letter:?}").contains("4f"));
    }

    #[test]
    fn a_letter_about_an_order_says_what_is_so() {
        let words = Words::new("https://a").unwrap();
        let told = |letter: OrderLetter, locale| {
            let message = words.message(&Letter::Order(Box::new(letter)), locale).unwrap();
            format!("{}\n{}", message.subject, message.plain)
        };
        let placed = told(about(NoticeKind::Placed), Locale::En);
        for part in [
            "· Moon jar, 2 × KRW 19,900 = KRW 39,800",
            "Total: KRW 39,800",
            "until 2027-01-15 08:00 UTC",
            "https://a/orders/order_",
        ] {
            assert!(placed.contains(part), "{part}: {placed}");
        }
        let paid_at_once = OrderLetter { pay_until: None, ..about(NoticeKind::Placed) };
        assert!(!told(paid_at_once, Locale::En).contains("Please pay"));
        let korean = told(about(NoticeKind::Placed), Locale::Ko);
        assert!(korean.contains("합계: 39,800원"), "{korean}");
        let whole = about(NoticeKind::Cancelled);
        let part = OrderLetter { whole: false, money_back: false, sold: false, ..whole.clone() };
        let given_before = OrderLetter { money_back: false, ..whole.clone() };
        // One that an older version has written, and that waits.
        let of_old = OrderLetter { back: None, sold: false, declined: false, ..whole.clone() };
        let [whole, part, given_before, of_old] =
            [whole, part, given_before, of_old].map(|letter| told(letter, Locale::En));
        let all_back = "KRW 39,800 is on its way back to you";
        assert!(whole.starts_with("Your order is cancelled") && whole.contains(all_back), "{whole}");
        assert!(part.starts_with("Part of your order") && part.contains("Nothing was charged"), "{part}");
        assert!(!given_before.contains("charged") && !given_before.contains("on its way"), "{given_before}");
        assert!(of_old.contains("What was paid for it is on its way back to you"), "{of_old}");
        let korean = told(about(NoticeKind::Returned), Locale::Ko);
        assert!(korean.contains("환불 금액은 39,800원이며"), "{korean}");
        let mut two = about(NoticeKind::Paid);
        two.lines.push(LetterLine { name: "Cup & <b>".to_owned(), ..two.lines[0].clone() });
        let html = words.message(&Letter::Order(Box::new(two)), Locale::En).unwrap().html;
        assert!(html.contains("39,800<br>") && html.contains("Cup &amp; &lt;b&gt;"), "{html}");
    }

    #[test]
    fn whose_payment_has_failed_reads_what_becomes_of_his_money() {
        let words = Words::new("https://a").unwrap();
        let on_its_way = ["What was taken for it is on its way back to you", "결제하신 방법으로 환불되며"];
        let nothing = ["nothing was charged", "비용은 청구되지 않았습니다"];
        let lapsed = (NoticeKind::Expired, ["not paid in time", "기한 안에"]);
        for (money_back, declined, said) in [
            (true, true, ["The payment could not be completed", "결제가 완료되지 못하여"]),
            (true, false, ["The payment could not be completed", "결제가 완료되지 못하여"]),
            (false, true, ["The payment was declined", "결제가 거절되어"]),
            (false, false, ["The payment could not be made", "결제가 이루어지지 않아"]),
        ] {
            for (at, locale) in [Locale::En, Locale::Ko].into_iter().enumerate() {
                for (kind, said) in [(NoticeKind::PaymentFailed, said), lapsed] {
                    let letter = OrderLetter { money_back, declined, back: None, sold: false, ..about(kind) };
                    let message = words.message(&Letter::Order(Box::new(letter)), locale).unwrap();
                    for text in [&message.plain, &message.html] {
                        assert!(text.contains(said[at]), "{text}");
                        assert_eq!(text.contains(on_its_way[at]), money_back, "{text}");
                        assert_eq!(text.contains(nothing[at]), !money_back, "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn while_a_payment_is_undecided_its_letter_says_neither_why_nor_what_it_cost() {
        let words = Words::new("https://a").unwrap();
        for (locale, unpaid, unsaid) in [
            (Locale::En, "paid", ["declined", "could not be made", "charged", "way back"]),
            (Locale::Ko, "결제", ["거절", "이루어지지", "청구", "환불"]),
        ] {
            for kind in [NoticeKind::PaymentFailed, NoticeKind::Expired, NoticeKind::Cancelled] {
                let open = OrderLetter { money_back: false, back: None, sold: false, ..about(kind) };
                let open = Letter::Order(Box::new(OrderLetter { undecided: true, ..open }));
                let message = words.message(&open, locale).unwrap();
                for text in [&message.plain, &message.html] {
                    assert!(kind == NoticeKind::Cancelled || text.contains(unpaid), "{text}");
                    for word in unsaid {
                        assert!(!text.contains(word), "{word}: {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_set_into_html_is_escaped() {
        let words = Words::new("https://a/\"><script>").unwrap();
        let html = words.message(&Letter::AddressTaken, Locale::En).unwrap().html;
        assert!(!html.contains("<script>"), "{html}");
    }
}
