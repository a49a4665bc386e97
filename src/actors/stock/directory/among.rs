//! A directory at a node among others: shards come and go, and what is asked of the others' owners goes to them.
//!
//! Always true: while a shard moves nobody takes from the mailboxes of its products, and what stands in them stays there in order;
//! whoever takes from them next is chosen by the route that stands then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{Directory, House, Shared};
use crate::actors::stock::abroad::{About, NodeName, NotAsked, Question, Route, Said};
use crate::actors::stock::answer::{Answer, NotDone, View};
use crate::actors::stock::away::WAIT_MAX_MS;
use crate::actors::stock::routes::Routes;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::OrderView;
use crate::logs;

/// An owner elsewhere that has not answered a question for so long …
pub(super) const SILENT_AFTER_NS: u64 = 700_000_000;
/// … at a node that was heard within this time, waits for its database.
const HEARD_WITHIN_NS: u64 = 250_000_000;
/// How often an order is looked for again at a node that does not answer …
const AGAIN: Duration = Duration::from_millis(20);
/// … and after it has refused, or lost, some of these looks.
const AGAIN_MAX: Duration = Duration::from_millis(160);

impl Directory {
    /// Of a node among others. Every shard is moving until it is settled.
    pub fn among(house: Arc<House>, routes: Routes) -> Directory {
        Directory::with(house, Some(routes))
    }

    /// Which node owns what; `None`: this one is alone and owns everything.
    pub fn routes(&self) -> Option<&Routes> {
        self.0.routes.as_ref()
    }

    /// Lets go of shards, wherever their owners are: those here finish what is being written, store themselves as at rest and go;
    /// what was asked of another node is answered. Afterwards questions wait in their mailboxes, in order, until
    /// [`Directory::settle`]. `false`: an owner stays, which cannot say what became of its last group. Then none of these shards may
    /// become another's, and they are settled where they were.
    pub async fn let_go(&self, shards: &[u16]) -> bool {
        self.carry_through(shards, Route::Moving).await
    }

    /// From now on these shards' owners are there. One that stays, stays where its shard was.
    pub async fn settle(&self, shards: &[u16], route: Route) {
        self.carry_through(shards, route).await;
    }

    /// To its end, also when whoever wants it does not wait: half-way there are mailboxes from which nobody takes.
    async fn carry_through(&self, shards: &[u16], route: Route) -> bool {
        let (directory, shards) = (self.clone(), shards.to_vec());
        tokio::spawn(async move { directory.change(&shards, route).await }).await.unwrap_or(false)
    }

    /// Whether all have left who took from the mailboxes until now.
    async fn change(&self, shards: &[u16], route: Route) -> bool {
        let Some(routes) = self.routes() else { return true };
        let mut shards = shards.to_vec();
        shards.sort_unstable();
        shards.dedup();
        let _alone = routes.moving(&shards).await;
        let route = Arc::new(route);
        let mut leaving = Vec::new();
        for shard in shards {
            // Whoever owned it elsewhere has written by now what it has.
            self.has_left(shard);
            routes.set(shard, route.clone());
            // Whoever is not in the list yet begins by the new route.
            for product in self.loaded_in(shard) {
                let Some(shared) = self.0.owners.get(&product).map(|shared| shared.clone()) else { continue };
                let (left, has_left) = oneshot::channel();
                shared.inbox.leave(left);
                leaving.push((shared, has_left));
            }
        }
        self.0.house.metrics.shards_owned.set(routes.here() as f64);
        let mut have_all_left = true;
        for (shared, has_left) in leaving {
            match has_left.await {
                Ok(true) => self.keep_on(shared),
                Ok(false) => have_all_left = false,
                // One that goes for good forgets its mailbox, and there is nothing to hand over.
                Err(_) => {}
            }
        }
        have_all_left
    }

    /// Somebody has left a mailbox: whoever is to take from it now begins.
    fn keep_on(&self, shared: Arc<Shared>) {
        if self.0.closed.load(Ordering::Acquire) {
            return self.forget(&shared);
        }
        // The time of the journey is not the buyer's.
        shared.inbox.extend_patience(WAIT_MAX_MS);
        self.start(shared);
    }

    /// Shows what the owner of a product has published on that node, if it is newer, and if the product is owned there.
    pub fn show(&self, product: ProductId, view: View, node: &NodeName) {
        let is_there = self.routes().is_some_and(|routes| routes.is_at(product.shard(), node));
        if is_there && let Ok(shared) = self.owner(product, false) {
            self.shown(&shared, view);
        }
    }

    /// Everything that the owners on a node have published by now is shown.
    pub fn heard(&self, node: &NodeName) {
        if let Some(routes) = self.routes() {
            routes.heard(node.session, self.0.house.clock.nanos());
        }
    }

    /// Until when everything is shown that owners have published, wherever they are; by the house's steady clock.
    pub fn shown_until_ns(&self) -> u64 {
        let now_ns = self.0.house.clock.nanos();
        self.routes().map_or(now_ns, |routes| routes.all_heard_ns(now_ns))
    }

