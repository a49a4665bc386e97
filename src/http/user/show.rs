//! How an account is shown: to its owner whole, to administrators without what identifies the person.

use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::user::Personal;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::user::{Address, Email, PersonName, Phone, Role};
use crate::domain::wish::Wish;
use crate::http::cart::CartKept;
use crate::http::delivery::DeliveryKept;
use crate::http::order::OrderShown;
use crate::http::payment::{PaymentKept, RefundShown};
use crate::http::session::SessionShown;
use crate::http::shapes::AddressSchema;
use crate::http::time::Stamp;
use crate::persistence::trail::Entry;
use crate::persistence::user::User;

/// One's own account.
#[derive(Serialize, ToSchema)]
pub struct ProfileShown {
    #[schema(value_type = String)]
    id: UserId,
    #[schema(value_type = String)]
    email: Email,
    #[schema(value_type = Option<String>)]
    name: Option<PersonName>,
    #[schema(value_type = Option<String>)]
    phone: Option<Phone>,
    #[schema(value_type = Option<AddressSchema>)]
    address: Option<Address>,
    #[schema(value_type = String)]
    role: Role,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

impl ProfileShown {
    pub fn of(user: &User, personal: Personal) -> ProfileShown {
        let Personal { email, name, phone, address, locale: _ } = personal;
        ProfileShown {
            id: user.id,
            email,
            name,
            phone,
            address,
            role: user.role,
            created_at: Stamp(user.created_at),
            updated_at: Stamp(user.updated_at),
        }
    }
}

/// All that is kept about a person.
#[derive(Serialize, ToSchema)]
pub struct Export {
    pub profile: ProfileShown,
    /// The address that shall take the place of the one in the profile, once it is proved.
    #[schema(value_type = Option<String>)]
    pub new_email: Option<Email>,
    /// `ko` or `en`: how letters are written.
    #[schema(value_type = String)]
    pub locale: &'static str,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified_at: Option<Stamp>,
    pub sessions: Vec<SessionShown>,
    /// Newest first.
    pub orders: Vec<OrderShown>,
    /// Every attempt to pay one of them. No card is known here, and its token no longer.
    pub payments: Vec<PaymentKept>,
    pub refunds: Vec<RefundShown>,
    /// Every line that was paid for.
    pub deliveries: Vec<DeliveryKept>,
    /// Newest first: this export stands at its head. The newest 5,000, if there are more.
    pub trail: Vec<DeedShown>,
    /// Are there no older ones?
    pub trail_is_whole: bool,
    /// Newest first.
    pub wishes: Vec<WishKept>,
    pub cart: CartKept,
    /// Of orders that go elsewhere than to the profile's address; newest order first.
    pub order_addresses: Vec<OrderAddressKept>,
}

/// A wish as it is kept.
#[derive(Serialize, ToSchema)]
pub struct WishKept {
    #[schema(value_type = String)]
    product_id: ProductId,
    #[schema(value_type = String, format = DateTime)]
    added_at: Stamp,
}

impl From<Wish> for WishKept {
    fn from(wish: Wish) -> WishKept {
        WishKept { product_id: wish.product, added_at: Stamp(wish.added_at) }
    }
}

/// Where an order goes.
#[derive(Serialize, ToSchema)]
pub struct OrderAddressKept {
    #[schema(value_type = String)]
    order_id: OrderId,
    #[schema(value_type = AddressSchema)]
    address: Address,
}

impl From<(OrderId, Address)> for OrderAddressKept {
    fn from((order_id, address): (OrderId, Address)) -> OrderAddressKept {
        OrderAddressKept { order_id, address }
    }
}

/// What was done to an account.
#[derive(Serialize, ToSchema)]
pub struct DeedShown {
    #[schema(value_type = String, format = DateTime)]
    at: Stamp,
    /// `logged_in`, `password_changed` …
    deed: String,
    /// `oneself`, `somebody_else` (an administrator), or null where nobody is known.
    #[schema(value_type = Option<String>)]
    by: Option<&'static str>,
    /// Ids and words, such as `session=sess_…`.
    detail: String,
}

impl From<Entry> for DeedShown {
    fn from(entry: Entry) -> DeedShown {
        let by = match entry.actor.as_str() {
            "" => None,
            actor if actor == entry.subject => Some("oneself"),
            // Which administrator is not the person's, but the administrator's own.
            _ => Some("somebody_else"),
        };
        DeedShown { at: Stamp(entry.at), deed: entry.kind, by, detail: entry.detail }
    }
}

/// An account as administrators see it.
#[derive(Serialize, ToSchema)]
pub struct AccountShown {
    #[schema(value_type = String)]
    id: UserId,
    /// `unverified`, `verified`, `suspended` or `deleted`.
    #[schema(value_type = String)]
    state: &'static str,
    #[schema(value_type = String)]
    role: Role,
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Stamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

impl From<&User> for AccountShown {
    fn from(user: &User) -> AccountShown {
        AccountShown {
            id: user.id,
            state: user.state.as_str(),
            role: user.role,
            verified_at: user.verified_at.map(Stamp),
            created_at: Stamp(user.created_at),
            updated_at: Stamp(user.updated_at),
        }
    }
}

/// Nobody was kept out, or let in.
#[derive(Serialize, ToSchema)]
pub struct NobodySwitched {
    /// `unverified` or `deleted`; null where no account has this id.
    #[schema(value_type = Option<String>)]
    pub account: Option<&'static str>,
    #[schema(value_type = String)]
    pub detail: &'static str,
}

/// The answer that is the same for everybody.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    #[schema(value_type = String)]
    pub detail: &'static str,
}
