//! The words that the simulated provider decides by. None of them stands for a card.

use super::book::{Entry, No, State};
use crate::domain::amount::{Currency, Money};

/// What a token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Ok,
    Declined,
    TimeoutThen(bool),
    PendingThen(bool),
    Random(u8),
    WrongAmount,
    WrongCurrency,
    Refused,
    RefundFails(u8),
    Unknown,
}

impl Token {
    pub fn of(word: &str) -> Token {
        match word {
            "tok_ok" => Token::Ok,
            "tok_declined" => Token::Declined,
            "tok_timeout_then_ok" => Token::TimeoutThen(true),
            "tok_timeout_then_declined" => Token::TimeoutThen(false),
            "tok_pending_then_ok" => Token::PendingThen(true),
            "tok_pending_then_declined" => Token::PendingThen(false),
            "tok_wrong_amount" => Token::WrongAmount,
            "tok_wrong_currency" => Token::WrongCurrency,
            "tok_refused" => Token::Refused,
            "tok_refund_fails_twice" => Token::RefundFails(2),
            "tok_refund_fails_always" => Token::RefundFails(u8::MAX),
            _ => Token::numbered(word).unwrap_or(Token::Unknown),
        }
    }

    fn numbered(word: &str) -> Option<Token> {
        if let Some(percent) = word.strip_prefix("tok_random_") {
            return percent.parse().ok().filter(|percent| *percent <= 100).map(Token::Random);
        }
        let tries = word.strip_prefix("tok_refund_fails_")?;
        tries.parse().ok().map(Token::RefundFails)
    }

    pub fn loses_answer(self) -> bool {
        matches!(self, Token::TimeoutThen(_))
    }

    /// What becomes of a payment that would be captured. `chance` is below a hundred.
    pub fn decide(self, captured: Entry, chance: u8) -> Entry {
        let state = |state| Entry { state, ..captured };
        let no = No::CardDeclined;
        match self {
            Token::Ok | Token::TimeoutThen(true) => captured,
            Token::Declined | Token::TimeoutThen(false) => state(State::Declined(no)),
            Token::PendingThen(ok) => state(State::PendingThen(ok)),
            Token::Random(percent) if chance < percent => state(State::Declined(no)),
            Token::Random(_) => captured,
            Token::WrongAmount => {
                let amount = captured.asked.amount.saturating_add(1);
                Entry { taken: Money { amount, ..captured.asked }, ..captured }
            }
            Token::WrongCurrency => Entry {
                taken: Money { currency: another(captured.asked.currency), ..captured.asked },
                ..captured
            },
            Token::RefundFails(refund_fails) => Entry { refund_fails, ..captured },
            // It has never been taken as far as this.
            Token::Refused => state(State::Cancelled),
            Token::Unknown => state(State::Declined(No::InvalidToken)),
        }
    }
}

/// The currency that ISO 4217 keeps for tests, or won.
fn another(currency: Currency) -> Currency {
    "XTS".parse().ok().filter(|test| *test != currency).unwrap_or(Currency::KRW)
}
