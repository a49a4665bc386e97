//! What a hold costs to remember. Alone in its own process, because it measures the process.

use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::*;

const HOLDS: u64 = 1_000_000;
const BYTES_A_HOLD_MAX: u64 = 250;

/// Resident memory in bytes, of 4 KiB pages; `None` where the system does not say.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

#[test]
fn a_million_live_holds_of_a_million_buyers() {
    let price = Money { amount: 100, currency: Currency::KRW };
    let settings = Settings {
        price,
        opens_at: None,
        closes_at: None,
        per_customer_limit: Some(1),
        hold_ms: HOLD_MS_DEFAULT,
    };
    let mut ledger = Ledger::default();
    ledger.apply(&Event::Created(Created { settings, stock: HOLDS }));
    let Some(before) = resident() else { return };
    for n in 0..HOLDS {
        let now = Millis((n / 100) as i64);
        let chance = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let reserve = Command::Reserve(Reserve {
            order: OrderId::for_home(now, chance, ProductId::from_bytes([1; 16])),
            line: 0,
            buyer: UserId::new(now, chance),
            quantity: Quantity::of_line(1).unwrap(),
            key: Some(KeyUse { key: chance.to_be_bytes(), body: n }),
            expected: None,
            placing: None,
        });
        let Ok(Decision::Event(event)) = ledger.decide(&reserve, now) else { panic!("refused") };
        ledger.apply(&event);
    }
    let a_hold = (resident().unwrap() - before) / HOLDS;
    println!("{a_hold} bytes a hold");
    assert_eq!(ledger.counts().available(), 0);
    assert!(a_hold <= BYTES_A_HOLD_MAX, "{a_hold} bytes a hold, at most {BYTES_A_HOLD_MAX}");
}
