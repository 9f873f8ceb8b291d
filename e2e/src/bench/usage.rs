//! Processor time and memory of processes and of the machine, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Component, Host, Lab};

/// The kernel reports processor time to user space in hundredths of a second, whatever its
/// internal unit.
const TICKS: f64 = 100.0;
/// An API server that uses less of a processor than this is idle.
const QUIET: f64 = 0.15;

/// What one process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Processor seconds.
    pub cpu: f64,
    /// Resident memory, in megabytes of 10^6 bytes.
    pub resident: f64,
    /// The maximum so far.
    pub peak: f64,
}

/// The processor seconds of the whole machine so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy: f64,
}

// === impl Usage ===

impl Usage {
    /// The usage of a process on the lab's control plane.
    pub async fn of(lab: &Lab, process: &str) -> Result<Self> {
        let status = lab.status().await?;
        let found = status
            .processes
            .iter()
            .find(|it| it.spec.name == process)
            .with_context(|| format!("no process {process}"))?;
        let files = ["stat", "status"].map(|file| format!("/proc/{}/{file}", found.pid));
        let argv = ["cat", &files[0], &files[1]];
        let text = lab.exec(Host::ControlPlane, argv).await?.ok()?;
        parse(&text).with_context(|| format!("cannot read what {process} used"))
    }
}

fn parse(text: &str) -> Option<Usage> {
    let (_, rest) = text.lines().next()?.rsplit_once(')')?;
    // After the name: state is field 3, utime 14, stime 15.
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    let kibibytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Usage {
        cpu: ticks / TICKS,
        resident: kibibytes("VmRSS:")? * 1024.0 / 1e6,
        peak: kibibytes("VmHWM:")? * 1024.0 / 1e6,
    })
}

// === impl Machine ===

impl Machine {
    /// The usage until now.
    pub(crate) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let fields = line.split_ascii_whitespace().skip(1).take(8);
        let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let idle = fields.get(3).unwrap_or(&0.0) + fields.get(4).unwrap_or(&0.0);
        Ok(Self {
            busy: (fields.iter().sum::<f64>() - idle) / TICKS,
        })
    }

    /// The processor seconds used since `self`.
    pub(crate) fn busy_since(self, earlier: Self) -> f64 {
        self.busy - earlier.busy
    }
}

/// Waits until the API server is idle, at most for this long: after a start it is busy for some
/// seconds after it is ready, because other components still write.
pub(crate) async fn quiet(lab: &Lab, patience: Duration) -> Result<()> {
    let window = Duration::from_millis(300);
    let name = Component::ApiServer.name();
    let wait = async {
        let (mut last, mut calm) = (Usage::of(lab, &name).await?.cpu, 0);
        while calm < 3 {
            tokio::time::sleep(window).await;
            let now = Usage::of(lab, &name).await?.cpu;
            let busy = (now - last) / window.as_secs_f64();
            calm = if busy < QUIET { calm + 1 } else { 0 };
            last = now;
        }
        anyhow::Ok(())
    };
    // A busy machine may never be idle; then the measurement starts anyway.
    tokio::time::timeout(patience, wait).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_brackets_do_not_shift_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 5 6 20 0 9";
        let usage = parse(&format!("{stat}\nVmHWM:\t   2000 kB\nVmRSS:\t   1000 kB\n")).unwrap();
        assert!((usage.cpu - 2.0).abs() < 1e-9);
        assert!((usage.resident - 1.024).abs() < 1e-9);
        assert!((usage.peak - 2.048).abs() < 1e-9);
    }
}
