//! Postage: how many letters may leave in an hour, and which of them have room where that is not enough for all.
//!
//! Letters cost money and a good name with those who carry them, and a crowd of addresses can have any number of them written. Of each
//! class a share is kept, so that none takes all the room there is. Always true: within any hour no more leave than the bound says, nor
//! more to unproved addresses than theirs says; what a class has not used of its share is taken by no other; and nothing is thrown away
//! here, for what has no room waits.

use std::collections::VecDeque;

use super::stock::Millis;

const MINUTE_MS: i64 = 60_000;
/// What left in a minute counts until an hour after its end.
const COUNTED_MINUTES: i64 = 61;
/// Of the bound, one part in so many is kept for each class.
const SHARES: u64 = 4;

macro_rules! classes {
    ($( $(#[$doc:meta])* $variant:ident $word:literal ),* $(,)?) => {
        /// What a letter is about, as far as its room goes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum LetterClass { $( $(#[$doc])* $variant ),* }

        impl LetterClass {
            pub const ALL: [LetterClass; CLASSES] = [$( LetterClass::$variant ),*];

            /// The word that stands in tables and in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $( LetterClass::$variant => $word ),* }
            }

            pub fn from_word(word: &str) -> Option<LetterClass> {
                match word { $( $word => Some(LetterClass::$variant), )* _ => None }
            }
        }
    };
}

const CLASSES: usize = 3;

// In the order in which they are looked at: whoever waits in front of a screen comes first.
classes!(
    /// About an account, to an address that its reader has proved.
    Account "account",
    /// To an address that nobody has proved: its reader asked for it, or somebody else did.
    Unproved "unproved",
    /// About an order.
    Order "order",
);

/// How many letters may leave in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostageLimits {
    pub per_hour: u32,
    /// Of these, to addresses that nobody has proved.
    pub unproved_per_hour: u32,
}

/// What has left within the last hour. It begins with nothing.
#[derive(Debug)]
pub struct Postage {
    limits: PostageLimits,
    /// Oldest first.
    minutes: VecDeque<Minute>,
}

#[derive(Debug)]
struct Minute {
    number: i64,
    left: [u64; CLASSES],
}

impl Postage {
    pub fn new(limits: PostageLimits) -> Postage {
        Postage { limits, minutes: VecDeque::new() }
    }

    /// How many letters of a class may leave now.
    pub fn room(&self, class: LetterClass, now: Millis) -> u64 {
        let left = self.left(now);
        let others = LetterClass::ALL.into_iter().filter(|other| *other != class);
        let kept: u64 = others.map(|other| self.share(other).saturating_sub(left[other as usize])).sum();
        let gone: u64 = left.iter().sum();
        let room = u64::from(self.limits.per_hour).saturating_sub(gone + kept);
        match class {
            LetterClass::Unproved => {
                room.min(u64::from(self.limits.unproved_per_hour).saturating_sub(left[class as usize]))
            }
            LetterClass::Account | LetterClass::Order => room,
        }
    }

    /// When there is room for one of a class: `now`, or when what left long enough ago no longer counts.
    pub fn room_at(&self, class: LetterClass, now: Millis) -> Millis {
        let forgotten = self.minutes.iter().map(|minute| {
            Millis(minute.number.saturating_add(COUNTED_MINUTES).saturating_mul(MINUTE_MS)).max(now)
        });
        let mut times = std::iter::once(now).chain(forgotten);
        times.find(|at| self.room(class, *at) > 0).unwrap_or(now.plus(COUNTED_MINUTES * MINUTE_MS))
    }

    /// So many have left.
    pub fn leave(&mut self, class: LetterClass, letters: u64, now: Millis) {
        let number = minute_of(now);
        while self.minutes.front().is_some_and(|minute| !counts(minute, now)) {
            self.minutes.pop_front();
        }
        if letters == 0 {
            return;
        }
        match self.minutes.back_mut().filter(|minute| minute.number >= number) {
            Some(minute) => minute.left[class as usize] += letters,
            None => {
                let mut left = [0; CLASSES];
                left[class as usize] = letters;
                self.minutes.push_back(Minute { number, left });
            }
        }
    }

    /// What is kept for a class: no more than it may use.
    fn share(&self, class: LetterClass) -> u64 {
        let share = u64::from(self.limits.per_hour) / SHARES;
        match class {
            LetterClass::Unproved => share.min(u64::from(self.limits.unproved_per_hour)),
            LetterClass::Account | LetterClass::Order => share,
        }
    }

    fn left(&self, now: Millis) -> [u64; CLASSES] {
        let mut sum = [0; CLASSES];
        for minute in self.minutes.iter().filter(|minute| counts(minute, now)) {
            for (sum, left) in sum.iter_mut().zip(minute.left) {
                *sum += left;
            }
        }
        sum
    }
}

