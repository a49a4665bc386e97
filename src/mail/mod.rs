//! Letters: what the shop writes to people, in which words, and how it leaves the house.
//!
//! A [`Letter`] says what happened; [`Words`] makes a message of it in somebody's language, as HTML and as plain text; a
//! [`Mailer`] hands the message to a mail server, or puts it into a folder where there is none. Always true: no letter says
//! anything a stranger wrote, and neither an address nor a token is ever logged.

mod mailer;
mod order;
mod words;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use mailer::{CONNECTIONS_MAX, MailError, Mailer, Sent, Why};
pub use order::{LetterLine, OrderLetter};
pub use words::{Message, NoWords, Words};

use crate::domain::postage::LetterClass;

/// A secret that a link carries. It prints as three dots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkToken(String);

impl LinkToken {
    pub fn new(token: &str) -> LinkToken {
        LinkToken(token.to_owned())
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("LinkToken(…)")
    }
}

/// What a person is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// Somebody signed up with this address: is it his?
    VerifyAddress {
        token: LinkToken,
    },
    /// Somebody tried to sign up with an address that has an account.
    AddressTaken,
    /// Somebody tried to use a telephone number that has an account.
    PhoneTaken,
    /// Somebody asked for a new password.
    PasswordReset {
        token: LinkToken,
        minutes: u32,
    },
    PasswordChanged,
    /// To the new address: is it his?
    ConfirmNewAddress {
        token: LinkToken,
    },
    /// To the old address: somebody asked for another one.
    AddressChanging,
    /// To both addresses, when it has happened.
    AddressChanged,
    /// Something happened to an order.
    Order(Box<OrderLetter>),
}

impl Letter {
    /// The word that stands in tables, in the log and in the name of the letter's text.
    pub fn kind(&self) -> &'static str {
        match self {
            Letter::VerifyAddress { .. } => "verify_address",
            Letter::AddressTaken => "address_taken",
            Letter::PhoneTaken => "phone_taken",
            Letter::PasswordReset { .. } => "password_reset",
            Letter::PasswordChanged => "password_changed",
            Letter::ConfirmNewAddress { .. } => "confirm_new_address",
            Letter::AddressChanging => "address_changing",
            Letter::AddressChanged => "address_changed",
            Letter::Order(letter) => letter.kind.as_str(),
        }
    }

    /// Whose room it takes among those that leave in an hour.
    pub fn class(&self) -> LetterClass {
        match self {
            Letter::VerifyAddress { .. } | Letter::ConfirmNewAddress { .. } => LetterClass::Unproved,
            Letter::Order(_) => LetterClass::Order,
            Letter::AddressTaken
            | Letter::PhoneTaken
            | Letter::PasswordReset { .. }
            | Letter::PasswordChanged
            | Letter::AddressChanging
            | Letter::AddressChanged => LetterClass::Account,
        }
    }

    /// Where its button leads. A token stands behind the `#`: what follows that stays in the browser, and in no server's log.
    fn link(&self, public_url: &str) -> String {
        match self {
            Letter::VerifyAddress { token } | Letter::ConfirmNewAddress { token } => {
                format!("{public_url}/verify#token={}", token.0)
            }
            Letter::PasswordReset { token, .. } => format!("{public_url}/reset#token={}", token.0),
            Letter::Order(letter) => format!("{public_url}/orders/{}", letter.order),
            Letter::AddressTaken
            | Letter::PhoneTaken
            | Letter::PasswordChanged
            | Letter::AddressChanging
            | Letter::AddressChanged => public_url.to_owned(),
        }
    }

    /// How long its link is good for, where that differs.
    fn minutes(&self) -> Option<u32> {
        match self {
            Letter::PasswordReset { minutes, .. } => Some(*minutes),
            _ => None,
        }
    }

    /// What it says of an order.
    fn order(&self) -> Option<&OrderLetter> {
        match self {
            Letter::Order(letter) => Some(letter),
            _ => None,
        }
    }
}
