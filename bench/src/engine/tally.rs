//! What a run counts: outcomes and latencies, over the whole measured time and along it in equal intervals. Latency is
//! taken from the moment the buyer meant to ask, so a server that makes buyers queue cannot hide it.

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::answer::Outcome;
use crate::clock::{MICROSECOND, Nanos};

const LONGEST_US: u64 = 600_000_000;

pub type Outcomes = [u64; Outcome::COUNT];

#[derive(Clone)]
pub struct Tally {
    /// Microseconds, of answers that say *yes* and of answers that say *no*.
    pub acknowledged_us: Histogram<u64>,
    pub refused_us: Histogram<u64>,
    /// Answers inside the measured time.
    pub measured: Outcomes,
    /// All answers.
    pub total: Outcomes,
    pub intervals: Vec<Interval>,
    pub last_answer_ns: Nanos,
    interval_ns: Nanos,
}

/// One stretch of the time line.
#[derive(Clone)]
pub struct Interval {
    pub outcomes: Outcomes,
    pub latency_us: Histogram<u64>,
}

impl Tally {
    pub fn new(interval_ns: Nanos) -> Result<Self> {
        Ok(Self {
            acknowledged_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            refused_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            measured: [0; Outcome::COUNT],
            total: [0; Outcome::COUNT],
            intervals: Vec::with_capacity(1024),
            last_answer_ns: 0,
            interval_ns,
        })
    }

    /// Counts an answer `at` nanoseconds into the run; `latency` is counted if it is given.
    pub fn count(&mut self, outcome: Outcome, at: Nanos, measured: bool, latency: Option<Nanos>) {
        self.total[outcome as usize] += 1;
        self.last_answer_ns = at;
        let place = (at / self.interval_ns) as usize;
        while self.intervals.len() <= place {
            let empty = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("constant bounds");
            self.intervals.push(Interval { outcomes: [0; Outcome::COUNT], latency_us: empty });
        }
        let interval = &mut self.intervals[place];
        interval.outcomes[outcome as usize] += 1;
        if let Some(latency) = latency {
            interval.latency_us.saturating_record(latency / MICROSECOND);
        }
        if measured {
            self.measured[outcome as usize] += 1;
            if let Some(latency) = latency {
                let histogram = if outcome == Outcome::Acknowledged {
                    &mut self.acknowledged_us
                } else {
                    &mut self.refused_us
                };
                histogram.saturating_record(latency / MICROSECOND);
            }
        }
    }

    pub fn absorb(&mut self, other: &Self) -> Result<()> {
        self.acknowledged_us.add(&other.acknowledged_us)?;
        self.refused_us.add(&other.refused_us)?;
        add(&mut self.measured, &other.measured);
        add(&mut self.total, &other.total);
        self.last_answer_ns = self.last_answer_ns.max(other.last_answer_ns);
        for (place, theirs) in other.intervals.iter().enumerate() {
            match self.intervals.get_mut(place) {
                Some(ours) => {
                    add(&mut ours.outcomes, &theirs.outcomes);
                    ours.latency_us.add(&theirs.latency_us)?;
                }
                None => self.intervals.push(theirs.clone()),
            }
        }
        Ok(())
    }

    /// Yes and no together.
    pub fn answered_us(&self) -> Result<Histogram<u64>> {
        let mut both = self.acknowledged_us.clone();
        both.add(&self.refused_us)?;
        Ok(both)
    }
}

fn add(ours: &mut Outcomes, theirs: &Outcomes) {
    ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
}
