//! The desk: who is being served at this moment, so that whoever asks for the same waits for the same answer.
//!
//! Always true: of one thing at most one is served in this process; whoever waits hears the end, or that nobody knows it because
//! whoever served has gone.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hashbrown::DefaultHashBuilder;
use tokio::sync::watch;

use crate::actors::stock::NotDone;
use crate::domain::stock::KeyUse;

/// Who is being served.
pub struct Desk<K: Eq + Hash, T> {
    seats: DashMap<K, (Option<KeyUse>, Progress<T>), DefaultHashBuilder>,
}

impl<K: Eq + Hash, T> Default for Desk<K, T> {
    fn default() -> Desk<K, T> {
        Desk { seats: DashMap::default() }
    }
}

#[derive(Debug, Clone)]
enum Shown<T> {
    Nothing,
    /// How it stands by now.
    Now(T),
    End(Result<T, NotDone>),
}

/// How far somebody has come.
#[derive(Debug, Clone)]
pub struct Progress<T>(watch::Receiver<Shown<T>>);

/// Somebody is being served already.
pub enum Occupied<T> {
    /// By the same request: this is how far it is.
    Same(Progress<T>),
    /// By one with the same key and another body.
    Reused,
    Other,
}

/// Whoever sits here is served. Others may come once it is dropped.
pub struct Seat<K: Eq + Hash + Copy, T> {
    desk: Arc<Desk<K, T>>,
    what: K,
    shown: watch::Sender<Shown<T>>,
}

impl<K: Eq + Hash + Copy, T: Clone> Desk<K, T> {
    /// Takes the seat. Who has the key of whoever sits there, or `joins`, waits with him.
    pub fn sit(
        self: &Arc<Self>,
        what: K,
        key: Option<KeyUse>,
        joins: bool,
    ) -> Result<Seat<K, T>, Occupied<T>> {
        match self.seats.entry(what) {
            Entry::Vacant(free) => {
                let (shown, progress) = watch::channel(Shown::Nothing);
                free.insert((key, Progress(progress)));
                Ok(Seat { desk: self.clone(), what, shown })
            }
            Entry::Occupied(taken) => {
                let (theirs, progress) = taken.get();
                Err(Occupied::by(*theirs, progress, key, joins))
            }
        }
    }

    /// Who sits there, as whoever has this key, or `joins`, sees him. No seat is taken.
    pub fn look(&self, what: &K, key: Option<KeyUse>, joins: bool) -> Option<Occupied<T>> {
        let seat = self.seats.get(what)?;
        let (theirs, progress) = seat.value();
        Some(Occupied::by(*theirs, progress, key, joins))
    }
}

impl<T: Clone> Occupied<T> {
    fn by(theirs: Option<KeyUse>, progress: &Progress<T>, ours: Option<KeyUse>, joins: bool) -> Occupied<T> {
        match (theirs, ours) {
            _ if joins => Occupied::Same(progress.clone()),
            (Some(a), Some(b)) if a == b => Occupied::Same(progress.clone()),
            (Some(a), Some(b)) if a.key == b.key => Occupied::Reused,
            _ => Occupied::Other,
        }
    }
}

impl<K: Eq + Hash + Copy, T> Seat<K, T> {
    pub fn watch(&self) -> Progress<T> {
        Progress(self.shown.subscribe())
    }

    /// What is told to whoever does not wait for the end.
    pub fn show(&self, now: T) {
        self.shown.send_replace(Shown::Now(now));
    }

    /// The end. The seat is free.
    pub fn tell(self, end: Result<T, NotDone>) {
        self.shown.send_replace(Shown::End(end));
    }
}

impl<K: Eq + Hash + Copy, T> Drop for Seat<K, T> {
    fn drop(&mut self) {
        self.desk.seats.remove(&self.what);
    }
}

impl<T: Clone> Progress<T> {
    /// The end, or after `patience` how it stands.
    pub async fn heard(&mut self, patience: Duration) -> Result<T, NotDone> {
        let end = self.0.wait_for(|shown| matches!(shown, Shown::End(_)));
        let came = tokio::time::timeout(patience, end).await.is_ok_and(|end| end.is_ok());
        let gone = self.0.has_changed().is_err();
        let shown = self.0.borrow().clone();
        match shown {
            // Whoever served has gone without a word.
            Shown::Now(_) if !came && gone => Err(NotDone::Unknown),
            Shown::End(end) => end,
            Shown::Now(now) => Ok(now),
            Shown::Nothing => Err(NotDone::Unknown),
        }
    }
}
