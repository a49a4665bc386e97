//! Where a parcel goes.

use serde::{Deserialize, Serialize};

use super::name::{NameError, line};
use super::{PersonName, parsed_text};

const LINE_CHARS_MAX: usize = 120;
const POSTAL_CODE_CHARS_MAX: usize = 12;

/// ISO 3166-1 alpha-2, in order.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV \
    BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO \
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP \
    KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU \
    MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB \
    SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY \
    UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// A postal address, as it came from a client and as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Who takes the parcel, if not the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<PersonName>,
    pub line1: AddressLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<AddressLine>,
    pub city: AddressLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<AddressLine>,
    pub postal_code: PostalCode,
    pub country: Country,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Address(…)")
    }
}

/// One to 120 letters on one line.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressLine(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of an address has 1 to 120 letters, without control characters")]
pub struct AddressLineError;

impl AddressLine {
    pub fn parse(text: &str) -> Result<AddressLine, AddressLineError> {
        line(text, LINE_CHARS_MAX).map(AddressLine).map_err(|_: NameError| AddressLineError)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Two to twelve letters, digits, spaces and dashes, in upper case.
#[derive(Clone, PartialEq, Eq)]
pub struct PostalCode(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a postal code has 2 to 12 letters, digits, spaces or dashes")]
pub struct PostalCodeError;

impl PostalCode {
    pub fn parse(text: &str) -> Result<PostalCode, PostalCodeError> {
        let code = line(text, POSTAL_CODE_CHARS_MAX).map_err(|_| PostalCodeError)?.to_ascii_uppercase();
        let right =
            code.len() >= 2 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ' || b == b'-');
        if right { Ok(PostalCode(code)) } else { Err(PostalCodeError) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A country after ISO 3166-1: two capital letters.
#[derive(Clone, PartialEq, Eq)]
pub struct Country(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a country is two letters after ISO 3166, such as KR")]
pub struct CountryError;

impl Country {
    pub fn parse(text: &str) -> Result<Country, CountryError> {
        let code = text.trim().to_ascii_uppercase();
        if code.len() == 2 && COUNTRIES.split_whitespace().any(|known| known == code) {
            Ok(Country(code))
        } else {
            Err(CountryError)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

parsed_text!(AddressLine, AddressLineError, as_str);
parsed_text!(PostalCode, PostalCodeError, as_str);
parsed_text!(Country, CountryError, as_str);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<Address, String> {
        serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_comes_back_as_it_was_stored() {
        let said = json!({
            "line1": "세종대로 110", "line2": "3층", "city": "서울", "postal_code": "04524", "country": "kr",
        });
        let address = read(said).unwrap();
        assert_eq!(address.country.as_str(), "KR");
        assert_eq!(read(serde_json::to_value(&address).unwrap()), Ok(address.clone()));
        assert_eq!(format!("{address:?}"), "Address(…)");
    }

    #[test]
    fn what_is_missing_too_long_or_unknown_is_refused() {
        let good =
            json!({"line1": "110 Sejong-daero", "city": "Seoul", "postal_code": "04524", "country": "KR"});
        assert!(read(good.clone()).is_ok());
        for (field, value) in [
            ("line1", json!("")),
            ("line1", json!("x".repeat(121))),
            ("line1", json!("a\u{7}b")),
            ("line1", json!(7)),
            ("city", json!(null)),
            ("postal_code", json!("0")),
            ("postal_code", json!("04524<script>")),
            ("country", json!("Korea")),
            ("country", json!("XX")),
            ("verified", json!(true)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_country_is_listed_once_and_in_order() {
        let codes: Vec<&str> = COUNTRIES.split_whitespace().collect();
        assert_eq!(codes.len(), 249);
        assert!(codes.is_sorted_by(|a, b| a < b));
    }
}
