//! Stripe: a payment is a payment intent that is confirmed and then captured by hand; what goes back is a refund.
//!
//! Our ids stand in the metadata of both and make the idempotency keys, so that what was told twice happens once, and what was
//! told by a process that is gone is found again. Stripe keeps a key for at least a day: what is older is looked for before it is
//! told again. Always true: nothing is captured that was not reserved first, and a card that wants its owner to do something more is
//! declined, for there is nobody to redirect.
//!
//! <https://docs.stripe.com/api/idempotent_requests>, <https://docs.stripe.com/payments/paymentintents/lifecycle>

mod amounts;
mod books;
mod shapes;
mod wire;

use super::webhook::{ORDER_KEY, PAYMENT_KEY, REFUND_KEY};
use super::{
    CHARGED_WITHIN_MS, Charge, NoProvider, ProviderError, RefundAsk, RefundSeen, RefundStatus, Seen, Status,
};
use crate::clock::Clock;
use crate::config::StripeAccount;
use crate::domain::id::PaymentId;
use shapes::{Intent, IntentStatus, List, RefundObject};
use wire::{Answer, DECLINED, FAILED, LIST_BYTES_MAX, OBJECT_BYTES_MAX, WRONG, Wire, no};

/// As long as this a key is certainly remembered.
const KEY_LIVES_MS: i64 = 23 * 3_600_000;
/// As long as this it is relied on to name a payment that is found in no other way.
const KEY_NAMES_MS: i64 = 20 * 3_600_000;
/// What a key was used for is known by then: nothing that began so long ago is still being worked on.
const SETTLED_MS: i64 = 3_600_000;
/// How far their clock may be from ours.
const CLOCKS_APART_MS: i64 = 300_000;
const PAGE: &str = "100";
/// Four thousand intents of one window, as many as are read within one call; or a thousand refunds of one intent.
const INTENT_PAGES_MAX: usize = 40;
const REFUND_PAGES_MAX: usize = 10;

/// What looking through a list has come to.
enum Looked {
    Found(Box<Intent>),
    Absent,
    /// The list is longer than is looked through, and its window lies in the past: it will never be shorter.
    TooMany,
}

/// The account at Stripe. Cheap to clone.
#[derive(Clone)]
pub struct Stripe {
    wire: Wire,
    clock: Clock,
}

impl Stripe {
    pub fn new(account: &StripeAccount, clock: &Clock) -> Result<Stripe, NoProvider> {
        Ok(Stripe { wire: Wire::new(account)?, clock: clock.clone() })
    }

    pub async fn charge(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        let is_old = self.age(ask.started_at.0) > KEY_LIVES_MS;
        let known = if ask.provider_ref.is_some() || is_old {
            match self.locate(ask).await? {
                Looked::Found(intent) => Some(*intent),
                // A new key would be a second payment if the first one is only not to be seen.
                Looked::Absent if is_old => {
                    return Err(ProviderError::Refused { code: "too_late".to_owned() });
                }
                Looked::TooMany if !self.names(ask) => return Err(too_many()),
                Looked::Absent | Looked::TooMany => None,
            }
        } else {
            None
        };
        match known {
            Some(intent) => self.go_on(ask, intent).await,
            None => self.create(ask).await,
        }
    }

    /// An intent that is only reserved, or not confirmed, has taken nothing: it can be charged. So can one that stands among too
    /// many: told again under its key it is not made twice, and the answer names it.
    pub async fn find(&self, ask: &Charge<'_>) -> Result<Option<Seen>, ProviderError> {
        match self.locate(ask).await? {
            Looked::Found(intent) if intent.status() == IntentStatus::RequiresCapture => Ok(None),
            Looked::Found(intent) => understood(intent.seen()).map(Some),
            Looked::Absent => Ok(None),
            Looked::TooMany if self.names(ask) => Ok(None),
            Looked::TooMany => Err(too_many()),
        }
    }

    pub async fn cancel(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        match self.locate(ask).await? {
            Looked::Found(intent) => self.end(*intent).await,
            Looked::Absent => self.forestall(ask).await,
            Looked::TooMany if self.names(ask) => self.forestall(ask).await,
            Looked::TooMany => Err(too_many()),
        }
    }

