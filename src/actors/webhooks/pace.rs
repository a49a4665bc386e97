//! When a delivery that was not taken is sent again, and when that is given up: the schedule that Standard Webhooks suggests.

/// What is waited after each try. Together some three days.
const PAUSES_S: [i64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Tries that a delivery has.
#[cfg(test)]
pub(super) const TRIES_MAX: u32 = PAUSES_S.len() as u32 + 1;

/// The pause after the how-manieth try, up to a fifth longer than it says: whoever comes back is not overrun. `None`: that was
/// the last.
pub(super) fn pause_ms(tries: u32, chance: u128) -> Option<i64> {
    let pause_ms = PAUSES_S.get(usize::try_from(tries.saturating_sub(1)).ok()?)? * 1_000;
    let more = chance % u128::from(pause_ms.unsigned_abs() / 5);
    Some(pause_ms + i64::try_from(more).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_after_three_days() {
        assert_eq!(pause_ms(1, 0), Some(5_000));
        assert_eq!(pause_ms(1, 999), Some(5_999));
        assert_eq!(pause_ms(1, 1_000), Some(5_000));
        let all: Vec<i64> = (1..TRIES_MAX).map(|tries| pause_ms(tries, 0).unwrap()).collect();
        assert!(all.is_sorted() && pause_ms(TRIES_MAX, 0).is_none() && pause_ms(u32::MAX, 0).is_none());
        let days = all.iter().sum::<i64>() as f64 / 86_400_000.0;
        assert!((3.0..3.5).contains(&days), "{days}");
    }
}
