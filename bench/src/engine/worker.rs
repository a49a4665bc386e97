//! One thread's share of the crowd: which attempts are due, which connection is free, what each answer means. It never
//! waits; the socket tasks beside it (`connection`) tell it what happened, and it writes the next request at once.
//!
//! Always true: a connection carries at most one request at a time, so that a cut leaves exactly one attempt uncertain;
//! an attempt is in exactly one place: ready, deferred, in flight, or over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use tokio::net::tcp::OwnedWriteHalf;

use super::attempt::Attempt;
use super::{Arrivals, History, Live, Ordered, Plan, Tally};
use crate::answer::{OrderId, OrderState, Outcome, sequence, total};
use crate::chance::Dice;
use crate::clock::{MILLISECOND, Nanos};

#[derive(Clone, Copy)]
struct Flight {
    attempt: Attempt,
    sent_ns: Nanos,
}

#[derive(Default)]
struct Connection {
    writer: Option<OwnedWriteHalf>,
    flight: Option<Flight>,
    is_queued_as_free: bool,
}

pub struct Worker {
    plan: Arc<Plan>,
    index: usize,
    start_ns: Nanos,
    /// Fresh attempts begun by this thread.
    begun: u64,
    ready: VecDeque<Attempt>,
    deferred: BinaryHeap<Reverse<(Nanos, Attempt)>>,
    free: VecDeque<usize>,
    connections: Vec<Connection>,
    in_flight: u64,
    /// Attempts that may have an order without knowing it, and wait for their turn to ask.
    uncertain: u64,
    stopped: bool,
    request: Vec<u8>,
    dice: Dice,
    published: [u64; 7],
    pub tally: Tally,
    pub history: History,
    pub noticed_late: u64,
    pub longest_backlog: u64,
}

const LATE_NS: Nanos = 2 * MILLISECOND;

impl Worker {
    pub fn new(plan: Arc<Plan>, index: usize, connections: usize) -> Result<Self> {
        Ok(Self {
            tally: Tally::new(plan.interval_ns)?,
            history: History::new(plan.products, plan.expected_orders / plan.threads + 1),
            dice: Dice::new(plan.seed ^ index as u64),
            index,
            start_ns: Nanos::MAX,
            begun: 0,
            ready: VecDeque::with_capacity(4096),
            deferred: BinaryHeap::new(),
            free: VecDeque::with_capacity(connections),
            connections: (0..connections).map(|_| Connection::default()).collect(),
            in_flight: 0,
            uncertain: 0,
            stopped: false,
            request: Vec::with_capacity(2048),
            published: [0; 7],
            noticed_late: 0,
            longest_backlog: 0,
            plan,
        })
    }

    pub fn is_connected(&self) -> bool {
        self.connections.iter().all(|connection| connection.writer.is_some())
    }

    pub fn begin(&mut self, start_ns: Nanos) {
        self.start_ns = start_ns;
    }

    /// A tick: what has become due is handed to free connections.
    pub fn tick(&mut self, now: Nanos) {
        if now < self.start_ns {
            return;
        }
        while let Some(Reverse((due, _))) = self.deferred.peek()
            && *due <= now
        {
            self.ready.extend(self.deferred.pop().map(|Reverse((_, attempt))| attempt));
        }
        match self.plan.arrivals {
            Arrivals::Open { .. } => self.admit_arrivals(now),
            Arrivals::Closed => self.start_idle_connections(now),
        }
        while !self.ready.is_empty()
            && let Some(place) = self.next_free()
        {
            self.feed(place, now, false);
        }
        self.longest_backlog = self.longest_backlog.max(self.ready.len() as u64);
    }

    /// A connection stands (again).
    pub fn connected(&mut self, place: usize, writer: OwnedWriteHalf, now: Nanos) {
        self.connections[place].writer = Some(writer);
        self.feed(place, now, false);
    }

    /// A connection ended. What it carried is uncertain.
    pub fn cut(&mut self, place: usize, now: Nanos) {
        self.connections[place].writer = None;
        if let Some(flight) = self.connections[place].flight.take() {
            self.in_flight -= 1;
            self.conclude(flight, Outcome::ConnectionCut, &[], now);
        }
    }

    /// An answer arrived. `false` if nobody had asked: the connection must be given up.
    pub fn answered(&mut self, place: usize, status: u16, body: &[u8], now: Nanos) -> bool {
        if status == 408 || self.connections[place].flight.is_none() {
            return false;
        }
        if let Some(flight) = self.connections[place].flight.take() {
            self.in_flight -= 1;
            let outcome = match flight.attempt.open {
                None => Outcome::of(status, body),
                Some(_) => Outcome::of_look(status, body),
            };
            let deferred = self.conclude(flight, outcome, body, now);
            self.feed(place, now, !deferred);
        }
        true
    }

