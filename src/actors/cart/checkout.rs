//! A checkout: the chosen lines are written down, ordered, perhaps paid, and leave the cart once the order stands.
//!
//! The row comes first, so that whoever finds it after a crash asks the engine what the key has made: nothing, then the row goes;
//! an order that stands, then what was ordered leaves the cart. Taking out and forgetting the row are one transaction, so it is done
//! once, by whoever comes first.

use super::turn::TooMany;
use super::{Carts, NotCarted, RETRY_MS, commit};
use crate::actors::order::{Item, PlaceOrder, PlacedOrder};
use crate::actors::payment::{By, Pay, Place, Told};
use crate::actors::stock::{NotDone, to_the_end};
use crate::domain::amount::Money;
use crate::domain::cart::{Checkout, Taken};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::Method;
use crate::domain::stock::{KeyUse, Refusal, Refused};
use crate::domain::user::Address;

/// What somebody wants to order out of the cart.
pub struct CheckOut {
    pub user: UserId,
    /// The client's key; `body` is the hash of the request, whatever is in the cart.
    pub key: Option<[u8; 16]>,
    pub body: u64,
    /// These lines; all of them where nothing is said.
    pub products: Option<Vec<ProductId>>,
    pub expected_total: Option<Money>,
    /// Where it goes, if not to the account's address.
    pub address: Option<Address>,
    /// With what it is paid in the same call.
    pub method: Option<Method>,
}

/// The order that was made of it.
pub enum CheckedOut {
    /// `replayed`: this very request had made it before.
    Held { order: Order, replayed: bool },
    /// It was to be paid in the same call, and this is how that stands.
    Paying(Told),
}

/// What has become of a checkout.
enum Ended {
    Stands,
    /// Nothing was ordered, or nothing of it is left.
    Not,
    /// Nobody knows yet.
    Open(Option<OrderId>),
}

impl Carts {
    /// Orders out of the cart, after whatever the same person orders at this moment. Runs on when the buyer hangs up.
    pub async fn check_out(&self, ask: CheckOut) -> Result<CheckedOut, NotCarted> {
        let turned_away = |TooMany { own }| {
            let busy = NotDone::Busy { retry_after_ms: RETRY_MS };
            let why = self.0.house.orders.turned_away(ask.user, ask.key, busy);
            // One of those that wait may have the same key, and order yet.
            if own && ask.key.is_some() { why.after_all() } else { why }
        };
        let ticket = self.0.turns.queue(ask.user).map_err(turned_away)?;
        let carts = self.clone();
        to_the_end(async move {
            let turn = ticket.turn().await;
            let done = carts.run(ask).await;
            drop(turn);
            done
        })
        .await
    }

    async fn run(&self, ask: CheckOut) -> Result<CheckedOut, NotCarted> {
        let house = &self.0.house;
        // Before anything is held: who is turned away here has left nothing behind.
        let turned_away = |why| house.orders.turned_away(ask.user, ask.key, why);
        let place = ask.method.as_ref().map(|_| house.payments.place().map_err(turned_away));
        if let Some(key) = ask.key
            && let Some(order) = house.orders.of_key(ask.user, KeyUse { key, body: ask.body }).await?
        {
            let order = house.orders.find(ask.user, order).await.map_err(NotDone::after_all)?;
            let order = order.ok_or(NotDone::Unknown)?;
            return self.again(ask, order, place).await;
        }
        let place = place.transpose()?;
        if let Some(order) = self.settle(ask.user).await? {
            return Err(NotCarted::Undecided(order));
        }
        let key = ask.key.unwrap_or_else(|| house.clock.chance().to_be_bytes());
        let checkout = self.write_down(&ask, key).await?;
        let items = checkout.lines.iter().map(|line| Item { product: line.product, quantity: line.quantity });
        let order = PlaceOrder {
            buyer: ask.user,
            items: items.collect(),
            key: Some(KeyUse { key, body: ask.body }),
            is_made_up: ask.key.is_none(),
            expected_total: ask.expected_total,
        };
        let placed = match &ask.address {
            Some(address) => house.orders.place_to(order, address).await.map_err(NotCarted::from),
            None => house.orders.place(order).await.map_err(NotCarted::from),
        };
        match placed {
            Err(why) => {
                if is_certain(&why) {
                    self.end(ask.user, key, false).await;
                }
                Err(why)
            }
            Ok(PlacedOrder { order, replayed: true }) => self.again(ask, order, place.map(Ok)).await,
            Ok(PlacedOrder { order, replayed: false }) => self.go_on(ask, key, order, place).await,
        }
    }

    /// The order is there for the first time.
    async fn go_on(
        &self,
        ask: CheckOut,
        key: [u8; 16],
        order: Order,
        place: Option<Place>,
    ) -> Result<CheckedOut, NotCarted> {
        let (Some(place), Some(method)) = (place, ask.method) else {
            self.end(ask.user, key, true).await;
            return Ok(CheckedOut::Held { order, replayed: false });
        };
        let pay = Pay { order, method, by: By::Placing };
        // The order was made: to say that nothing was done would be untrue. The same key goes on from here.
        let told = self.0.house.payments.pay_placed(place, pay).await.map_err(NotDone::after_all)?;
        self.end(ask.user, key, told.stands).await;
        Ok(CheckedOut::Paying(told))
    }