    pub(in crate::actors::stock) fn shown(&self, shared: &Arc<Shared>, view: View) {
        if shared.show(Arc::new(view)) {
            self.0.house.changes.note(shared);
        }
    }

    /// Answers what another node has asked; at its first poll everything of it is in the owner's mailbox. Refused where the shard is not
    /// owned here and this node is not the lead, or the question comes from, or goes to, another lead than the one that is followed.
    pub async fn answer(&self, question: Question) -> Result<Said, NotAsked> {
        let routes = self.routes().ok_or(NotAsked::Elsewhere)?;
        let Question { lead, number, pace, about } = question;
        let _admitted = routes.admit(lead, about.shard()).ok_or(NotAsked::Elsewhere)?;
        routes.keep_pace(&self.0.house, pace);
        match about {
            About::Product { product, asks } => {
                let shared = self.owner(product, false).map_err(|_| NotAsked::NotSent)?;
                // What owners ask the lead changes nothing, and comes from several.
                if lead != routes.session() && !shared.is_newest(lead, number) {
                    return Err(NotAsked::Elsewhere);
                }
                let answers: Vec<_> = asks.into_iter().map(|ask| self.hand_in(product, ask)).collect();
                let mut replies = Vec::with_capacity(answers.len());
                for answer in answers {
                    replies.push(match answer {
                        Ok(answer) => answer.await.unwrap_or(Err(NotDone::Unknown)),
                        Err(not_done) => Err(not_done),
                    });
                }
                // At least as new as what was said: it is published first.
                let view = self.peek(product).or_else(|| shared.view());
                Ok(Said::Product { replies, view: view.map(|view| View::clone(&view)) })
            }
            About::Order { order, at } => {
                let found = self.look_here(order, at).await;
                Ok(Said::Order(found.map_err(|_| NotAsked::NotSent)?))
            }
        }
    }

    /// Whether an owner waits for a database that says nothing, so that whoever wants to begin something is told so at once. A node that
    /// is not heard either may be dead: others have its products soon, and for that everybody waits.
    pub(super) fn is_stuck(&self, owner: &Shared) -> bool {
        let Some(routes) = self.routes() else { return false };
        let shard = owner.product.shard();
        if routes.is_here(shard) {
            return self.0.house.home.is_silent();
        }
        let Some(asked_ns) = owner.inbox.unanswered_ns() else { return false };
        let now_ns = self.0.house.clock.nanos();
        if now_ns.saturating_sub(asked_ns) <= SILENT_AFTER_NS {
            return false;
        }
        let route = routes.of(shard);
        let Route::Away(node) = &*route else { return false };
        let is_heard = |heard_ns| now_ns.saturating_sub(heard_ns) < HEARD_WITHIN_NS;
        routes.heard_ns(node.session).is_some_and(is_heard)
    }

    /// The published view of a product, for whoever looks at nothing else: an owner whose node has not been heard of late is asked. If it
    /// does not answer soon what it has published last is told.
    pub async fn young_view(&self, product: ProductId) -> Result<Arc<View>, NotDone> {
        if self.is_unheard(product) && self.peek(product).is_some() {
            Box::pin(self.hear_of(product)).await;
        }
        self.view(product).await
    }

    /// Whether the product is owned on another node that has not told for a while what is published there.
    pub(super) fn is_unheard(&self, product: ProductId) -> bool {
        let Some(routes) = self.routes() else { return false };
        if routes.is_here(product.shard()) {
            return false;
        }
        let route = routes.of(product.shard());
        let Route::Away(node) = &*route else { return false };
        let now_ns = self.0.house.clock.nanos();
        let is_old = |heard_ns| now_ns.saturating_sub(heard_ns) >= HEARD_WITHIN_NS;
        routes.heard_ns(node.session).is_none_or(is_old)
    }

    /// Asks the product's owner something, for the view that comes with the answer. Nobody waits for long, and where others wait already
    /// nobody asks: a crowd that only looks fills no mailbox.
    async fn hear_of(&self, product: ProductId) {
        let nobody = OrderId::from_bytes([0; 16]);
        let waits = self.loaded(product).is_some_and(|owner| owner.inbox.undecided() > 0);
        if !waits {
            let _ = timeout(Duration::from_nanos(HEARD_WITHIN_NS), self.order(product, nobody)).await;
        }
    }

    /// Whether it is loaded, or about to be, here or through this node.
    fn has(&self, product: ProductId) -> bool {
        self.0.owners.contains_key(&product)
    }

    /// Products that are loaded at that node, as far as this one has heard.
    pub fn loaded_by(&self, node: &NodeName) -> usize {
        let Some(routes) = self.routes() else { return 0 };
        self.0.owners.iter().filter(|owner| routes.is_at(owner.product.shard(), node)).count()
    }

