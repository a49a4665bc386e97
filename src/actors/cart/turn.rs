//! Whose turn it is: checkouts of one person run one after the other, and only so many wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::DefaultHashBuilder;
use tokio::sync::OwnedMutexGuard;

use crate::domain::id::UserId;

/// Checkouts of one person that run or wait, at most.
pub const OF_ONE_MAX: usize = 8;
/// Checkouts of everybody that run or wait, at most.
pub const IN_ALL_MAX: usize = 4_096;

/// Too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Among them checkouts of this very person.
    pub own: bool,
}

#[derive(Default)]
struct Seat {
    lock: Arc<tokio::sync::Mutex<()>>,
    here: usize,
    /// Those of them who only end what was left behind: that is soon done.
    tidying: usize,
}

impl Seat {
    fn checks_out(&self) -> bool {
        self.here > self.tidying
    }
}

#[derive(Default)]
struct Room {
    seats: HashMap<UserId, Seat, DefaultHashBuilder>,
    here: usize,
}

/// Everybody who checks out. Cheap to clone.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<Room>>);

/// A place in the queue of one person; given back when it is dropped.
pub struct Ticket {
    turns: Turns,
    user: UserId,
    lock: Arc<tokio::sync::Mutex<()>>,
    tidies: bool,
}

impl Turns {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind those who are there.
    pub fn queue(&self, user: UserId) -> Result<Ticket, TooMany> {
        self.enter(&mut self.room(), user, false)
    }

    /// A place for whoever ends what was left behind; none while a checkout of this person runs or waits, for that does it, and may
    /// take its time.
    pub fn tidy(&self, user: UserId) -> Option<Ticket> {
        let mut room = self.room();
        if room.seats.get(&user).is_some_and(Seat::checks_out) {
            None
        } else {
            self.enter(&mut room, user, true).ok()
        }
    }

    fn enter(&self, room: &mut Room, user: UserId, tidies: bool) -> Result<Ticket, TooMany> {
        if room.here >= IN_ALL_MAX {
            let own = room.seats.get(&user).is_some_and(Seat::checks_out);
            return Err(TooMany { own });
        }
        let seat = room.seats.entry(user).or_default();
        // Whoever merely looks takes no place from whoever orders.
        let before = if tidies { seat.tidying } else { seat.here.saturating_sub(seat.tidying) };
        if before >= OF_ONE_MAX {
            return Err(TooMany { own: true });
        }
        seat.here += 1;
        seat.tidying += usize::from(tidies);
        let lock = seat.lock.clone();
        room.here += 1;
        Ok(Ticket { turns: self.clone(), user, lock, tidies })
    }
}

impl Ticket {
    /// Waits for one's turn. It lasts as long as the guard.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.lock.clone().lock_owned().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut room = self.turns.room();
        room.here = room.here.saturating_sub(1);
        if let Some(seat) = room.seats.get_mut(&self.user) {
            seat.here = seat.here.saturating_sub(1);
            seat.tidying = seat.tidying.saturating_sub(usize::from(self.tidies));
            if seat.here == 0 {
                room.seats.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    #[tokio::test]
    async fn one_person_waits_in_line_and_nobody_else_does() {
        let turns = Turns::default();
        let (mina, jun) = (UserId::new(Millis(0), 1), UserId::new(Millis(0), 2));
        let first = turns.queue(mina).unwrap();
        let turn = first.turn().await;
        assert!(turns.tidy(mina).is_none());
        let rest: Vec<Ticket> = (1..OF_ONE_MAX).map(|_| turns.queue(mina).unwrap()).collect();
        assert_eq!(turns.queue(mina).err(), Some(TooMany { own: true }));
        let other = turns.tidy(jun).unwrap();
        let beside = turns.tidy(jun).unwrap();
        drop(other.turn().await);
        assert!(futures_util::FutureExt::now_or_never(rest[0].turn()).is_none(), "it is not over");
        drop(turn);
        drop(rest[0].turn().await);
        drop((first, rest, other, beside));
        assert!(turns.room().seats.is_empty() && turns.room().here == 0);
    }
}
