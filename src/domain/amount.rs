//! How many and how much: quantities that are never zero, money that never rounds.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most units one line may ask for.
pub const LINE_QUANTITY_MAX: u32 = 1_000;

/// Units of one product: at least one. Nobody behind the door checks for zero again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quantity(NonZeroU32);

impl Quantity {
    /// `units` as a quantity; `None` for zero or for more than a line may hold.
    pub fn of_line(units: u32) -> Option<Self> {
        if units > LINE_QUANTITY_MAX {
            return None;
        }
        NonZeroU32::new(units).map(Self)
    }

    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What ISO 4217 lists: what people pay with, funds, and `XTS` for tests.
const LISTED: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF \
    CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL \
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK \
    MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD \
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED \
    VES VND VUV WST XAD XAF XCD XCG XOF XPF XTS YER ZAR ZMW ZWG";

/// A currency after ISO 4217, as its three letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    pub const KRW: Currency = Currency(*b"KRW");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Whether somebody pays with it. One that was taken off the list stays the currency of what it has paid.
    pub fn is_listed(&self) -> bool {
        Currency::listed().any(|known| known == self.as_str())
    }

    /// In order of their letters.
    pub fn listed() -> impl Iterator<Item = &'static str> {
        LISTED.split_whitespace()
    }

    /// How many digits of an amount stand behind the point (ISO 4217): none for the won, two for most.
    pub fn minor_digits(&self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF"
            | b"UGX" | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            b"CLF" | b"UYW" => 4,
            _ => 2,
        }
    }
}

/// Not three capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters (ISO 4217)")]
pub struct NotACurrency;

impl FromStr for Currency {
    type Err = NotACurrency;

    fn from_str(word: &str) -> Result<Self, NotACurrency> {
        let letters: [u8; 3] = word.as_bytes().try_into().map_err(|_| NotACurrency)?;
        if letters.iter().all(u8::is_ascii_uppercase) { Ok(Self(letters)) } else { Err(NotACurrency) }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let word = std::borrow::Cow::<str>::deserialize(d)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

/// An amount in minor units of one currency (for KRW the won itself). Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    pub amount: i64,
    pub currency: Currency,
}

/// The largest price of one unit: a thousand units of fifty such lines still fit an `i64`.
pub const UNIT_PRICE_MAX: i64 = 100_000_000_000_000;

impl Money {
    /// `self × quantity`; `None` on overflow.
    pub fn times(self, quantity: Quantity) -> Option<Money> {
        let amount = self.amount.checked_mul(i64::from(quantity.get()))?;
        Some(Money { amount, currency: self.currency })
    }

    /// The amount as people write it, without its currency: whole units in groups of three, and behind the point the minor ones.
    pub fn figures(self) -> String {
        let digits = self.currency.minor_digits();
        let unit = 10_u64.pow(digits);
        let amount = self.amount.unsigned_abs();
        let whole = (amount / unit).to_string();
        let mut figures = String::from(if self.amount < 0 { "-" } else { "" });
        for (at, digit) in whole.char_indices() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                figures.push(',');
            }
            figures.push(digit);
        }
        if digits > 0 {
            figures.push_str(&format!(".{:0width$}", amount % unit, width = digits as usize));
        }
        figures
    }

    /// The sum of two amounts of one currency; `None` on overflow or for two currencies.
    pub fn plus(self, other: Money) -> Option<Money> {
        if self.currency != other.currency {
            return None;
        }
        let amount = self.amount.checked_add(other.amount)?;
        Some(Money { amount, currency: self.currency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_one_to_a_thousand() {
        assert_eq!(Quantity::of_line(0), None);
        assert_eq!(Quantity::of_line(1).map(Quantity::get), Some(1));
        assert_eq!(Quantity::of_line(1_000).map(Quantity::get), Some(1_000));
        assert_eq!(Quantity::of_line(1_001), None);
    }

    #[test]
    fn money_of_two_currencies_does_not_add_up() {
        let won = Money { amount: 5, currency: Currency::KRW };
        let euro = Money { amount: 5, currency: Currency(*b"EUR") };
        assert_eq!(won.plus(euro), None);
        assert_eq!(won.plus(won).map(|m| m.amount), Some(10));
        assert_eq!(Money { amount: i64::MAX, ..won }.plus(won), None);
        assert!("krw".parse::<Currency>().is_err());
    }

    #[test]
    fn a_currency_is_on_the_list() {
        let is_listed = |word: &str| word.parse::<Currency>().unwrap().is_listed();
        assert!(["KRW", "AED", "ZWG", "XTS"].into_iter().all(is_listed));
        assert!(!["QQQ", "AAA", "DEM"].into_iter().any(is_listed));
        let codes: Vec<&str> = Currency::listed().collect();
        assert!(codes.is_sorted() && codes.iter().all(|code| code.parse::<Currency>().is_ok()));
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        let written =
            |amount, currency: &str| Money { amount, currency: currency.parse().unwrap() }.figures();
        assert_eq!(written(0, "KRW"), "0");
        assert_eq!(written(999, "KRW"), "999");
        assert_eq!(written(1_234_567, "KRW"), "1,234,567");
        assert_eq!(written(1_234_567, "USD"), "12,345.67");
        assert_eq!(written(5, "EUR"), "0.05");
        assert_eq!(written(1_234_567, "KWD"), "1,234.567");
        assert_eq!(written(i64::MAX, "JPY"), "9,223,372,036,854,775,807");
    }
}