    /// Owners in this process.
    pub fn loaded_here(&self) -> usize {
        match self.routes() {
            None => self.loaded_count(),
            Some(routes) => {
                self.0.owners.iter().filter(|owner| routes.is_here(owner.product.shard())).count()
            }
        }
    }

    /// An order as its home sees it, if that is loaded, on whichever node, and does not stand still. Without one the tables know, when they
    /// show everything.
    pub async fn find(&self, order: OrderId) -> Result<Option<Box<OrderView>>, NotDone> {
        self.look(About::Order { order, at: None }, order, None).await
    }

    /// What a product's owner knows of an order, if it is loaded, on whichever node. One that is not has nothing that is not flushed.
    pub async fn known_at(
        &self,
        product: ProductId,
        order: OrderId,
    ) -> Result<Option<Box<OrderView>>, NotDone> {
        self.look(About::Order { order, at: Some(product) }, order, Some(product)).await
    }

    async fn look(
        &self,
        about: About,
        order: OrderId,
        at: Option<ProductId>,
    ) -> Result<Option<Box<OrderView>>, NotDone> {
        let Some(routes) = self.routes() else { return self.look_here(order, at).await };
        let clock = &self.0.house.clock;
        let until = clock.now().plus(WAIT_MAX_MS);
        // Who was asked last, and has not told.
        let mut asked: Option<Arc<NodeName>> = None;
        let mut pause = AGAIN;
        loop {
            match &*routes.of(about.shard()) {
                Route::Here => return self.look_here(order, at).await,
                // By name where it is known: one that has just come to that node is perhaps not loaded there yet.
                Route::Away(_) if let Some(product) = at.filter(|product| self.has(*product)) => {
                    return match self.order(product, order).await? {
                        Answer::Order(view) => Ok(view),
                        _ => Err(NotDone::Internal),
                    };
                }
                Route::Away(node) => {
                    let question = self.question(routes, about.clone());
                    let is_again = asked.as_ref() == Some(node);
                    match self.ask_away(node.clone(), question, is_again).await {
                        Ok(Said::Order(found)) => return Ok(found),
                        // The connection is waited for, or that this one may be asked again.
                        Err(NotAsked::NotSent) => {}
                        Ok(_) | Err(NotAsked::Refused | NotAsked::Elsewhere | NotAsked::Unknown) => {
                            pause = if is_again { (2 * pause).min(AGAIN_MAX) } else { AGAIN };
                            asked = Some(node.clone());
                        }
                    }
                }
                Route::Moving => {}
            }
            if clock.now() > until {
                return Err(NotDone::Unavailable);
            }
            sleep(pause).await;
        }
    }

    pub(in crate::actors::stock) fn question(&self, routes: &Routes, about: About) -> Question {
        Question {
            lead: routes.lead(),
            number: routes.next_number(),
            pace: routes.pace(&self.0.house),
            about,
        }
    }

    /// From a thread that serves, whichever thread wants to know. What that node was asked before is sent only if it may be sent again.
    async fn ask_away(
        &self,
        node: Arc<NodeName>,
        question: Question,
        is_again: bool,
    ) -> Result<Said, NotAsked> {
        let abroad = self.routes().map(|routes| routes.abroad.clone()).ok_or(NotAsked::NotSent)?;
        let (said, heard) = oneshot::channel();
        let said = Arc::new(std::sync::Mutex::new(Some(said)));
        // What the other node says of it is to be found under the same name.
        let mark = logs::current();
        self.on_a_thread(|| {
            let (abroad, node, question, said) =
                (abroad.clone(), node.clone(), question.clone(), said.clone());
            let mark = mark.clone();
            move || {
                let said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                actix::spawn(logs::carried_for(mark, async move {
                    let may = !is_again || abroad.reaches(&node) && abroad.may_ask_again(&node);
                    let answer = match may {
                        true => abroad.ask(&node, question).await,
                        false => Err(NotAsked::NotSent),
                    };
                    drop(said.map(|said| said.send(answer)));
                }));
            }
        });
        drop(said);
        heard.await.unwrap_or(Err(NotAsked::Unknown))
    }

    async fn look_here(
        &self,
        order: OrderId,
        at: Option<ProductId>,
    ) -> Result<Option<Box<OrderView>>, NotDone> {
        let products = match at {
            Some(product) => Vec::from_iter(self.has(product).then_some(product)),
            None => self.loaded_in(order.shard()),
        };
        let mut silent = None;
        for product in products {
            match self.order(product, order).await {
                Ok(Answer::Order(Some(view))) if at.is_some() || view.home.is_none() => {
                    return Ok(Some(view));
                }
                Ok(_) => {}
                // One that stands still acknowledges nothing more: the tables have, or will have, whatever was its.
                Err(NotDone::Internal) if at.is_none() => {}
                // One that cannot say is no reason not to ask its neighbours.
                Err(why) => silent = silent.or(Some(why)),
            }
        }
        silent.map_or(Ok(None), Err)
    }
}