    /// Nothing is left to do.
    pub fn is_finished(&self, now: Nanos) -> bool {
        let idle = self.in_flight == 0 && self.ready.is_empty() && self.deferred.is_empty();
        (idle && self.next_number(now).is_none())
            || now.saturating_sub(self.start_ns) > self.plan.given_up_ns()
    }

    /// Writes off whatever is still open.
    pub fn give_up(&mut self) {
        let in_flight = self.connections.iter_mut().filter_map(|connection| connection.flight.take());
        let sent = in_flight.map(|flight| flight.attempt.key.attempt);
        let waiting = self.ready.drain(..).chain(self.deferred.drain().map(|Reverse((_, attempt))| attempt));
        self.history.unresolved.extend(sent.chain(waiting.map(|attempt| attempt.key.attempt)));
    }

    /// Makes progress visible to the rest of the harness, and hears whether the run is to stop.
    pub fn publish(&mut self, live: &Live) {
        self.stopped = live.stop.load(Relaxed);
        let sum = |chosen: fn(Outcome) -> bool| {
            Outcome::ALL
                .iter()
                .filter(|outcome| chosen(**outcome))
                .map(|outcome| self.tally.total[*outcome as usize])
                .sum::<u64>()
        };
        let current = [
            self.tally.total[Outcome::Acknowledged as usize],
            sum(Outcome::is_refusal),
            sum(Outcome::is_unavailable),
            sum(Outcome::is_uncertain),
            self.in_flight,
            self.uncertain,
            self.ready.len() as u64,
        ];
        let gauges = [
            &live.acknowledged,
            &live.refused,
            &live.unavailable,
            &live.cut,
            &live.in_flight,
            &live.uncertain,
            &live.backlog,
        ];
        for (place, gauge) in gauges.into_iter().enumerate() {
            // Wrapping, since the last three also fall.
            gauge.fetch_add(current[place].wrapping_sub(self.published[place]), Relaxed);
        }
        self.published = current;
    }

    fn admit_arrivals(&mut self, now: Nanos) {
        while let Some(number) = self.next_number(now) {
            let intended_ns = self.start_ns + self.plan.due(number);
            if intended_ns > now {
                return;
            }
            self.noticed_late += u64::from(now - intended_ns > LATE_NS);
            self.begun += 1;
            let product = self.plan.product_of(number);
            self.ready.push_back(Attempt::first(number, product, intended_ns));
        }
    }

    /// In a closed loop a free connection is one that has never asked, or one that lent its turn to a deferred attempt.
    fn start_idle_connections(&mut self, now: Nanos) {
        let parked = self.deferred.len();
        while self.free.len() > parked
            && self.next_number(now).is_some()
            && let Some(place) = self.next_free()
        {
            self.feed(place, now, true);
        }
    }

    /// The number of the next fresh attempt, if there is one.
    fn next_number(&self, now: Nanos) -> Option<u64> {
        let number = self.begun * self.plan.threads as u64 + self.index as u64;
        let over = match self.plan.arrivals {
            Arrivals::Open { .. } => self.plan.due(number) >= self.plan.duration_ns,
            Arrivals::Closed => now.saturating_sub(self.start_ns) >= self.plan.duration_ns,
        };
        (number < self.plan.attempts && !over && !self.stopped).then_some(number)
    }

    fn next_free(&mut self) -> Option<usize> {
        loop {
            let place = self.free.pop_front()?;
            let connection = &mut self.connections[place];
            connection.is_queued_as_free = false;
            if connection.writer.is_some() && connection.flight.is_none() {
                return Some(place);
            }
        }
    }

    /// Gives a connection its next attempt, or lets it rest. `may_begin`: in a closed loop, it may take a fresh one.
    fn feed(&mut self, place: usize, now: Nanos, may_begin: bool) {
        if let Some(attempt) = self.ready.pop_front() {
            return self.send(place, attempt, now);
        }
        if may_begin
            && matches!(self.plan.arrivals, Arrivals::Closed)
            && let Some(number) = self.next_number(now)
        {
            self.begun += 1;
            let product = self.plan.product_of(number);
            return self.send(place, Attempt::first(number, product, now), now);
        }
        let connection = &mut self.connections[place];
        if !connection.is_queued_as_free {
            connection.is_queued_as_free = true;
            self.free.push_back(place);
        }
    }

