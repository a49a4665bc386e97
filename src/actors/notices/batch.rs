//! A few letters and what follows from them, in one transaction on people's tables.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracing::error;

use super::NoticeHouse;
use crate::actors::outbox;
use crate::actors::user::Personal;
use crate::domain::id::{MailId, OrderId, UserId};
use crate::domain::notice::Notice;
use crate::domain::stock::Millis;
use crate::mail::Letter;
use crate::persistence::StoreError;
use crate::persistence::outbox::Mail;
use crate::persistence::user::User;
use crate::telemetry::{notice_dropped, order_letter};

/// A letter that is to be written.
pub struct Draft {
    pub notice: Notice,
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
    /// … or put off, because the hold now stands for longer.
    pub put_off: Vec<(OrderId, Millis)>,
}

impl Batch {
    /// Writes what was not written before; how many letters that were. Who has no account any more is not written to: that is
    /// looked at inside, where nobody is erased meanwhile.
    pub async fn write(self, house: &NoticeHouse) -> Result<usize, StoreError> {
        let Batch { mut drafts, ended, mut put_off } = self;
        if drafts.is_empty() && ended.is_empty() && put_off.is_empty() {
            return Ok(0);
        }
        let ids: Vec<MailId> = drafts.iter().map(|draft| draft.notice.letter()).collect();
        let people: BTreeSet<UserId> = drafts.iter().map(|draft| draft.to).collect();
        let mut writing = house.tables.begin().await?;
        let mut known: HashSet<MailId> = writing.told(&ids).await?.into_iter().collect();
        drafts.retain(|draft| {
            let new = known.insert(draft.notice.letter());
            if !new {
                notice_dropped("told", 1);
            }
            new
        });
        let users = writing.users(&Vec::from_iter(people)).await?;
        let users: HashMap<UserId, User> = users.into_iter().map(|user| (user.id, user)).collect();
        let (mut mails, mut kinds) = (Vec::with_capacity(drafts.len()), Vec::with_capacity(drafts.len()));
        for draft in &drafts {
            let Some(user) = users.get(&draft.to).filter(|user| is_reachable(user)) else {
                notice_dropped("no_account", 1);
                continue;
            };
            if let Some(mail) = sealed(house, draft, user) {
                mails.push(mail);
                kinds.push(draft.notice.kind);
                put_off.extend(draft.remind_at.map(|at| (draft.notice.order, at)));
            }
        }
        writing.end_reminders(&ended).await?;
        writing.remind(&put_off).await?;
        writing.tell(&mails).await?;
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
    let Draft { notice, letter, .. } = draft;
    let personal = match Personal::of(&house.vault, user) {
        Ok(personal) => personal,
        Err(error) => {
            error!(user = %user.id, %error, "{} cannot be written to", user.id);
            notice_dropped("unreadable", 1);
            return None;
        }
    };
    let (id, at, to) = (notice.letter(), notice.at, &personal.email);
    let mail = outbox::sealed_as(id, at, &house.vault, letter, to, personal.locale, Some(user.id));
    mail.inspect_err(|error| {
        error!(user = %user.id, %error, "a letter to {} cannot be sealed", user.id);
        notice_dropped("unreadable", 1);
    })
    .ok()
}
