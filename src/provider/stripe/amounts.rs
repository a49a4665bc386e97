//! How Stripe counts an amount. It is not always how ISO 4217 does, and so not how the shop does.
//!
//! Always true: what cannot be said exactly on the other side is not said at all, so nothing is ever rounded.
//!
//! <https://docs.stripe.com/currencies#zero-decimal>, <https://docs.stripe.com/currencies#special-cases>

use crate::domain::amount::{Currency, Money};
use crate::provider::ProviderError;

/// How many digits of Stripe's amount stand behind the point, and of what its amounts must be a multiple. `None`: we do not know.
fn counted(currency: &Currency) -> Option<(u32, i64)> {
    Some(match currency.as_str() {
        // In whole units; of these the shop counts ariary alone in hundredths.
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV"
        | "XAF" | "XOF" | "XPF" => (0, 1),
        // Whole units as well, told as if there were cents.
        "ISK" | "UGX" => (2, 100),
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => (3, 10),
        _ if currency.minor_digits() == 2 => (2, 1),
        _ => return None,
    })
}

/// As Stripe is told it.
pub fn told(money: Money) -> Result<i64, ProviderError> {
    let refused = |code: &str| ProviderError::Refused { code: code.to_owned() };
    let (digits, step) = counted(&money.currency).ok_or_else(|| refused("currency_not_supported"))?;
    let theirs = exactly(money.amount, money.currency.minor_digits(), digits);
    theirs.filter(|amount| amount % step == 0).ok_or_else(|| refused("amount_not_representable"))
}

/// As Stripe has told it. `None`: its currency is none that we know how to count, or it is no whole number of ours.
pub fn heard(amount: i64, currency: &str) -> Option<Money> {
    let currency: Currency = currency.to_ascii_uppercase().parse().ok()?;
    let (digits, _) = counted(&currency)?;
    Some(Money { amount: exactly(amount, digits, currency.minor_digits())?, currency })
}

fn exactly(amount: i64, from: u32, to: u32) -> Option<i64> {
    if to >= from {
        return amount.checked_mul(10_i64.checked_pow(to - from)?);
    }
    let unit = 10_i64.checked_pow(from - to)?;
    (amount % unit == 0).then(|| amount / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: i64, currency: &str) -> Money {
        Money { amount, currency: currency.parse().unwrap() }
    }

    fn refused(code: &str) -> Result<i64, ProviderError> {
        Err(ProviderError::Refused { code: code.to_owned() })
    }

    /// Ours, what Stripe is told of it, and what we hear again: one row for each currency that is not counted in cents by both.
    #[test]
    fn every_currency_is_told_as_stripe_counts_it_and_heard_as_we_do() {
        let rows = [
            // Without cents on both sides.
            ("BIF", 500, Ok(500)),
            ("CLP", 500, Ok(500)),
            ("DJF", 500, Ok(500)),
            ("GNF", 500, Ok(500)),
            ("JPY", 500, Ok(500)),
            ("KMF", 500, Ok(500)),
            ("KRW", 500, Ok(500)),
            ("PYG", 500, Ok(500)),
            ("RWF", 500, Ok(500)),
            ("VND", 500, Ok(500)),
            ("VUV", 500, Ok(500)),
            ("XAF", 500, Ok(500)),
            ("XOF", 500, Ok(500)),
            ("XPF", 500, Ok(500)),
            // Without cents here, with cents there.
            ("ISK", 500, Ok(50_000)),
            ("UGX", 500, Ok(50_000)),
            ("ISK", i64::MAX, refused("amount_not_representable")),
            // With cents here, without there.
            ("MGA", 500, Ok(5)),
            ("MGA", 501, refused("amount_not_representable")),
            // Thousandths on both sides, of which the last is nought there.
            ("BHD", 1_230, Ok(1_230)),
            ("JOD", 1_230, Ok(1_230)),
            ("KWD", 1_230, Ok(1_230)),
            ("OMR", 1_230, Ok(1_230)),
            ("TND", 1_230, Ok(1_230)),
            ("KWD", 1_234, refused("amount_not_representable")),
            // Cents are charged, whatever becomes of them in a payout.
            ("HUF", 501, Ok(501)),
            ("TWD", 501, Ok(501)),
            ("EUR", 501, Ok(501)),
            ("MRU", 501, Ok(501)),
            // Nobody has told us how these are counted there.
            ("IQD", 500, refused("currency_not_supported")),
            ("LYD", 500, refused("currency_not_supported")),
            ("CLF", 500, refused("currency_not_supported")),
            ("UYW", 500, refused("currency_not_supported")),
            ("UYI", 500, refused("currency_not_supported")),
        ];
        for (currency, ours, theirs) in &rows {
            assert_eq!(told(money(*ours, currency)), *theirs, "{ours} {currency}");
            if let Ok(theirs) = theirs {
                assert_eq!(heard(*theirs, &currency.to_lowercase()), Some(money(*ours, currency)));
            }
        }
        for currency in Currency::listed() {
            let special = money(0, currency).currency.minor_digits() != 2;
            let has_row = rows.iter().any(|(known, ..)| *known == currency);
            assert!(has_row || !special, "{currency} has no row");
            if !has_row {
                assert_eq!(told(money(1_234, currency)), Ok(1_234));
                assert_eq!(heard(1_234, currency), Some(money(1_234, currency)));
            }
        }
    }

    #[test]
    fn what_is_no_whole_number_of_ours_is_not_understood() {
        assert_eq!(heard(50_001, "isk"), None);
        assert_eq!(heard(i64::MAX, "mga"), None);
        assert_eq!(heard(1, "coins"), None);
        assert_eq!(heard(500, "iqd"), None);
        // That it is a multiple of ten is their rule for what they are told, and not ours for what we hear.
        assert_eq!(heard(1_234, "kwd"), Some(money(1_234, "KWD")));
    }
}