    /// One request is far smaller than a socket's buffer, so it goes out whole or the connection is no good.
    fn send(&mut self, place: usize, attempt: Attempt, now: Nanos) {
        match attempt.open {
            None => self.plan.requests.write(attempt.key, attempt.product, &mut self.request),
            Some(order) => self.plan.requests.write_look(attempt.key.attempt, order, &mut self.request),
        }
        let connection = &mut self.connections[place];
        let written = connection.writer.as_ref().map_or(Ok(0), |writer| writer.try_write(&self.request));
        let was_uncertain = u64::from(attempt.uncertain_since_ns != 0);
        match written {
            Ok(length) if length == self.request.len() => {
                connection.flight = Some(Flight { attempt, sent_ns: now });
                self.in_flight += 1;
                self.uncertain -= was_uncertain;
            }
            Ok(1..) => {
                connection.writer = None;
                self.uncertain -= was_uncertain;
                self.conclude(Flight { attempt, sent_ns: now }, Outcome::ConnectionCut, &[], now);
            }
            Ok(0) | Err(_) => {
                connection.writer = None;
                self.ready.push_front(attempt);
            }
        }
    }

    /// Counts and remembers what a try came to. `true` if its buyer will ask again.
    fn conclude(&mut self, flight: Flight, outcome: Outcome, body: &[u8], now: Nanos) -> bool {
        let Flight { attempt, sent_ns } = flight;
        let since_start = now.saturating_sub(self.start_ns);
        let is_measured = attempt.intended_ns >= self.start_ns + self.plan.warm_up_ns
            && since_start <= self.plan.measured_until_ns;
        let latency = outcome.is_certain().then(|| now.saturating_sub(attempt.intended_ns));
        self.tally.count(outcome, since_start, is_measured, latency);
        self.remember(&flight, outcome, body, now);

        let is_over = self.stopped || since_start >= self.plan.duration_ns;
        let order = if outcome == Outcome::PaymentOpen { OrderId::of(body) } else { None };
        let next = attempt.after(outcome, order, sent_ns, self.plan.retry, is_over);
        self.uncertain += u64::from(next.is_some_and(|next| next.uncertain_since_ns != 0));
        self.history.went_home += u64::from(outcome == Outcome::Declined && next.is_none());
        if let Some(next) = next {
            self.defer(next, now);
        }
        next.is_some()
    }

    fn defer(&mut self, mut attempt: Attempt, now: Nanos) {
        let delay_ns = self.plan.retry.delay_ms.max(1) * MILLISECOND;
        let due = now + self.dice.between(delay_ns / 2, delay_ns * 3 / 2);
        attempt.intended_ns = attempt.intended_ns.min(due);
        self.deferred.push(Reverse((due, attempt)));
    }

    /// What the judges will ask about.
    fn remember(&mut self, flight: &Flight, outcome: Outcome, body: &[u8], now: Nanos) {
        let Flight { attempt, sent_ns } = flight;
        let history = &mut self.history;
        if matches!(outcome, Outcome::OtherRefusal | Outcome::ServerError) && history.oddity.is_none() {
            history.oddity = Some(String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned());
        }
        if matches!(outcome, Outcome::Acknowledged | Outcome::Declined) {
            let Some(ordered) = self.ordered(flight, body, now) else {
                self.history.unreadable += 1;
                return;
            };
            match outcome {
                Outcome::Acknowledged => self.history.acknowledged.push(ordered),
                _ => self.history.declined.push(ordered),
            }
        } else if attempt.open.is_some() && outcome.is_refusal() {
            // He had an order, and now nobody knows it.
            history.unresolved.push(attempt.key.attempt);
        } else if outcome.is_refusal()
            && let Some(sequence) = sequence(body)
        {
            history.refuse(attempt.product, sequence, outcome == Outcome::SoldOut, *sent_ns, now);
        } else if outcome == Outcome::SoldOut {
            // Whoever says so has a ledger, and where in it he stood belongs to the answer.
            history.unreadable += 1;
        }
    }

    fn ordered(&self, flight: &Flight, body: &[u8], now: Nanos) -> Option<Ordered> {
        let Flight { attempt, sent_ns } = flight;
        // Where nobody pays there is nothing to compare them with, and the generator's time is dear.
        let (state, total) = match self.plan.requests.pays() {
            true => (OrderState::of(body), total(body)?),
            false => (OrderState::PendingPayment, 0),
        };
        Some(Ordered {
            key: attempt.key,
            product: attempt.product,
            sequence: sequence(body)?,
            asked_ns: attempt.asked_ns(*sent_ns),
            answered_ns: now,
            order: OrderId::of(body)?,
            state,
            total,
            was_uncertain: attempt.uncertain_since_ns != 0,
        })
    }
}
