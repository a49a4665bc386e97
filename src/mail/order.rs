//! What a letter about an order says: the lines, what they cost, until when they are kept; and how that is written down for people.
//!
//! It says things and sums, never who bought them nor where they go. Always true: a product's name stays within its line, whatever
//! somebody called it.

use jiff::Timestamp;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use crate::domain::amount::Money;
use crate::domain::id::OrderId;
use crate::domain::notice::NoticeKind;
use crate::domain::stock::Millis;
use crate::domain::user::Locale;

/// An order, or a line of it, as its buyer is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLetter {
    pub kind: NoticeKind,
    pub order: OrderId,
    /// It is about all of the order.
    pub whole: bool,
    /// What it is about; never empty.
    pub lines: Vec<LetterLine>,
    /// What these cost together.
    pub total: Option<Money>,
    /// Until when it can be paid; for an order that is not.
    pub pay_until: Option<Millis>,
    /// Something was taken for it, and goes back.
    pub money_back: bool,
    /// How much of that is for these lines, where they were sold.
    #[serde(default)]
    pub back: Option<Money>,
    /// It was paid, whatever has become of it.
    #[serde(default)]
    pub sold: bool,
    /// The bank said no to who tried last.
    #[serde(default)]
    pub declined: bool,
    /// It does not show yet what became of the payment: neither why it failed, nor that nothing was charged.
    #[serde(default)]
    pub undecided: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterLine {
    pub name: String,
    pub quantity: u32,
    pub unit_price: Money,
}

impl OrderLetter {
    /// What its text may name.
    pub(super) fn values(&self, locale: Locale) -> Value {
        let lines: Vec<String> = self.lines.iter().map(|line| line.written(locale)).collect();
        context! {
            id => self.order.to_string(),
            whole => self.whole,
            lines => lines.join("\n"),
            total => self.total.map(|total| money(total, locale)),
            pay_until => self.pay_until.map(moment),
            money_back => self.money_back,
            back => self.back.map(|back| money(back, locale)),
            sold => self.sold,
            declined => self.declined,
            undecided => self.undecided,
        }
    }
}

impl LetterLine {
    fn written(&self, locale: Locale) -> String {
        let name: String =
            self.name.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let (quantity, price) = (self.quantity, self.unit_price);
        let each = money(price, locale);
        match price.amount.checked_mul(i64::from(quantity)) {
            Some(amount) if quantity > 1 => {
                format!("· {name}, {quantity} × {each} = {}", money(Money { amount, ..price }, locale))
            }
            _ => format!("· {name}, {quantity} × {each}"),
        }
    }
}

/// `19,900원` and `KRW 19,900`; other currencies by their code everywhere.
fn money(money: Money, locale: Locale) -> String {
    match (locale, money.currency.as_str()) {
        (Locale::Ko, "KRW") => format!("{}원", money.figures()),
        (_, currency) => format!("{currency} {}", money.figures()),
    }
}

/// To the minute, and never later than it is.
fn moment(at: Millis) -> String {
    let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_line_whatever_the_product_is_called() {
        let unit_price = Money { amount: 19_900, currency: "KRW".parse().unwrap() };
        let line = |quantity, name: &str| LetterLine { name: name.to_owned(), quantity, unit_price };
        let written = line(2, "Moon jar").written(Locale::En);
        assert_eq!(written, "· Moon jar, 2 × KRW 19,900 = KRW 39,800");
        assert_eq!(line(1, "달항아리").written(Locale::Ko), "· 달항아리, 1 × 19,900원");
        assert_eq!(line(1, "a\n\n[b]").written(Locale::En), "· a  [b], 1 × KRW 19,900");
        let unit_price = Money { amount: 1_999, currency: "USD".parse().unwrap() };
        let dollars = LetterLine { unit_price, ..line(3, "Cup") };
        assert_eq!(dollars.written(Locale::Ko), "· Cup, 3 × USD 19.99 = USD 59.97");
    }

    #[test]
    fn a_letter_that_waits_since_an_older_version_is_read() {
        let written = r#"{"kind":"cancelled","order":ORDER,"whole":true,"lines":[],"total":null,"pay_until":null,
            "money_back":true}"#;
        let order = OrderId::from_bytes([7; 16]);
        let written = written.replace("ORDER", &serde_json::to_string(&order).unwrap());
        let read: OrderLetter = serde_json::from_str(&written).unwrap();
        assert_eq!((read.order, read.kind, read.money_back), (order, NoticeKind::Cancelled, true));
        assert_eq!((read.back, read.sold, read.declined, read.undecided), (None, false, false, false));
    }

    #[test]
    fn a_moment_is_told_to_the_minute() {
        assert_eq!(moment(Millis(1_800_000_059_999)), "2027-01-15 08:00 UTC");
    }
}
