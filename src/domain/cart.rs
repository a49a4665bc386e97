//! A cart: what somebody means to order, one line a product. It holds no unit and promises no price.
//!
//! Always true: a cart fits into one order, so its lines are bounded like an order's; and nothing in it changes but by its owner's
//! word, or because it was ordered.

use super::amount::{LINE_QUANTITY_MAX, Quantity};
use super::id::{ProductId, UserId};
use super::stock::Millis;

/// The most lines of a cart: those of one order.
pub const LINES_MAX: usize = 50;

/// One product that is meant to be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine {
    pub product: ProductId,
    pub quantity: Quantity,
    pub added_at: Millis,
}

/// Somebody's cart as its rows keep it; the first line is the one that was put in first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cart {
    pub lines: Vec<CartLine>,
    /// 0 while nothing was ever put in, one more for each change.
    pub version: u64,
    /// Of the last change.
    pub updated_at: Option<Millis>,
}

/// Why it was not put in. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPut {
    #[error("a cart has at most {limit} lines")]
    TooManyLines { limit: usize },
    #[error("a line has at most {limit} units: {has} are in it, {requested} were to be added")]
    TooManyUnits { limit: u32, has: u32, requested: u32 },
}

/// Units of one product that were ordered out of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub product: ProductId,
    pub quantity: Quantity,
}

/// A checkout that has begun: written down before its order is placed, taken away once its end is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    pub user: UserId,
    /// The order's idempotency key, the client's or one that was made up.
    pub key: [u8; 16],
    /// The hash of the request, as the order's ledger keeps it beside the key.
    pub body: u64,
    /// Whether it pays in the same call: then the order alone is not a yes.
    pub pays: bool,
    /// Whether the client knows the key, and may come again with it.
    pub keyed: bool,
    pub begun_at: Millis,
    pub lines: Vec<Taken>,
}

impl Cart {
    pub fn line(&self, product: ProductId) -> Option<&CartLine> {
        self.lines.iter().find(|line| line.product == product)
    }

    /// So many units of a product, whatever was there before.
    pub fn put(&mut self, product: ProductId, quantity: Quantity, now: Millis) -> Result<(), NotPut> {
        if let Some(line) = self.lines.iter_mut().find(|line| line.product == product) {
            line.quantity = quantity;
            return Ok(());
        }
        if self.lines.len() >= LINES_MAX {
            return Err(NotPut::TooManyLines { limit: LINES_MAX });
        }
        let last = self.lines.last().map_or(now, |line| line.added_at);
        self.lines.push(CartLine { product, quantity, added_at: now.max(last) });
        Ok(())
    }

    /// So many units more. What would be too many is refused, and not cut down.
    pub fn add(&mut self, product: ProductId, quantity: Quantity, now: Millis) -> Result<(), NotPut> {
        let has = self.line(product).map_or(0, |line| line.quantity.get());
        let requested = quantity.get();
        let together = Quantity::of_line(has.saturating_add(requested));
        let too_many = NotPut::TooManyUnits { limit: LINE_QUANTITY_MAX, has, requested };
        self.put(product, together.ok_or(too_many)?, now)
    }

    /// Takes a line out, if it is there.
    pub fn take_out(&mut self, product: ProductId) {
        self.lines.retain(|line| line.product != product);
    }

    pub fn clear(&mut self) {
        self.lines.clear();
    }

    /// Takes out what was ordered, and no more: whoever has put something in meanwhile keeps it.
    pub fn take_ordered(&mut self, taken: &[Taken]) {
        for Taken { product, quantity } in taken {
            let Some(line) = self.lines.iter_mut().find(|line| line.product == *product) else { continue };
            match Quantity::of_line(line.quantity.get().saturating_sub(quantity.get())) {
                Some(rest) => line.quantity = rest,
                None => self.take_out(*product),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(number: u128) -> ProductId {
        ProductId::new(Millis(0), number)
    }

    fn units(units: u32) -> Quantity {
        Quantity::of_line(units).unwrap()
    }

    fn of(lines: &[(u128, u32)]) -> Cart {
        let mut cart = Cart::default();
        for (number, quantity) in lines {
            cart.put(product(*number), units(*quantity), Millis(1)).unwrap();
        }
        cart
    }

    fn told(cart: &Cart) -> Vec<(ProductId, u32)> {
        cart.lines.iter().map(|line| (line.product, line.quantity.get())).collect()
    }

    #[test]
    fn putting_replaces_and_adding_adds_up_to_a_thousand() {
        let mut cart = of(&[(1, 3)]);
        cart.put(product(1), units(7), Millis(2)).unwrap();
        cart.add(product(1), units(993), Millis(2)).unwrap();
        cart.add(product(2), units(1), Millis(2)).unwrap();
        assert_eq!(told(&cart), [(product(1), 1_000), (product(2), 1)]);
        let more = cart.add(product(1), units(1), Millis(2));
        assert_eq!(more, Err(NotPut::TooManyUnits { limit: 1_000, has: 1_000, requested: 1 }));
        assert_eq!(told(&cart), [(product(1), 1_000), (product(2), 1)], "nothing changed");
    }

    #[test]
    fn a_cart_fits_into_one_order() {
        let lines: Vec<_> = (0..LINES_MAX as u128).map(|number| (number, 1)).collect();
        let mut cart = of(&lines);
        let full = Err(NotPut::TooManyLines { limit: LINES_MAX });
        assert_eq!(cart.put(product(99), units(1), Millis(2)), full);
        assert_eq!(cart.add(product(99), units(1), Millis(2)), full);
        assert_eq!(cart.add(product(7), units(1), Millis(2)), Ok(()));
        cart.take_out(product(7));
        assert_eq!(cart.put(product(99), units(1), Millis(2)), Ok(()));
    }

    #[test]
    fn what_was_ordered_leaves_and_what_was_put_in_meanwhile_stays() {
        let ordered = [(1, 2), (2, 2), (3, 2), (4, 2)];
        let taken: Vec<Taken> = ordered
            .map(|(number, quantity)| Taken { product: product(number), quantity: units(quantity) })
            .into();
        // As it was, more of it, less of it, gone; and another one.
        let mut cart = of(&[(1, 2), (2, 5), (3, 1), (9, 1)]);
        cart.take_ordered(&taken);
        assert_eq!(told(&cart), [(product(2), 3), (product(9), 1)]);
    }
}
