//! A few letters and what follows from them, in one transaction on people's tables.

use std::collections::{BTreeSet, HashMap};

use tracing::error;

use super::NoticeHouse;
use crate::actors::outbox;
use crate::actors::user::Personal;
use crate::domain::id::{MailId, OrderId, UserId};
use crate::domain::notice::NoticeKind;
use crate::domain::stock::Millis;
use crate::mail::Letter;
use crate::persistence::StoreError;
use crate::persistence::outbox::Mail;
use crate::persistence::user::User;
use crate::telemetry::{notice_dropped, order_letter};

/// A letter that is to be written, none of which was told before.
pub struct Draft {
    /// Of what it tells: the letter is called by the first.
    pub names: Vec<MailId>,
    pub kind: NoticeKind,
    pub order: OrderId,
    /// When it happened.
    pub at: Millis,
    pub to: UserId,
    pub letter: Letter,
    /// When the buyer is to be reminded that the hold lapses.
    pub remind_at: Option<Millis>,
}

/// What stands or falls together.
#[derive(Default)]
pub struct Batch {
    pub drafts: Vec<Draft>,
    /// Reminders that have been dealt with …
    pub ended: Vec<OrderId>,
    /// … or put off, because the hold now stands for longer, or it does not show yet whether it is paid.
    pub put_off: Vec<(OrderId, Millis)>,
}

impl Batch {
    /// Writes all of it; how many letters that were. Who has no account any more is not written to: that is looked at inside, where
    /// nobody is erased meanwhile.
    pub async fn write(self, house: &NoticeHouse) -> Result<usize, StoreError> {
        let Batch { drafts, ended, mut put_off } = self;
        if drafts.is_empty() && ended.is_empty() && put_off.is_empty() {
            return Ok(0);
        }
        let people: BTreeSet<UserId> = drafts.iter().map(|draft| draft.to).collect();
        let mut writing = house.tables.begin().await?;
        let users = writing.users(&Vec::from_iter(people)).await?;
        let users: HashMap<UserId, User> = users.into_iter().map(|user| (user.id, user)).collect();
        let (mut names, mut mails, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for draft in drafts {
            let Some(user) = users.get(&draft.to).filter(|user| is_reachable(user)) else {
                notice_dropped("no_account", draft.names.len() as u64);
                continue;
            };
            if let Some(mail) = sealed(house, &draft, user) {
                mails.push(mail);
                kinds.push(draft.kind);
                put_off.extend(draft.remind_at.map(|at| (draft.order, at)));
                names.extend(draft.names);
            }
        }
        writing.end_reminders(&ended).await?;
        writing.remind(&put_off).await?;
        writing.tell(&names, &mails).await?;
        writing.commit().await?;
        for kind in &kinds {
            order_letter(kind.as_str());
        }
        Ok(kinds.len())
    }
}

/// A proved address that can be read: also of somebody who is kept out for a while.
fn is_reachable(user: &User) -> bool {
    user.verified_at.is_some() && user.wrapped_key.is_some()
}

fn sealed(house: &NoticeHouse, draft: &Draft, user: &User) -> Option<Mail> {
    let Draft { names, at, letter, .. } = draft;
    let personal = match Personal::of(&house.vault, user) {
        Ok(personal) => personal,
        Err(error) => {
            error!(user = %user.id, %error, "{} cannot be written to", user.id);
            notice_dropped("unreadable", names.len() as u64);
            return None;
        }
    };
    let (id, to) = (*names.first()?, &personal.email);
    // A mail is due when it was made.
    let at = (*at).min(house.clock.now());
    let mail = outbox::sealed_as(id, at, &house.vault, letter, to, personal.locale, Some(user.id));
    mail.inspect_err(|error| {
        error!(user = %user.id, %error, "a letter to {} cannot be sealed", user.id);
        notice_dropped("unreadable", names.len() as u64);
    })
    .ok()
}
