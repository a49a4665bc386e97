//! The life of an account: which states there are, and which moves between them are legal.

use super::user::Role;

/// Where an account stands. The words are those of the tables and the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountState {
    /// Signed up; nobody has shown yet that the address is theirs.
    Unverified,
    Verified,
    /// Kept out by an administrator.
    Suspended,
    /// Nothing is left of the person but an opaque id.
    Deleted,
}

/// What happens to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountMove {
    Verify,
    Suspend,
    Reinstate,
    Delete,
}

impl AccountState {
    pub const ALL: [AccountState; 4] =
        [AccountState::Unverified, AccountState::Verified, AccountState::Suspended, AccountState::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            AccountState::Unverified => "unverified",
            AccountState::Verified => "verified",
            AccountState::Suspended => "suspended",
            AccountState::Deleted => "deleted",
        }
    }

    pub fn from_word(word: &str) -> Option<AccountState> {
        AccountState::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Where a move leads from here. `None`: it is not legal.
    pub fn after(self, what: AccountMove) -> Option<AccountState> {
        use AccountMove::{Delete, Reinstate, Suspend, Verify};
        use AccountState::{Deleted, Suspended, Unverified, Verified};
        match (self, what) {
            (Unverified, Verify) => Some(Verified),
            (Verified, Suspend) => Some(Suspended),
            (Suspended, Reinstate) => Some(Verified),
            (Unverified | Verified | Suspended, Delete) => Some(Deleted),
            // Asked twice is done once.
            (Suspended, Suspend) => Some(Suspended),
            (Verified, Reinstate) => Some(Verified),
            (Deleted, Verify | Suspend | Reinstate | Delete)
            | (Unverified, Suspend | Reinstate)
            | (Verified | Suspended, Verify) => None,
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Shopper => "shopper",
            Role::Admin => "admin",
        }
    }

    pub fn from_word(word: &str) -> Option<Role> {
        [Role::Shopper, Role::Admin].into_iter().find(|role| role.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_its_word() {
        for state in AccountState::ALL {
            assert_eq!(AccountState::from_word(state.as_str()), Some(state));
        }
        assert_eq!(AccountState::from_word("root"), None);
    }

    #[test]
    fn nothing_brings_back_the_deleted_and_nobody_is_verified_by_a_detour() {
        for what in [AccountMove::Verify, AccountMove::Suspend, AccountMove::Reinstate, AccountMove::Delete] {
            assert_eq!(AccountState::Deleted.after(what), None);
        }
        assert_eq!(AccountState::Unverified.after(AccountMove::Reinstate), None);
        assert_eq!(AccountState::Suspended.after(AccountMove::Verify), None);
    }
}