    /// The key had made this order before. It hears of its payment, and begins it if nobody has and there is a place.
    async fn again(
        &self,
        ask: CheckOut,
        order: Order,
        place: Option<Result<Place, NotDone>>,
    ) -> Result<CheckedOut, NotCarted> {
        let (done, stands) = match (place, ask.method) {
            (Some(place), Some(method)) => {
                let payments = &self.0.house.payments;
                let told = match place {
                    Ok(place) => {
                        payments.pay_placed(place, Pay { order, method, by: By::PlacingAgain }).await
                    }
                    Err(busy) => match payments.paid_before(&order, busy).await {
                        Ok(paying) => payments.told(order, paying).await,
                        Err(why) => Err(why),
                    },
                };
                let told = told.map_err(NotDone::after_all)?;
                let stands = told.stands;
                (CheckedOut::Paying(told), stands)
            }
            _ => (CheckedOut::Held { order, replayed: true }, true),
        };
        if let Some(key) = ask.key {
            self.end(ask.user, key, stands).await;
        }
        Ok(done)
    }

    /// Chooses the lines, and puts them down on the disk.
    async fn write_down(&self, ask: &CheckOut, key: [u8; 16]) -> Result<Checkout, NotCarted> {
        let mut writing = self.begin(ask.user).await?;
        let cart = writing.cart_of(ask.user).await?;
        let missing = |product: &&ProductId| cart.line(**product).is_none();
        if let Some(product) = ask.products.iter().flatten().find(missing) {
            return Err(NotCarted::NotThere(*product));
        }
        let chosen = |product: &ProductId| ask.products.as_ref().is_none_or(|all| all.contains(product));
        let lines = cart.lines.iter().filter(|line| chosen(&line.product));
        let lines: Vec<Taken> =
            lines.map(|line| Taken { product: line.product, quantity: line.quantity }).collect();
        if lines.is_empty() {
            return Err(NotCarted::Empty);
        }
        let checkout = Checkout {
            user: ask.user,
            key,
            body: ask.body,
            pays: ask.method.is_some(),
            keyed: ask.key.is_some(),
            begun_at: self.0.house.clock.now(),
            lines,
        };
        writing.begin_checkout(&checkout).await?;
        // Nothing was ordered, so it is certain that nothing was done; a row that is there all the same goes at the next touch.
        commit(writing).await.map_err(|_| NotDone::Unavailable)?;
        Ok(checkout)
    }

    /// Ends a checkout: what was ordered leaves the cart if the order stands. What fails here is done at the next touch.
    async fn end(&self, user: UserId, key: [u8; 16], stands: bool) {
        if let Err(error) = self.try_end(user, key, stands).await {
            tracing::warn!(%error, %user, "a checkout of {user} could not be ended; whoever comes next does it");
        }
    }

    async fn try_end(&self, user: UserId, key: [u8; 16], stands: bool) -> Result<(), NotCarted> {
        let mut writing = self.0.house.tables.begin().await?;
        // Somebody else has ended it.
        let Some(checkout) = writing.checkout(user, key).await? else { return Ok(()) };
        if stands {
            let before = writing.cart_of(user).await?;
            let mut after = before.clone();
            after.take_ordered(&checkout.lines);
            if after.lines != before.lines {
                self.save(&mut writing, user, &before, &mut after).await?;
            }
        }
        writing.end_checkout(user, key).await?;
        commit(writing).await
    }

    /// Ends what was left behind, unless a checkout of the same person is at it. What cannot be ended now stays.
    pub(super) async fn touch(&self, user: UserId) {
        match self.0.house.tables.carts().checkouts_of(user).await {
            Ok(left) if left.is_empty() => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "checkouts that were left behind could not be read"),
        }
        let Some(ticket) = self.0.turns.tidy(user) else { return };
        let turn = ticket.turn().await;
        if let Err(error) = self.settle(user).await {
            tracing::warn!(%error, %user, "what a checkout of {user} has left behind stays for now");
        }
        drop(turn);
    }

    /// Ends every checkout of somebody whose turn it is and that is decided. One that is not is told, with its order where there
    /// is one.
    async fn settle(&self, user: UserId) -> Result<Option<Option<OrderId>>, NotCarted> {
        let mut open = None;
        for checkout in self.0.house.tables.carts().checkouts_of(user).await? {
            match self.ended(&checkout).await {
                Ended::Stands => self.try_end(user, checkout.key, true).await?,
                Ended::Not => self.try_end(user, checkout.key, false).await?,
                Ended::Open(order) => open = Some(order),
            }
        }
        Ok(open)
    }

    /// What the engine says of a checkout's key.
    async fn ended(&self, checkout: &Checkout) -> Ended {
        let house = &self.0.house;
        let key = KeyUse { key: checkout.key, body: checkout.body };
        let order = match house.orders.of_key(checkout.user, key).await {
            Ok(Some(order)) => order,
            // Another request was faster with the same key: this one ordered nothing.
            Err(NotDone::Refused { refused: Refused { why: Refusal::KeyReused { .. }, .. }, .. })
            | Ok(None) => {
                return Ended::Not;
            }
            Err(_) => return Ended::Open(None),
        };
        // An order that is being placed cannot be found: its holds are kept, or lapse.
        let Ok(Some(order)) = house.orders.find(checkout.user, order).await else { return Ended::Open(None) };
        if !checkout.pays || order.is_sold() {
            return Ended::Stands;
        }
        if order.status != OrderStatus::PendingPayment {
            return Ended::Not;
        }
        match house.payments.is_tried(order.id).await {
            // Nobody can come again with a key that nobody knows: it is held, and its buyer finds it.
            Ok(false) if !checkout.keyed => Ended::Stands,
            _ => Ended::Open(Some(order.id)),
        }
    }
}

/// Whether certainly nothing was ordered. Otherwise the row stays: whoever comes next asks what the key has made.
fn is_certain(why: &NotCarted) -> bool {
    match why {
        NotCarted::NotDone(NotDone::Unknown | NotDone::Quarantined | NotDone::Internal) => false,
        NotCarted::NotDone(NotDone::Refused { .. } | NotDone::Busy { .. } | NotDone::Unavailable) => true,
        _ => true,
    }
}
