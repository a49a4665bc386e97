//! What the owner of a product shows to everyone: its mailbox, its published view, and who may be refused from it.
//!
//! Always true: the view never runs ahead of the journal; a refusal from the view is one the owner would give too.

use arc_swap::ArcSwapOption;
use hashbrown::HashSet;
use tokio::sync::watch;

use super::answer::{NotDone, View};
use super::inbox::Inbox;
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::{Ledger, Millis, Refusal, Refused, Reserve, SaleState};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError, RwLock};

/// The public side of one owner.
#[derive(Debug)]
pub struct Shared {
    pub product: ProductId,
    pub inbox: Arc<Inbox>,
    view: ArcSwapOption<View>,
    changes: watch::Sender<Option<Arc<View>>>,
    /// An event that gives units back is decided and not yet published; or nobody has published here yet, whose word that would be.
    returning: AtomicBool,
    /// Somebody was refused from the view since this was asked last.
    refused: AtomicBool,
    /// It has published, and nobody has looked since.
    changed: AtomicBool,
    /// The newest event when somebody asked how many there were since; `u64::MAX` before the first time.
    counted_to: AtomicU64,
    /// Everyone who may have reached the limit; kept only while there is one.
    buyers: RwLock<Option<HashSet<UserId>>>,
    /// Held while a view of another node's owner is compared and shown.
    showing: Mutex<()>,
    /// The newest question that another node has asked: of which lead, and its number.
    asked: Mutex<(u64, u64)>,
}

impl Shared {
    pub fn new(product: ProductId) -> Shared {
        Shared {
            product,
            inbox: Arc::new(Inbox::default()),
            view: ArcSwapOption::empty(),
            changes: watch::Sender::new(None),
            returning: AtomicBool::new(true),
            refused: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            counted_to: AtomicU64::new(u64::MAX),
            buyers: RwLock::new(None),
            showing: Mutex::new(()),
            asked: Mutex::default(),
        }
    }

    /// The last published view; `None` while the owner loads, or when the product does not exist.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Every published view from here on, newest only.
    pub fn watch(self: &Arc<Shared>) -> Watch {
        Watch { views: self.changes.subscribe(), owner: self.clone() }
    }

    /// Whoever watches hears that nothing more is published here.
    pub(super) fn is_over(&self) {
        self.changes.send_replace(None);
    }

    /// Whether somebody looks on, or was refused from the view since this was asked last.
    pub(super) fn is_looked_at(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed) || self.changes.receiver_count() > 0
    }

    /// Events that were published since the last time this was asked; none the first time.
    pub(super) fn moved(&self) -> u64 {
        let newest = self.view.load().as_ref().map_or(0, |view| view.sequence.0);
        newest.saturating_sub(self.counted_to.swap(newest, Ordering::Relaxed))
    }

    pub(super) fn changed(&self) -> &AtomicBool {
        &self.changed
    }

    /// The owner's word that units are on their way back.
    pub fn set_returning(&self, returning: bool) {
        self.returning.store(returning, Ordering::Release);
    }

    /// Shows a new view. The ledger serves to learn who has bought when a limit appears.
    pub fn publish(&self, view: Arc<View>, ledger: &Ledger) {
        self.track_buyers(view.settings.per_customer_limit.is_some(), ledger);
        self.view.store(Some(view.clone()));
        if self.changes.receiver_count() > 0 {
            self.changes.send_replace(Some(view));
        }
    }

    /// Shows what an owner on another node has published; `false` if something as new is shown already.
    pub(super) fn show(&self, view: Arc<View>) -> bool {
        let _one_at_a_time = self.showing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.view.load().as_ref().is_some_and(|shown| shown.sequence >= view.sequence) {
            return false;
        }
        self.view.store(Some(view.clone()));
        if self.changes.receiver_count() > 0 {
            self.changes.send_replace(Some(view));
        }
        true
    }

    /// Notes a question of another node; `false` if a later one of the same lead was begun before: whoever asked it was answered by
    /// that one, and what it asks for is not to be done after all.
    pub(super) fn is_newest(&self, lead: u64, number: u64) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = asked.0 != lead || asked.1 < number;
        if is_newest {
            *asked = (lead, number);
        }
        is_newest
    }

    /// The owner is not here, or is going: until one has published again nobody is refused from the view.
    pub(super) fn proves_nothing(&self) {
        self.set_returning(true);
        *self.buyers.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn track_buyers(&self, limited: bool, ledger: &Ledger) {
        let tracked = self.buyers.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if limited != tracked {
            let buyers = limited.then(|| ledger.buyers().collect());
            *self.buyers.write().unwrap_or_else(PoisonError::into_inner) = buyers;
        }
    }

    /// Notes a buyer, before the answer leaves.
    pub fn bought(&self, buyer: UserId) {
        let limited = self.buyers.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if limited && let Some(buyers) = &mut *self.buyers.write().unwrap_or_else(PoisonError::into_inner) {
            buyers.insert(buyer);
        }
    }

    fn may_have_bought(&self, buyer: UserId) -> bool {
        let buyers = self.buyers.read().unwrap_or_else(PoisonError::into_inner);
        buyers.as_ref().is_none_or(|buyers| buyers.contains(&buyer))
    }

    /// The refusal of a reservation, if the view alone proves it: the caller has seen to it that its key was never
    /// used. `None` means ask the owner.
    ///
    /// The order of the reads matters: a unit given back is undecided, then returning, then in the view.
    pub fn refusal(&self, ask: &Reserve, now: Millis) -> Option<NotDone> {
        if self.inbox.undecided() > 0 || self.returning.load(Ordering::Acquire) {
            return None;
        }
        let view = self.view.load();
        let view = view.as_ref()?;
        let requested = ask.quantity.get();
        let why = match view.sale_state(now) {
            SaleState::Archived => Refusal::Archived,
            SaleState::Paused => Refusal::Paused,
            SaleState::NotOpen { opens_at } => Refusal::NotOpen { opens_at },
            SaleState::Closed { closed_at } => Refusal::Closed { closed_at },
            SaleState::Open => {
                let available = view.counts.available();
                if available >= u64::from(requested) {
                    return None;
                }
                if let Some(limit) = view.settings.per_customer_limit
                    && (requested > limit || self.may_have_bought(ask.buyer))
                {
                    return None;
                }
                Refusal::SoldOut { available, requested }
            }
        };
        // Written once in a while only: all doors look at what stands beside it.
        if !self.refused.load(Ordering::Relaxed) {
            self.refused.store(true, Ordering::Relaxed);
        }
        Some(NotDone::Refused { product: self.product, refused: Refused { at: view.sequence, why } })
    }
}

/// What one owner publishes, as long as it is there.
#[derive(Debug)]
pub struct Watch {
    views: watch::Receiver<Option<Arc<View>>>,
    owner: Arc<Shared>,
}

impl Watch {
    /// Waits for something new, or for the owner's end.
    pub async fn changed(&mut self) {
        // The owner is kept here, so that it can always say something.
        let _ = self.views.changed().await;
    }

    /// What was published last since somebody watched.
    pub fn newest(&mut self) -> Option<Arc<View>> {
        self.views.borrow_and_update().clone()
    }

    /// Nothing more is published there: whoever wants to go on watching asks the directory again.
    pub fn is_over(&self) -> bool {
        self.owner.inbox.is_closed()
    }
}
