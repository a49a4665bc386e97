//! A wish list: products that somebody wants to find again. It promises nothing, and a product stands in it once.

use super::id::ProductId;
use super::stock::Millis;

/// The most wishes of one person.
pub const WISHES_MAX: usize = 200;

/// One wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub product: ProductId,
    pub added_at: Millis,
}

/// The list is full. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a wish list has at most {limit} products")]
pub struct WishesFull {
    pub limit: usize,
}

/// What is to be done so that `product` is wished for: a new wish, or nothing where it is already.
pub fn wish(known: &[Wish], product: ProductId, now: Millis) -> Result<Option<Wish>, WishesFull> {
    if known.iter().any(|wish| wish.product == product) {
        return Ok(None);
    }
    if known.len() >= WISHES_MAX {
        return Err(WishesFull { limit: WISHES_MAX });
    }
    // Later than all others, so that the newest stands first whatever the clock does.
    let last = known.iter().map(|wish| wish.added_at).max().unwrap_or(Millis(0));
    Ok(Some(Wish { product, added_at: now.max(last) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(number: u128) -> ProductId {
        ProductId::new(Millis(0), number)
    }

    #[test]
    fn a_product_is_wished_for_once_and_a_full_list_says_so() {
        let mut known = Vec::new();
        for number in 0..WISHES_MAX as u128 {
            known.extend(wish(&known, product(number), Millis(7)).unwrap());
            assert_eq!(wish(&known, product(number), Millis(9)), Ok(None));
        }
        assert_eq!(known.len(), WISHES_MAX);
        assert_eq!(wish(&known, product(1_000), Millis(9)), Err(WishesFull { limit: WISHES_MAX }));
        assert_eq!(wish(&known, product(0), Millis(9)), Ok(None), "what is in a full list still is");
    }

    #[test]
    fn a_clock_that_steps_back_changes_no_order() {
        let first = wish(&[], product(1), Millis(9)).unwrap().unwrap();
        let next = wish(&[first], product(2), Millis(3)).unwrap().unwrap();
        assert_eq!(next.added_at, Millis(9));
    }
}
