//! Counts of what happened, so that a world in which nothing happens proves nothing.

use std::ops::{Add, AddAssign};

/// What happened in all histories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub histories: u64,
    pub steps: u64,
    pub crashes: u64,
    pub deleted_by_class: u64,
    pub deleted_by_command: u64,
    pub shared: u64,
    pub breakers: u64,
    pub refused_alive: u64,
    pub refused_serving: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.deleted_by_class += other.deleted_by_class;
        self.deleted_by_command += other.deleted_by_command;
        self.shared += other.shared;
        self.breakers += other.breakers;
        self.refused_alive += other.refused_alive;
        self.refused_serving += other.refused_serving;
    }
}