    /// What it has failed, or would not make, is made anew only if that is wanted, and each time under a key of its own: under the
    /// one before the same *no* would be told for a day at least, and so would an error of theirs.
    pub async fn refund(&self, ask: &RefundAsk<'_>) -> Result<RefundSeen, ProviderError> {
        if ask.again || self.age(ask.started_at.0) > KEY_LIVES_MS {
            match self.find_refund(ask).await? {
                Some(RefundSeen { status: RefundStatus::Failed { .. }, .. }) if ask.again => {}
                Some(seen) => return Ok(seen),
                None => {}
            }
        }
        let key = match ask.made_anew {
            0 => ask.refund.to_string(),
            times => format!("{}:{times}", ask.refund),
        };
        let (amount, refund) = (amounts::told(ask.amount)?.to_string(), ask.refund.to_string());
        let (payment, order) = (ask.payment.to_string(), ask.order.to_string());
        let metadata = [REFUND_KEY, PAYMENT_KEY, ORDER_KEY].map(metadata);
        let fields = [
            ("payment_intent", ask.provider_ref),
            ("amount", &amount),
            (&metadata[0], &refund),
            (&metadata[1], &payment),
            (&metadata[2], &order),
        ];
        let answer = self.wire.post::<RefundObject>("/v1/refunds", &fields, Some(&key)).await?;
        match answer {
            Answer::Yes { object, replayed: false } => understood(object.seen()),
            // It may have gone on since.
            Answer::Yes { object, replayed: true } => match self.find_refund(ask).await? {
                Some(seen) => Ok(seen),
                None => understood(object.seen()),
            },
            // All that is remembered under this key is that nobody knows.
            Answer::No { status: FAILED.., .. } => Err(ProviderError::Spent),
            Answer::No { status, why } => Err(no(status, &why)),
        }
    }

    /// The one of all that were made of it that has not failed, or else the newest.
    pub async fn find_refund(&self, ask: &RefundAsk<'_>) -> Result<Option<RefundSeen>, ProviderError> {
        let mut newest = None;
        let mut after = None::<String>;
        for _ in 0..REFUND_PAGES_MAX {
            let mut query = vec![("payment_intent", ask.provider_ref), ("limit", PAGE)];
            query.extend(after.as_deref().map(|after| ("starting_after", after)));
            let page: List<RefundObject> =
                self.wire.get("/v1/refunds", &query, LIST_BYTES_MAX).await?.object()?;
            for refund in page.data.iter().filter(|refund| refund.is_of(ask.refund)) {
                let seen = understood(refund.seen())?;
                if !matches!(seen.status, RefundStatus::Failed { .. }) {
                    return Ok(Some(seen));
                }
                newest.get_or_insert(seen);
            }
            match page.data.last() {
                Some(last) if page.has_more => after = Some(last.id.clone()),
                _ => return Ok(newest),
            }
        }
        Err(too_many())
    }

    fn age(&self, since: i64) -> i64 {
        self.clock.now().0.saturating_sub(since)
    }

    /// Whether the key of this payment still tells which intent it made, and there is something to tell it with.
    fn names(&self, ask: &Charge<'_>) -> bool {
        ask.method.is_some() && self.age(ask.started_at.0) <= KEY_NAMES_MS
    }

    // --- finding it ---------------------------------------------------------------------------------------------------------

    /// By its name if we know it, or else among all that are young enough. A name that a webhook brought is only a hint: what
    /// says that it is somebody else's is not it.
    async fn locate(&self, ask: &Charge<'_>) -> Result<Looked, ProviderError> {
        if let Some(name) = ask.provider_ref.filter(|name| is_intent(name)) {
            let intent = self.still_there(name).await?;
            if intent.is_of(ask.payment) {
                return Ok(Looked::Found(Box::new(intent)));
            }
            tracing::warn!(intent = name, payment = %ask.payment, "{name} is not the intent of {}", ask.payment);
        }
        self.look_through(ask).await
    }

