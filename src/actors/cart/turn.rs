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
pub struct TooMany;

struct Seat {
    lock: Arc<tokio::sync::Mutex<()>>,
    here: usize,
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
}

impl Turns {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind those who are there.
    pub fn queue(&self, user: UserId) -> Result<Ticket, TooMany> {
        let mut room = self.room();
        if room.here >= IN_ALL_MAX {
            return Err(TooMany);
        }
        let seat = room.seats.entry(user).or_insert_with(|| Seat { lock: Arc::default(), here: 0 });
        if seat.here >= OF_ONE_MAX {
            return Err(TooMany);
        }
        seat.here += 1;
        let lock = seat.lock.clone();
        room.here += 1;
        Ok(Ticket { turns: self.clone(), user, lock })
    }

    /// A place, if nobody of this person is there.
    pub fn if_idle(&self, user: UserId) -> Option<Ticket> {
        let is_idle = !self.room().seats.contains_key(&user);
        if is_idle { self.queue(user).ok() } else { None }
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
        assert!(turns.if_idle(mina).is_none());
        let rest: Vec<Ticket> = (1..OF_ONE_MAX).map(|_| turns.queue(mina).unwrap()).collect();
        assert!(turns.queue(mina).is_err());
        let other = turns.if_idle(jun).unwrap();
        drop(other.turn().await);
        assert!(futures_util::FutureExt::now_or_never(rest[0].turn()).is_none(), "it is not over");
        drop(turn);
        drop(rest[0].turn().await);
        drop((first, rest, other));
        assert!(turns.room().seats.is_empty() && turns.room().here == 0);
    }
}
