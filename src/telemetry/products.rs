//! What is left of the products that are hot: series that come and go, so that there are never more than a few.

use std::sync::{Mutex, PoisonError};

use super::text;

const PRODUCT_UNITS: &str = "stockade_product_units";

/// One product and its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductUnits {
    pub product: String,
    pub available: u64,
    pub held: u64,
    pub sold: u64,
}

static SHOWN: Mutex<Vec<ProductUnits>> = Mutex::new(Vec::new());

/// Shows these products from now on, and no others.
pub fn show_products(products: Vec<ProductUnits>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = products;
}

pub(super) fn render(out: &mut String) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if shown.is_empty() {
        return;
    }
    text::describe(out, PRODUCT_UNITS);
    for ProductUnits { product, available, held, sold } in shown.iter() {
        for (state, units) in [("available", available), ("held", held), ("sold", sold)] {
            text::sample(out, PRODUCT_UNITS, &text::labels(&[("product", product), ("state", state)]), units);
        }
    }
}