fn minute_of(at: Millis) -> i64 {
    at.0.div_euclid(MINUTE_MS)
}

fn counts(minute: &Minute, now: Millis) -> bool {
    minute.number > minute_of(now) - COUNTED_MINUTES
}

#[cfg(test)]
mod tests {
    use super::LetterClass::{Account, Order, Unproved};
    use super::*;

    /// The beginning of a minute.
    const T0: Millis = Millis(1_800_000_000_000);
    const HOUR_MS: i64 = 60 * MINUTE_MS;

    fn postage(per_hour: u32, unproved_per_hour: u32) -> Postage {
        Postage::new(PostageLimits { per_hour, unproved_per_hour })
    }

    fn rooms(postage: &Postage, now: Millis) -> [u64; CLASSES] {
        LetterClass::ALL.map(|class| postage.room(class, now))
    }

    #[test]
    fn what_one_class_may_take_leaves_the_others_their_share() {
        let mut postage = postage(100, 10);
        assert_eq!(rooms(&postage, T0), [65, 10, 65]);
        postage.leave(Order, 65, T0);
        assert_eq!(rooms(&postage, T0), [25, 10, 0]);
        postage.leave(Unproved, 10, T0);
        assert_eq!(rooms(&postage, T0), [25, 0, 0]);
        postage.leave(Account, 25, T0);
        assert_eq!(rooms(&postage, T0), [0, 0, 0]);
    }

    #[test]
    fn what_left_is_forgotten_an_hour_after_its_minute() {
        let mut postage = postage(100, 10);
        let late = T0.plus(MINUTE_MS - 1);
        postage.leave(Unproved, 6, T0);
        postage.leave(Unproved, 4, late);
        assert_eq!(postage.room_at(Account, late), late);
        assert_eq!(postage.room_at(Unproved, late), T0.plus(HOUR_MS + MINUTE_MS));
        assert_eq!(postage.room(Unproved, T0.plus(HOUR_MS + MINUTE_MS - 1)), 0);
        assert_eq!(postage.room(Unproved, T0.plus(HOUR_MS + MINUTE_MS)), 10);
        postage.leave(Order, 0, T0.plus(HOUR_MS + MINUTE_MS));
        assert!(postage.minutes.is_empty(), "nothing is kept for longer than it counts");
    }

    /// However much of it is granted to them.
    #[test]
    fn addresses_that_nobody_has_proved_take_the_share_of_no_other() {
        let mut postage = postage(100, 1_000);
        assert_eq!(rooms(&postage, T0), [50, 50, 50]);
        postage.leave(Unproved, 50, T0);
        assert_eq!(rooms(&postage, T0), [25, 0, 25]);
    }

    #[test]
    fn a_bound_too_small_for_shares_is_for_whoever_comes_first() {
        let mut postage = postage(1, 1);
        assert_eq!(rooms(&postage, T0), [1, 1, 1]);
        postage.leave(Account, 1, T0);
        assert_eq!(rooms(&postage, T0), [0, 0, 0]);
        assert_eq!(postage.room_at(Order, T0), T0.plus(HOUR_MS + MINUTE_MS));
    }

    #[test]
    fn no_hour_sees_more_than_the_bound_and_no_class_starves() {
        let mut postage = postage(100, 10);
        let mut gone = Vec::new();
        for minute in 0..600 {
            let now = T0.plus(minute * MINUTE_MS + minute % 2 * (MINUTE_MS - 1));
            // Each has more than there is room for, and takes all of it; who comes first changes.
            for turn in 0..CLASSES {
                let class = LetterClass::ALL[(minute as usize + turn) % CLASSES];
                let room = postage.room(class, now);
                postage.leave(class, room, now);
                gone.push((now, class, room));
            }
        }
        for (from, ..) in &gone {
            let (mut all, mut unproved) = (0, 0);
            for (at, class, letters) in &gone {
                if (*from..from.plus(HOUR_MS)).contains(at) {
                    all += letters;
                    unproved += if *class == Unproved { *letters } else { 0 };
                }
            }
            assert!(all <= 100 && unproved <= 10, "{from:?}: {all}, {unproved}");
        }
        for (class, at_least) in [(Account, 25), (Unproved, 10), (Order, 25)] {
            let of_class = gone.iter().filter(|(_, other, _)| *other == class);
            let all: u64 = of_class.map(|(.., letters)| letters).sum();
            // Ten hours hold nine times sixty-one minutes.
            assert!(all >= 9 * at_least, "{class:?}: {all}");
        }
    }

    #[test]
    fn a_class_is_found_by_its_word() {
        for class in LetterClass::ALL {
            assert_eq!(LetterClass::from_word(class.as_str()), Some(class));
        }
        assert_eq!(LetterClass::from_word("news"), None);
    }
}