    /// What has a name does not go away: if it has, this is another account, and nobody knows what became of the money.
    async fn still_there(&self, name: &str) -> Result<Intent, ProviderError> {
        let found = self.retrieve(name).await?;
        if found.is_none() {
            tracing::warn!(
                intent = name,
                "Stripe does not know a payment that it has named; is it another account?"
            );
        }
        found.ok_or(ProviderError::Unknown)
    }

    async fn retrieve(&self, name: &str) -> Result<Option<Intent>, ProviderError> {
        let path = path(name, "")?;
        self.wire.get(&path, &[("expand[]", "latest_charge")], OBJECT_BYTES_MAX).await?.found()
    }

    /// Among all that were made while it may have been charged: whatever the shop has sold since does not stand before it.
    async fn look_through(&self, ask: &Charge<'_>) -> Result<Looked, ProviderError> {
        let seconds = |ms: i64| ask.started_at.0.saturating_add(ms).div_euclid(1_000);
        let since = seconds(-CLOCKS_APART_MS).to_string();
        let until = (seconds(CHARGED_WITHIN_MS + CLOCKS_APART_MS) + 1).to_string();
        let mut after = None::<String>;
        for _ in 0..INTENT_PAGES_MAX {
            let mut query =
                vec![("created[gte]", since.as_str()), ("created[lte]", until.as_str()), ("limit", PAGE)];
            query.extend(after.as_deref().map(|after| ("starting_after", after)));
            let page: List<Intent> =
                self.wire.get("/v1/payment_intents", &query, LIST_BYTES_MAX).await?.object()?;
            if let Some(intent) = page.data.iter().find(|intent| intent.is_of(ask.payment)) {
                // Once more, with what a list does not tell.
                return Ok(self
                    .retrieve(&intent.id)
                    .await?
                    .map_or(Looked::Absent, |now| Looked::Found(Box::new(now))));
            }
            match page.data.last() {
                Some(last) if page.has_more => after = Some(last.id.clone()),
                _ => return Ok(Looked::Absent),
            }
        }
        Ok(Looked::TooMany)
    }

    // --- taking the money ---------------------------------------------------------------------------------------------------

    async fn create(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        let method = ask.method.ok_or_else(|| ProviderError::Refused { code: "no_method".to_owned() })?;
        let answer = self.post_intent(ask, Some(method.token())).await?;
        match answer {
            Answer::Yes { object, replayed: false } => self.go_on(ask, object).await,
            // What it was then is not what it is now.
            Answer::Yes { object, replayed: true } => match self.retrieve(&object.id).await {
                Ok(Some(now)) => self.go_on(ask, now).await,
                // It has a name, and that is all that is certain.
                Ok(None) | Err(_) => understood(object.seen_as(Status::Pending)),
            },
            Answer::No { status: DECLINED, why } => {
                let status = Status::Declined { code: why.code("card_declined") };
                let intent = match why.payment_intent {
                    Some(intent) => Some(*intent),
                    None => self.look_through(ask).await.ok().and_then(Looked::found),
                };
                let nameless = Seen {
                    provider_ref: String::new(),
                    status: status.clone(),
                    amount: ask.amount,
                    captured: 0,
                    refunded: 0,
                };
                Ok(intent.and_then(|intent| intent.seen_as(status)).unwrap_or(nameless))
            }
            Answer::No { status: WRONG, why } if why.is_about_the_method() => {
                Ok(Seen { status: Status::Declined { code: "invalid_token".to_owned() }, ..never(ask) })
            }
            // The key was used up by a cancel; or by a payment that is not the one we are told of now.
            Answer::No { why, .. } if why.is_other_request() => match self.look_through(ask).await? {
                Looked::Found(intent) => understood(intent.seen()),
                Looked::Absent => Err(ProviderError::Unknown),
                Looked::TooMany => Err(too_many()),
            },
            // All that is remembered under this key is that nobody knows.
            Answer::No { status: FAILED.., .. } => Err(ProviderError::Unknown),
            Answer::No { status, why } => Err(no(status, &why)),
        }
    }

