//! Lists of products: walked along an index, narrowed on the way, and put together from what is in memory.
//!
//! It owns which products stand on the pages that were asked for of late. Always true: a page costs the same wherever in the
//! catalogue it lies; whoever narrows to little hears a short page and where to go on, and never waits for the whole
//! catalogue; whether something is left is what the product's owner says now, where it is loaded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moka::sync::Cache;

use super::{Catalogue, Text, unread};
use crate::actors::stock::{NotDone, View};
use crate::domain::id::ProductId;
use crate::domain::product::Tag;
use crate::persistence::product::{Along, Listing, Place, Sign, name_key};

/// Pages that are remembered. One is at most a hundred ids and the words that were asked for.
const PAGES_MAX: u64 = 2_000;
/// A view from the tables is remembered so long: much shorter than an owner must be idle before it rests, so that one who is not
/// loaded now has not been loaded meanwhile.
const COLD_KEPT_NS: u64 = 1_000_000_000;
/// Views from the tables that are remembered.
const COLD_MAX: u64 = 20_000;
/// Products looked at for one page.
const LOOKED_AT_MAX: u32 = 1_024;
/// Products looked at in one step when most of them may be passed by.
const STEP: u32 = 256;

/// One product of a list. The view of a product that nobody has bought of late is at most one flush old.
#[derive(Debug, Clone)]
pub struct Found {
    pub text: Arc<Text>,
    pub view: Arc<View>,
}

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// These and no others, newest first.
    pub ids: Option<Vec<ProductId>>,
    /// The beginning of the name, whatever its case; found by name then, otherwise newest first.
    pub prefix: Option<String>,
    pub tag: Option<Tag>,
    /// Only those of which something is left.
    pub available: bool,
    /// Only those that are archived, or are not.
    pub archived: Option<bool>,
    pub behind: Option<Place>,
    pub limit: usize,
}

/// A page. It may be short, or empty, though more follows.
#[derive(Debug)]
pub struct Shelf {
    pub found: Vec<Found>,
    /// Where the next page begins, unless this was the last.
    pub next: Option<Place>,
}

/// What a page was asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    along: Along,
    tag: Option<Tag>,
    archived: Option<bool>,
    behind: Option<Place>,
    limit: usize,
}

/// Which products stand on a page.
#[derive(Debug)]
struct Stand {
    ids: Vec<ProductId>,
    next: Option<Place>,
    /// The number of changes of the catalogue when it was made.
    as_of: u64,
}

/// A view from the tables, and when it was read.
#[derive(Debug, Clone)]
struct Cold {
    view: Arc<View>,
    read: Read,
}

/// When the tables were read, and up to when they showed then what the journal has.
#[derive(Debug, Clone, Copy)]
struct Read {
    at_ns: u64,
    flushed_ns: u64,
}

/// The pages that were asked for of late, and the stock of those on them whose owners rest.
pub(super) struct Pages {
    stands: Cache<Asked, Arc<Stand>>,
    cold: Cache<ProductId, Cold>,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages { stands: Cache::new(PAGES_MAX), cold: Cache::new(COLD_MAX) }
    }
}

impl Asked {
    fn of(search: &Search) -> Asked {
        let along = match (&search.prefix, search.tag) {
            (Some(prefix), _) => Along::Name(name_key(prefix)),
            (None, Some(tag)) => Along::Tag(tag),
            (None, None) => Along::Age,
        };
        let Search { tag, archived, limit, .. } = *search;
        Asked { along, tag, archived, behind: search.behind.clone(), limit }
    }

    fn fits(&self, sign: &Sign) -> bool {
        self.archived.is_none_or(|archived| archived == sign.archived)
            && match self.tag {
                None => true,
                Some(Tag::New) => sign.is_new,
                Some(Tag::Best) => sign.is_best,
            }
    }

    /// How many products the first step looks at: little more than is needed where nearly all of them fit.
    fn step(&self, needed: usize, available: bool) -> u32 {
        let passes_many = available || self.tag.is_some() && matches!(self.along, Along::Name(_));
        if passes_many { STEP } else { u32::try_from(needed).unwrap_or(STEP) }
    }
}

impl Catalogue {
    /// A page of the products that fit.
    pub async fn search(&self, search: Search) -> Result<Shelf, NotDone> {
        if let Some(ids) = &search.ids {
            return self.some_of(ids, &search).await;
        }
        let stand = self.stand(&search).await?;
        Ok(Shelf { found: self.put_together(&stand.ids).await?, next: stand.next.clone() })
    }

    /// The product with this sku, archived or not.
    pub async fn by_sku(&self, sku: &str) -> Result<Option<Found>, NotDone> {
        let text = self.0.reader.by_sku(sku).await.map_err(unread)?;
        let Some(text) = text else { return Ok(None) };
        Ok(self.put_together(&[text.id]).await?.pop())
    }

    async fn stand(&self, search: &Search) -> Result<Arc<Stand>, NotDone> {
        let asked = Asked::of(search);
        if search.available {
            return Ok(Arc::new(self.walk(&asked, true).await?));
        }
        let changes = || self.0.changes.load(Ordering::Acquire);
        if let Some(stand) = self.0.pages.stands.get(&asked).filter(|stand| stand.as_of == changes()) {
            return Ok(stand);
        }
        let stand = Arc::new(self.walk(&asked, false).await?);
        self.0.pages.stands.insert(asked, stand.clone());
        Ok(stand)
    }

