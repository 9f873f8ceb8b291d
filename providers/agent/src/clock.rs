//! The clock of the agent: monotonic, and it advances while the machine is suspended
//! (`CLOCK_BOOTTIME`, `clock_gettime(2)`).

use std::time::Duration;

use ballast_announce::Time;
use nix::time::{ClockId, clock_gettime};

/// The time now. All threads of the process share it.
pub(crate) fn now() -> Time {
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        // Linux has had this clock since 2.6.39 and never refuses to read it.
        return Time::default();
    };
    Time::after_start(Duration::from(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances() {
        let before = now();
        while now() <= before {
            std::hint::spin_loop();
        }
    }
}
