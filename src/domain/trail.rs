//! What is written down about who did what: deeds, in words and ids alone.
//!
//! Always true: a record holds nothing that says who somebody is outside this shop. Words are our own, known when the program
//! is compiled; all else is an id or a number.

use std::fmt::{Display, Write as _};

use super::id::{TypedId, UserId};
use super::stock::Millis;

macro_rules! deeds {
    ($( $variant:ident $word:literal ),* $(,)?) => {
        /// What was done, or is about to be: what an administrator asks for is written down before it is done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Deed {
            $( $variant ),*
        }

        impl Deed {
            pub const ALL: &'static [Deed] = &[$( Deed::$variant ),*];

            /// The word that stands in the table.
            pub fn as_str(self) -> &'static str {
                match self { $( Deed::$variant => $word ),* }
            }
        }
    };
}

deeds!(
    SignedUp "signed_up",
    AddressVerified "address_verified",
    LoggedIn "logged_in",
    LogInFailed "log_in_failed",
    PasswordRefused "password_refused",
    LoggedOut "logged_out",
    TokenReused "token_reused",
    RefreshRefused "refresh_refused",
    PasswordChanged "password_changed",
    PasswordResetAsked "password_reset_asked",
    PasswordReset "password_reset",
    AddressChangeAsked "address_change_asked",
    AddressChanged "address_changed",
    ProfileChanged "profile_changed",
    RoleChanged "role_changed",
    Suspended "suspended",
    Reinstated "reinstated",
    DataExported "data_exported",
    AccountDeleted "account_deleted",
    ProductMade "product_made",
    ProductChanged "product_changed",
    ProductArchived "product_archived",
    PriceChanged "price_changed",
    StockChanged "stock_changed",
    SalePaused "sale_paused",
    SaleResumed "sale_resumed",
    ApprovalAsked "approval_asked",
    ApprovalSeconded "approval_seconded",
    RefundAsked "refund_asked",
    CompensationRetried "compensation_retried",
    ReviewAccepted "review_accepted",
    ReviewGivenBack "review_given_back",
    RefundSettled "refund_settled",
    JobRun "job_run",
    WebhookRegistered "webhook_registered",
    WebhookChanged "webhook_changed",
    WebhookRotated "webhook_rotated",
    WebhookReplayed "webhook_replayed",
    WebhookDisabled "webhook_disabled",
    WebhookRemoved "webhook_removed",
    TableExported "table_exported",
    UserLookedUp "user_looked_up",
    MasterKeyGivenUp "master_key_given_up",
);

/// One entry, before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub at: Millis,
    pub deed: Deed,
    /// The id of who did it; empty for the program itself, or nobody known.
    pub actor: String,
    /// The id of whom or what it was done to; empty when that is nobody known.
    pub subject: String,
    /// `word=value` pairs with spaces between.
    pub detail: String,
}

impl Record {
    pub fn new(deed: Deed, at: Millis) -> Record {
        Record { at, deed, actor: String::new(), subject: String::new(), detail: String::new() }
    }

    pub fn by(mut self, actor: impl TypedId) -> Record {
        self.actor = actor.to_string();
        self
    }

    pub fn on(mut self, subject: impl TypedId) -> Record {
        self.subject = subject.to_string();
        self
    }

    pub fn word(self, name: &'static str, word: &'static str) -> Record {
        self.pair(name, word)
    }

    pub fn number(self, name: &'static str, number: i64) -> Record {
        self.pair(name, number)
    }

    pub fn id(self, name: &'static str, id: impl TypedId) -> Record {
        self.pair(name, id)
    }

    /// The same three, where there is one.
    pub fn word_if(self, name: &'static str, word: Option<&'static str>) -> Record {
        self.pair_if(name, word)
    }

    pub fn number_if(self, name: &'static str, number: Option<i64>) -> Record {
        self.pair_if(name, number)
    }

    pub fn id_if(self, name: &'static str, id: Option<impl TypedId>) -> Record {
        self.pair_if(name, id)
    }

    /// Who had asked for it first and who for the same, where it took two: it may be a third one who does it.
    pub fn by_two(self, two: Option<(UserId, UserId)>) -> Record {
        match two {
            Some((first, second)) => self.id("asked_by", first).id("seconded_by", second),
            None => self,
        }
    }

    fn pair_if(self, name: &'static str, value: Option<impl Display>) -> Record {
        match value {
            Some(value) => self.pair(name, value),
            None => self,
        }
    }

    fn pair(mut self, name: &'static str, value: impl Display) -> Record {
        let gap = if self.detail.is_empty() { "" } else { " " };
        // Writing into a string has no way to fail.
        let _ = write!(self.detail, "{gap}{name}={value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ProductId;

    #[test]
    fn a_record_is_words_and_ids() {
        let (user, product) = (UserId::new(Millis(1), 2), ProductId::new(Millis(1), 3));
        let record = Record::new(Deed::StockChanged, Millis(9))
            .by(user)
            .on(product)
            .number("delta", -3)
            .word("why", "lost");
        assert_eq!(record.detail, "delta=-3 why=lost");
        assert_eq!(record.clone().by_two(None), record);
        let nothing = record.clone().word_if("a", None).number_if("b", None).id_if("c", None::<UserId>);
        assert_eq!(nothing, record);
        let more = record.clone().word_if("a", Some("x")).number_if("b", Some(1)).id_if("c", Some(product));
        assert_eq!(more.detail, format!("delta=-3 why=lost a=x b=1 c={product}"));
        let other = UserId::new(Millis(1), 4);
        assert_eq!(
            record.clone().by_two(Some((user, other))).detail,
            format!("delta=-3 why=lost asked_by={user} seconded_by={other}")
        );
        assert_eq!((record.actor, record.subject), (user.to_string(), product.to_string()));
    }

    #[test]
    fn every_deed_has_a_word_of_its_own() {
        let mut words: Vec<_> = Deed::ALL.iter().map(|deed| deed.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Deed::ALL.len());
        assert!(words.iter().all(|word| word.len() <= 32));
    }
}