    /// Without a token it is an intent that nobody will confirm.
    async fn post_intent(
        &self,
        ask: &Charge<'_>,
        token: Option<&str>,
    ) -> Result<Answer<Intent>, ProviderError> {
        let amount = amounts::told(ask.amount)?.to_string();
        let currency = ask.amount.currency.as_str().to_lowercase();
        let (payment, order) = (ask.payment.to_string(), ask.order.to_string());
        let metadata = [PAYMENT_KEY, ORDER_KEY].map(metadata);
        let mut fields = vec![
            ("amount", amount.as_str()),
            ("currency", &currency),
            ("capture_method", "manual"),
            // Cards alone: anything else might want to lead the buyer somewhere.
            ("payment_method_types[]", "card"),
            (&metadata[0], &payment),
            (&metadata[1], &order),
            ("expand[]", "latest_charge"),
        ];
        if let Some(token) = token {
            fields.extend([("payment_method", token), ("confirm", "true")]);
        }
        self.wire.post("/v1/payment_intents", &fields, Some(&key(ask.payment, "create"))).await
    }

    /// Captures what is reserved; ends what wants its owner to do something.
    async fn go_on(&self, ask: &Charge<'_>, intent: Intent) -> Result<Seen, ProviderError> {
        match intent.status() {
            IntentStatus::RequiresCapture => self.capture(ask, &intent).await,
            IntentStatus::RequiresAction => self.end(intent).await,
            _ => understood(intent.seen()),
        }
    }

    async fn capture(&self, ask: &Charge<'_>, intent: &Intent) -> Result<Seen, ProviderError> {
        let path = path(&intent.id, "/capture")?;
        let fields = [("expand[]", "latest_charge")];
        let answer = self.wire.post::<Intent>(&path, &fields, Some(&key(ask.payment, "capture"))).await;
        match answer {
            Ok(Answer::Yes { object, .. }) => understood(object.seen()),
            // Somebody else was faster, or it lapsed: it says itself how it stands. If it is as before, nobody knows why.
            Ok(Answer::No { .. }) => match self.retrieve(&intent.id).await {
                Ok(Some(now)) => understood(now.seen()),
                Ok(None) | Err(_) => understood(intent.seen()),
            },
            // The money is reserved: this is no longer a payment that has certainly not begun, and its name is not lost
            // with the answer.
            Err(_) => understood(intent.seen()),
        }
    }

    // --- ending it ----------------------------------------------------------------------------------------------------------

    /// Cancels an intent, unless it has come to an end of its own.
    async fn end(&self, intent: Intent) -> Result<Seen, ProviderError> {
        if matches!(intent.status(), IntentStatus::Succeeded | IntentStatus::Canceled) {
            return understood(intent.seen());
        }
        let path = path(&intent.id, "/cancel")?;
        // No key: a cancel told twice is one cancel, and a first *no* must not be repeated for a day.
        let answer = self.wire.post::<Intent>(&path, &[("expand[]", "latest_charge")], None).await?;
        let now = match answer {
            Answer::Yes { object, .. } => object,
            Answer::No { .. } => self.still_there(&intent.id).await?,
        };
        let before = understood(intent.seen())?;
        match (now.status(), &before.status) {
            // A declined one is cancelled as well, for its owner could try another card; but that is not why it is not paid.
            (IntentStatus::Canceled, Status::Declined { .. }) => Ok(before),
            (IntentStatus::Canceled | IntentStatus::Succeeded | IntentStatus::Processing, _) => {
                understood(now.seen())
            }
            _ => Err(ProviderError::Unknown),
        }
    }

    /// Uses up the key of a payment that was never seen, with an intent that can come to nothing: a charge that is still on its way
    /// is refused when it arrives.
    async fn forestall(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        if self.age(ask.started_at.0) > KEY_LIVES_MS {
            return Ok(never(ask));
        }
        match self.post_intent(ask, None).await? {
            Answer::Yes { object, replayed: false } => self.end(object).await,
            Answer::Yes { object, replayed: true } => {
                let now = self.still_there(&object.id).await?;
                self.end(now).await
            }
            // The charge has arrived meanwhile, or had come to nothing before.
            Answer::No { why, .. } if why.is_other_request() => match self.look_through(ask).await? {
                Looked::Found(intent) => self.end(*intent).await,
                Looked::Absent if self.age(ask.started_at.0) > SETTLED_MS => Ok(never(ask)),
                Looked::Absent => Err(ProviderError::Unknown),
                Looked::TooMany => self.end_by_key(ask).await,
            },
            Answer::No { status: FAILED.., .. } => Err(ProviderError::Unknown),
            Answer::No { status, why } => Err(no(status, &why)),
        }
    }

