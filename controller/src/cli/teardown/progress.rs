//! How the command shows its progress: on a terminal one line that is drawn again, otherwise a
//! line for each change. Everything goes to standard error; the result alone goes to standard
//! output.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::report::{Report, summary};
use crate::cli::text::length;
use crate::process::program::note;
use crate::process::text::{one_line, shortened};

/// The cells of the bar.
const CELLS: usize = 24;
/// The width of a terminal that does not say how wide it is.
const USUAL: usize = 80;

/// How many Services were released so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// All Services that had something: namespace and name.
    seen: BTreeSet<(String, String)>,
    left: usize,
}

/// Standard error.
#[derive(Debug)]
pub struct Screen {
    /// The width of the terminal; `None`: it gets lines.
    width: Option<usize>,
    /// The bar is on the last line.
    drawn: bool,
}

// === impl Progress ===

impl Progress {
    /// Takes a report into account. Services that appear later add to the total.
    pub fn observe(&mut self, report: &Report) {
        let services = report.left.iter();
        let names = services.filter_map(|it| Some((it.namespace.clone()?, it.name.clone())));
        let names: BTreeSet<_> = names.collect();
        self.left = names.len();
        self.seen.extend(names);
    }

    /// `RELEASED of TOTAL`.
    pub fn told(&self) -> String {
        let total = self.seen.len();
        format!("{} of {total} Services released", total - self.left)
    }

    /// The line for a terminal of this width.
    pub fn bar(&self, report: &Report, elapsed: Duration, width: usize) -> String {
        let total = self.seen.len();
        let released = total - self.left;
        let full = (released * CELLS).checked_div(total).unwrap_or(CELLS);
        let bar = format!("[{}{}]", "#".repeat(full), "-".repeat(CELLS - full));
        let elapsed = length(elapsed.as_secs().cast_signed());
        let first = report.left.first();
        let waits = first.map_or(String::new(), |it| {
            format!(" · waiting for {it}: {}", it.why)
        });
        let line = format!("{bar} {released}/{total} released · {elapsed}{waits}");
        shortened(&one_line(&line), width.saturating_sub(1))
    }
}

/// A line while nothing changes, for what is not a terminal.
pub fn waiting(report: &Report, progress: &Progress, elapsed: Duration, told: &str) -> String {
    format!(
        "waiting for {} ({} after {}); {told}",
        summary(report),
        progress.told(),
        length(elapsed.as_secs().cast_signed()),
    )
}

// === impl Screen ===

impl Screen {
    /// That of this process.
    pub fn of_process() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = std::io::stderr().is_terminal() && !dumb;
        let width = || terminal_size::terminal_size().map_or(USUAL, |(width, _)| width.0.into());
        Self {
            width: bar.then(width),
            drawn: false,
        }
    }

    /// Whether it draws a bar.
    pub const fn has_bar(&self) -> bool {
        self.width.is_some()
    }

    /// Writes a line. The bar is drawn again later, below it.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        self.clear();
        note(text);
    }

    /// Draws the bar.
    pub fn draw(&mut self, report: &Report, progress: &Progress, elapsed: Duration) {
        if let Some(width) = self.width {
            write(&format!("\r\x1b[K{}", progress.bar(report, elapsed, width)));
            self.drawn = true;
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            write("\r\x1b[K");
        }
    }
}

/// If standard error is closed, the error is ignored.
fn write(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::super::report::Left;
    use super::*;

    fn report(names: &[&str]) -> Report {
        let left = |name: &&str| Left {
            namespace: (*name != "local").then(|| "shop".to_owned()),
            name: (*name).to_owned(),
            class: "local".to_owned(),
            why: "The load balancer is being released".to_owned(),
            ..Left::default()
        };
        Report {
            left: names.iter().map(left).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn the_bar_fills_and_fits_the_terminal() {
        let mut progress = Progress::default();
        let mut lines = Vec::new();
        for (names, second, width) in [
            (&["a", "b", "local"][..], 0, 120),
            // Another one appears, and one is released.
            (&["b", "c", "local"], 61, 60),
            (&["local"], 130, 120),
            (&[], 4_000, 120),
        ] {
            let report = report(names);
            progress.observe(&report);
            lines.push(progress.bar(&report, Duration::from_secs(second), width));
        }
        insta::assert_snapshot!(lines.join("\n"), @r"
        [------------------------] 0/2 released · 0s · waiting for shop/a (local): The load balancer is being released
        [########----------------] 1/3 released · 61s · waiting...
        [########################] 3/3 released · 2m10s · waiting for class local: The load balancer is being released
        [########################] 3/3 released · 66m
        ");
        let none = Progress::default().bar(&report(&[]), Duration::ZERO, 120);
        insta::assert_snapshot!(none, @"[########################] 0/0 released · 0s");
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let mut progress = Progress::default();
        progress.observe(&report(&["a", "b", "local"]));
        let now = report(&["b", "local"]);
        progress.observe(&now);
        let line = waiting(
            &now,
            &progress,
            Duration::from_secs(34),
            "controller c holds the Lease",
        );
        insta::assert_snapshot!(line, @"waiting for 1 Service and 1 class (1 of 2 Services released after 34s); controller c holds the Lease");
    }
}
