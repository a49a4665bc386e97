//! So many of something at a time for each address: connections, streams.
//!
//! It owns a count for each address that has any. Always true: a count is that of the places that are held, and whoever holds none is
//! forgotten. The machine itself and our own proxies hold as many as they like, for many people come through them; whomever a proxy speaks
//! for is counted.

use std::sync::Arc;

use dashmap::DashMap;

use super::client::Neighbourhood;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    held: DashMap<Neighbourhood, u32>,
    most: u32,
}

/// A place that counts for as long as this is held; for nothing where its holder is not counted.
#[derive(Debug)]
pub struct Place(Option<(Arc<Counts>, Neighbourhood)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((counts, from)) = &self.0 else { return };
        counts.held.remove_if_mut(from, |_, held| {
            *held = held.saturating_sub(1);
            *held == 0
        });
    }
}

/// There are as many already as one address may have.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Places {
    /// So many for each address.
    pub fn new(most: u32) -> Places {
        Places(Arc::new(Counts { held: DashMap::new(), most }))
    }

    pub fn take(&self, from: Neighbourhood) -> Result<Place, TooMany> {
        if from.is_exempt {
            return Ok(Place(None));
        }
        let mut held = self.0.held.entry(from).or_insert(0);
        if *held >= self.0.most {
            return Err(TooMany);
        }
        *held += 1;
        Ok(Place(Some((self.0.clone(), from))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_takes_none_of_others() {
        let places = Places::new(3);
        let take = |address: &str| places.take(Neighbourhood::of(address.parse().unwrap()));
        let mut held: Vec<_> = (0..3).map(|_| take("203.0.113.9").unwrap()).collect();
        assert_eq!(take("203.0.113.9").err(), Some(TooMany));
        assert_eq!(take("::ffff:203.0.113.9").err(), Some(TooMany), "the same, over IPv6");
        held.push(take("203.0.113.8").unwrap());
        let household = |last: u16| take(&format!("2001:db8:1:2::{last}"));
        let theirs: Vec<_> = (1..=3).map(|last| household(last).unwrap()).collect();
        assert_eq!(household(4).err(), Some(TooMany));
        drop(held.swap_remove(0));
        held.push(take("203.0.113.9").unwrap());
        held.extend((0..50).map(|_| take("127.0.0.1").unwrap()));
        drop((held, theirs));
        assert!(places.0.held.is_empty(), "whoever has gone is forgotten");
    }
}