    /// Ends what a charge has made that stands among too many: its key is used up, so word for word the same request makes
    /// nothing and names what was made.
    async fn end_by_key(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        let Some(method) = ask.method.filter(|_| self.names(ask)) else { return Err(too_many()) };
        match self.post_intent(ask, Some(method.token())).await? {
            Answer::Yes { object, .. } => {
                let now = self.still_there(&object.id).await?;
                self.end(now).await
            }
            Answer::No { status: DECLINED, why } => match why.payment_intent {
                Some(intent) => {
                    let now = self.still_there(&intent.id).await?;
                    self.end(now).await
                }
                None => {
                    Ok(Seen { status: Status::Declined { code: why.code("card_declined") }, ..never(ask) })
                }
            },
            Answer::No { status: WRONG, why } if why.is_about_the_method() => {
                Ok(Seen { status: Status::Declined { code: "invalid_token".to_owned() }, ..never(ask) })
            }
            // Of what it made nobody was ever told the name, so nothing of it was captured; what is reserved lapses.
            Answer::No { status: FAILED.., .. } if self.age(ask.started_at.0) > SETTLED_MS => Ok(never(ask)),
            Answer::No { .. } => Err(ProviderError::Unknown),
        }
    }
}

impl Looked {
    fn found(self) -> Option<Intent> {
        match self {
            Looked::Found(intent) => Some(*intent),
            Looked::Absent | Looked::TooMany => None,
        }
    }
}

/// A payment that there is not, and will not be.
fn never(ask: &Charge<'_>) -> Seen {
    Seen {
        provider_ref: String::new(),
        status: Status::Cancelled,
        amount: ask.amount,
        captured: 0,
        refunded: 0,
    }
}

/// An answer whose currency is none, or whose amount is none of ours.
fn understood<T>(seen: Option<T>) -> Result<T, ProviderError> {
    seen.ok_or(ProviderError::Unknown)
}

fn too_many() -> ProviderError {
    tracing::warn!("Stripe has more of them than we look through, and nothing names this one");
    ProviderError::Unknown
}

/// Only what cannot lead anywhere else is put into a path.
pub(super) fn is_intent(name: &str) -> bool {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    name.starts_with("pi_") && name.len() <= 255 && name.bytes().all(plain)
}

/// Where an intent is asked about. A name that they gave us is looked at like any other.
fn path(name: &str, step: &str) -> Result<String, ProviderError> {
    let named = is_intent(name).then(|| format!("/v1/payment_intents/{name}{step}"));
    named.ok_or(ProviderError::Unknown)
}

fn metadata(name: &str) -> String {
    format!("metadata[{name}]")
}

fn key(payment: PaymentId, step: &str) -> String {
    format!("{payment}:{step}")
}

/// Reads what Stripe would answer, in every shape that we take.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn read_answers(body: &[u8]) {
    use shapes::{ErrorBody, Intent, List, RefundObject};

    let look = |intent: &Intent| drop((intent.payment(), intent.seen(), intent.status()));
    let look_back = |refund: &RefundObject| drop((refund.names(), refund.seen()));
    serde_json::from_slice::<Intent>(body).iter().for_each(look);
    serde_json::from_slice::<List<Intent>>(body).iter().for_each(|list| list.data.iter().for_each(look));
    serde_json::from_slice::<RefundObject>(body).iter().for_each(look_back);
    serde_json::from_slice::<List<RefundObject>>(body)
        .iter()
        .for_each(|list| list.data.iter().for_each(look_back));
    if let Ok(ErrorBody { error }) = serde_json::from_slice(body) {
        let _ = (error.code("fallback"), error.is_about_the_method(), error.is_other_request());
    }
}