    async fn walk(&self, asked: &Asked, available: bool) -> Result<Stand, NotDone> {
        let as_of = self.0.changes.load(Ordering::Acquire);
        // One more than is shown, to know whether any follows.
        let (most, mut looked_at) = (asked.limit + 1, 0);
        let mut at = asked.behind.clone();
        let mut picked: Vec<Place> = Vec::with_capacity(most);
        let next = loop {
            // Who has passed some by may pass many.
            let step = if looked_at == 0 { asked.step(most, available) } else { STEP };
            let signs = self.0.reader.signs(&asked.along, at.as_ref(), step).await.map_err(unread)?;
            let is_last = signs.len() < step as usize;
            looked_at += step;
            at = signs.last().map(|sign| sign.place.clone()).or(at);
            let fit = signs.into_iter().filter(|sign| asked.fits(sign) && (!available || self.is_left(sign)));
            picked.extend(fit.map(|sign| sign.place).take(most - picked.len()));
            if picked.len() == most {
                picked.truncate(asked.limit);
                break picked.last().cloned();
            }
            if is_last {
                break None;
            }
            if looked_at >= LOOKED_AT_MAX {
                break at;
            }
        };
        Ok(Stand { ids: picked.iter().map(|place| place.product).collect(), next, as_of })
    }

    /// Whether any unit is left, after the owner where it is loaded, after the last flush elsewhere.
    fn is_left(&self, sign: &Sign) -> bool {
        match self.0.directory.peek(sign.place.product) {
            Some(view) => view.counts.available() > 0,
            None => sign.available.is_some_and(|available| available > 0),
        }
    }

    async fn some_of(&self, ids: &[ProductId], search: &Search) -> Result<Shelf, NotDone> {
        let mut ids: Vec<ProductId> = match &search.behind {
            Some(place) => ids.iter().copied().filter(|id| *id < place.product).collect(),
            None => ids.to_vec(),
        };
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.dedup();
        let prefix = search.prefix.as_deref().map(name_key);
        let mut found = self.put_together(&ids).await?;
        found.retain(|Found { text, view }| {
            search.archived.is_none_or(|archived| archived == text.archived)
                && prefix.as_ref().is_none_or(|prefix| name_key(&text.name).starts_with(prefix))
                && search.tag.is_none_or(|tag| text.tags.iter().any(|word| word == tag.as_str()))
                && (!search.available || view.counts.available() > 0)
        });
        let more = found.len() > search.limit;
        found.truncate(search.limit);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| Place { product: last.text.id, name_key: None });
        Ok(Shelf { found, next })
    }

    /// Those of these products that there are, archived ones too, in the order of the ids: from memory, and what is not there in one
    /// reading. A row without a ledger is a product that is being made: it is not shown.
    pub async fn put_together(&self, ids: &[ProductId]) -> Result<Vec<Found>, NotDone> {
        let mut found: Vec<Option<Found>> = ids.iter().map(|id| self.in_memory(*id)).collect();
        let missing: Vec<ProductId> =
            ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| *id).collect();
        if !missing.is_empty() {
            let before = self.0.changes.load(Ordering::Acquire);
            let now = Read { at_ns: self.0.clock.nanos(), flushed_ns: self.0.directory.flushed_ns() };
            let mut rows = self.0.reader.find_many(&missing).await.map_err(unread)?;
            rows.sort_unstable_by_key(|listing| listing.product.id);
            for (id, place) in ids.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                let Ok(at) = rows.binary_search_by_key(id, |listing| listing.product.id) else { continue };
                *place = self.found_in(&rows[at], before, now).await?;
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn in_memory(&self, product: ProductId) -> Option<Found> {
        let view = self.0.directory.peek(product).or_else(|| self.cold(product))?;
        Some(Found { text: self.0.texts.get(&product)?, view })
    }

    /// What was read of a product whose owner rests, a moment ago, and after all that the owner had written was there.
    fn cold(&self, product: ProductId) -> Option<Arc<View>> {
        let Cold { view, read } = self.0.pages.cold.get(&product)?;
        let age_ns = self.0.clock.nanos().saturating_sub(read.at_ns);
        (age_ns < COLD_KEPT_NS && self.0.directory.left_ns(product) < read.flushed_ns).then_some(view)
    }

    /// What is published of a product now: by its owner where that is loaded. Nobody is loaded to be looked at where the tables show all
    /// that owners have written who rest: whoever leafs through the whole catalogue does not have it read into memory.
    pub async fn view(&self, product: ProductId) -> Result<Arc<View>, NotDone> {
        let directory = &self.0.directory;
        if let Some(view) = directory.peek(product) {
            return Ok(view);
        }
        // Before the tables are read, which are no older then.
        if directory.is_flushed(product)
            && let Ok(found) = self.put_together(&[product]).await
            && let [Found { view, .. }] = &found[..]
        {
            return Ok(view.clone());
        }
        directory.view(product).await
    }

    async fn found_in(&self, listing: &Listing, before: u64, read: Read) -> Result<Option<Found>, NotDone> {
        let product = listing.product.id;
        let Some(view) = self.view_of(listing, read).await? else { return Ok(None) };
        if let Some(text) = self.0.texts.get(&product) {
            return Ok(Some(Found { text, view }));
        }
        Ok(Some(Found { text: self.keep_read(listing.product.clone(), before), view }))
    }

    async fn view_of(&self, listing: &Listing, read: Read) -> Result<Option<Arc<View>>, NotDone> {
        let product = listing.product.id;
        if let Some(view) = self.0.directory.peek(product) {
            return Ok(Some(view));
        }
        match &listing.stock {
            Some(stock) => {
                let view = Arc::new(View {
                    sequence: stock.sequence,
                    counts: stock.counts,
                    settings: Arc::new(stock.settings.clone()),
                    paused: stock.paused,
                    archived: stock.archived,
                    as_of: stock.updated_at,
                });
                let cold = Cold { view: view.clone(), read };
                self.0.pages.cold.insert(product, cold);
                Ok(Some(view))
            }
            None => self.ledger_of(product).await,
        }
    }
}
