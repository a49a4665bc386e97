//! What goes wrong, and when.
//!
//! A history plans a dozen faults and must have met at least eight of them. A fault that finds the node down comes
//! again a little later.

use super::{Happening, World};
use crate::chance::Chance;
use crate::journal::Fate;
use crate::scenario::{FAULTS_END, FAULTS_MIN};
use crate::time::{MS, Micros, SECOND};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies between two outputs.
    CrashAtOutput,
    /// The process dies while a write is on its way.
    CrashDuringWrite,
    /// One owner dies between two outputs.
    OwnerPanic,
    /// One owner dies while its write is on its way, and the disk is slow.
    OwnerPanicInFlight,
    WriteRefused,
    WriteUnknownIn,
    WriteUnknownOut,
    DiskFull,
    DiskStands,
    /// The tables fall behind.
    FlushStands,
    WallSteps,
    PlacementDies,
    /// Answers are lost and everything is slow.
    Storm,
}

const KINDS: [Fault; 18] = [
    Fault::CrashAtOutput,
    Fault::CrashAtOutput,
    Fault::CrashAtOutput,
    Fault::CrashDuringWrite,
    Fault::CrashDuringWrite,
    Fault::OwnerPanic,
    Fault::OwnerPanic,
    Fault::OwnerPanicInFlight,
    Fault::WriteRefused,
    Fault::WriteUnknownIn,
    Fault::WriteUnknownOut,
    Fault::DiskFull,
    Fault::DiskStands,
    Fault::FlushStands,
    Fault::WallSteps,
    Fault::PlacementDies,
    Fault::Storm,
    Fault::PlacementDies,
];

impl World {
    pub(super) fn plan_faults(&mut self) {
        let mut chance = Chance::new(self.seed, 3);
        for _ in 0..self.scenario.faults {
            let at = chance.between(SECOND, FAULTS_END - 5 * SECOND);
            self.plan_at(at, Happening::Strike(chance.one_of(KINDS)));
        }
        if let Some(rush) = self.scenario.rush {
            self.plan_at(rush.at, Happening::Rush);
        }
        // Faults that found nothing to strike are made up for.
        for late in 0..FAULTS_MIN as Micros {
            self.plan_at(FAULTS_END - 4 * SECOND + late * 400 * MS, Happening::Strike(Fault::CrashAtOutput));
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        let making_up = self.now >= FAULTS_END - 4 * SECOND;
        if making_up && (self.tally.faults_in_all() >= FAULTS_MIN || self.now >= FAULTS_END) {
            return;
        }
        if !self.node.up {
            return self.plan(300 * MS, Happening::Strike(fault));
        }
        self.note("fault", fault as u64, 0);
        self.say(|| format!("fault: {fault:?}"));
        let process = self.node.number;
        match fault {
            Fault::CrashAtOutput => {
                self.node.fuse = Some(self.chance.below(30) as u32);
                let burns = self.chance.between(1, 300) * MS;
                self.plan(burns, Happening::Crash { process });
            }
            Fault::CrashDuringWrite => self.journal.crash_in_next = true,
            Fault::OwnerPanic => {
                let product = self.chance.index(self.node.owners.len());
                if self.node.owners[product].protocol().is_none() {
                    return self.plan(50 * MS, Happening::Strike(fault));
                }
                self.node.owners[product].fuse = Some(self.chance.below(12) as u32);
            }
            Fault::OwnerPanicInFlight => self.journal.panic_in_next = true,
            Fault::WriteRefused => self.journal.next_fate = Some(Fate::Before),
            Fault::WriteUnknownIn => self.journal.next_fate = Some(Fate::AfterIn),
            Fault::WriteUnknownOut => self.journal.next_fate = Some(Fate::AfterOut),
            Fault::DiskFull => {
                self.tally.fault("disk full for a while");
                self.journal.full_until = self.now + self.chance.between(100, 2_500) * MS;
            }
            Fault::DiskStands => {
                self.tally.fault("disk stands still");
                self.journal.next_stall = self.chance.between(300, 2_500) * MS;
            }
            Fault::FlushStands => {
                self.tally.fault("flush stands still");
                self.flush_stands_until = self.now + self.chance.between(1, 20) * SECOND;
            }
            Fault::WallSteps => {
                self.tally.fault("wall clock steps");
                let far = self.chance.one_of([2, 30, 3_600]) * SECOND;
                self.wall.error_us += if self.chance.percent(70) { far } else { -far };
            }
            Fault::PlacementDies => self.placement_fuse = Some(self.chance.below(4) as u32),
            Fault::Storm => {
                self.tally.fault("storm");
                self.storm_until = self.now + self.chance.between(500, 3_000) * MS;
            }
        }
    }
}
