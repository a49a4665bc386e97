//! What administrators take away as a table, and whom they find by an address.
//!
//! Always true: it stands in the trail before it is shown, in words and ids alone. A page that names nobody leaves nothing.

use super::{Unable, Users};
use crate::domain::id::UserId;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::Email;

/// Accounts that one address finds: a proved one, and those that are to be proved.
const OF_AN_ADDRESS: usize = 100;

impl Users {
    /// Says that somebody takes this table away, and what of it.
    pub async fn tell_export(
        &self,
        admin: UserId,
        table: &'static str,
        of: impl FnOnce(Record) -> Record,
    ) -> Result<(), Unable> {
        let record = Record::new(Deed::TableExported, self.0.clock.now()).by(admin).word("table", table);
        Ok(self.0.tables.trail().append(&of(record)).await?)
    }

    /// Says that somebody asks whose this address is, and whom it finds.
    pub async fn tell_look_up(&self, admin: UserId, email: &Email) -> Result<(), Unable> {
        let found = self.look_up(None, None, Some(email), None, OF_AN_ADDRESS).await?.users;
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let mut record = Record::new(Deed::UserLookedUp, self.0.clock.now()).by(admin).number("found", count);
        if let Some(first) = found.first() {
            record = record.on(first.id);
        }
        Ok(self.0.tables.trail().append(&record).await?)
    }
}
