//! The report of a run: medians, ratios of contenders within a round, and whether the goals are
//! reached.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::run::Outcome;
use super::terms::{Contender, Sample, Scenario, TO_OTHERS};

/// A goal, and the measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The goal in words.
    pub what: &'static str,
    /// The median of the rounds; `None` if it was not measured.
    pub measured: Option<f64>,
    /// The limit.
    pub limit: Limit,
}

/// The kind of limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// The rows of a scenario in the order of their names.
fn rows(samples: &[Sample], scenario: Scenario) -> BTreeSet<&'static str> {
    let mine = samples.iter().filter(|sample| sample.scenario == scenario);
    mine.flat_map(|sample| sample.values.keys().copied())
        .collect()
}

/// The median of a contender's rounds.
fn median_of(
    samples: &[Sample],
    scenario: Scenario,
    contender: Contender,
    row: &str,
) -> Option<f64> {
    let mine = samples
        .iter()
        .filter(|sample| sample.scenario == scenario && sample.contender == contender);
    median(
        mine.filter_map(|sample| sample.values.get(row).copied())
            .collect(),
    )
}

/// The median of the rounds' ratios: a disturbance affects both contenders of a round.
fn ratio(
    samples: &[Sample],
    scenario: Scenario,
    (above, below): (Contender, Contender),
    row: &str,
) -> Option<f64> {
    let value = |contender, round| {
        let it = samples.iter().find(|sample| {
            sample.scenario == scenario && sample.contender == contender && sample.round == round
        })?;
        it.values.get(row).copied()
    };
    let rounds: BTreeSet<u32> = samples.iter().map(|sample| sample.round).collect();
    let ratios = rounds
        .into_iter()
        .filter_map(|round| Some(value(above, round)? / value(below, round)?));
    median(ratios.filter(|ratio| ratio.is_finite()).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Whether Ballast reaches the goals.
pub fn goals(samples: &[Sample]) -> Vec<Goal> {
    use Contender::{Ballast, Raw, Reference};
    use Scenario::{Backlog1000, Backlog5000, Load, Pool5000, Start};
    let compare = |what, scenario: Scenario, pair, limit| Goal {
        what,
        measured: ratio(samples, scenario, pair, scenario.key()),
        limit,
    };
    let near = Limit::AtMost(1.3);
    let ahead = Limit::AtLeast(1.5);
    let mut goals = vec![
        compare(
            "backlog of 1,000, times the raw loop",
            Backlog1000,
            (Ballast, Raw),
            near,
        ),
        compare(
            "backlog of 5,000, times the raw loop",
            Backlog5000,
            (Ballast, Raw),
            near,
        ),
        compare(
            "backlog of 1,000, the reference's best over Ballast",
            Backlog1000,
            (Reference, Ballast),
            ahead,
        ),
        compare(
            "backlog of 5,000, the reference's best over Ballast",
            Backlog5000,
            (Reference, Ballast),
            ahead,
        ),
        compare(
            "create reply to address p95, times the raw loop",
            Load,
            (Ballast, Raw),
            near,
        ),
        Goal {
            what: "resident at 5,000, MB",
            measured: median_of(samples, Backlog5000, Ballast, "resident, MB"),
            limit: Limit::AtMost(35.0),
        },
        Goal {
            what: "start to ready, ms",
            measured: median_of(samples, Start, Ballast, Start.key()),
            limit: Limit::AtMost(300.0),
        },
        compare(
            "5,000 addresses of a pool, times the raw loop",
            Pool5000,
            (Ballast, Raw),
            Limit::AtMost(1.25),
        ),
    ];
    goals.extend(full_pool(samples));
    goals
}

/// The goals of the scenario that counts writes.
fn full_pool(samples: &[Sample]) -> impl Iterator<Item = Goal> {
    let at_most = [
        (
            "patches per Service for its address",
            "backlog: patches",
            1.0,
        ),
        ("patches per Service at a restart", "restart: patches", 0.0),
        (
            "restart with 5,000 to ready, s",
            "restart: to ready, s",
            2.0,
        ),
        ("resident after it, MB", "restart: resident, MB", 60.0),
        ("patches of others when 1,000 are made anew", TO_OTHERS, 0.0),
    ];
    at_most.into_iter().map(|(what, row, limit)| Goal {
        what,
        measured: median_of(samples, Scenario::PoolLife, Contender::Ballast, row),
        limit: Limit::AtMost(limit),
    })
}

impl Goal {
    /// `None` if it was not measured.
    pub fn reached(&self) -> Option<bool> {
        self.measured.map(|measured| match self.limit {
            Limit::AtMost(limit) => measured <= limit,
            Limit::AtLeast(limit) => measured >= limit,
        })
    }
}

/// The report for people.
pub fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    for scenario in Scenario::ALL {
        let rows = rows(&outcome.samples, scenario);
        if !rows.is_empty() {
            section(&mut text, outcome, scenario, &rows);
        }
    }
    text.push_str("Goals\n");
    for goal in goals(&outcome.samples) {
        let said = match goal.reached() {
            None => "not measured",
            Some(true) => "reached",
            Some(false) => "NOT reached",
        };
        let limit = match goal.limit {
            Limit::AtMost(limit) => format!("at most {limit}"),
            Limit::AtLeast(limit) => format!("at least {limit}"),
        };
        let measured = figure(goal.measured);
        let _ = writeln!(
            text,
            "  {:<52} {measured:>8}  {limit:<13} {said}",
            goal.what
        );
    }
    text
}

fn section(text: &mut String, outcome: &Outcome, scenario: Scenario, rows: &BTreeSet<&str>) {
    let samples = &outcome.samples;
    let there = |contender: &Contender| {
        samples
            .iter()
            .any(|sample| sample.scenario == scenario && sample.contender == *contender)
    };
    let columns: Vec<Contender> = Contender::ALL.into_iter().filter(there).collect();
    let services: BTreeSet<u32> = samples
        .iter()
        .filter(|sample| sample.scenario == scenario)
        .map(|sample| sample.services)
        .collect();
    let services: Vec<String> = services.iter().rev().map(u32::to_string).collect();
    let title = format!("{} ({})", scenario.title(), services.join(", "));
    let _ = write!(text, "{title:<34}");
    for column in &columns {
        let _ = write!(text, "{:>15}", column.title());
    }
    let _ = writeln!(
        text,
        "{:>13}{:>13}{:>13}",
        "Ballast/raw", "ref./Ballast", "ref./raw"
    );
    for row in rows {
        let _ = write!(text, "  {row:<32}");
        for column in &columns {
            let _ = write!(
                text,
                "{:>15}",
                figure(median_of(samples, scenario, *column, row))
            );
        }
        for pair in [
            (Contender::Ballast, Contender::Raw),
            (Contender::Reference, Contender::Ballast),
            (Contender::Reference, Contender::Raw),
        ] {
            let _ = write!(text, "{:>13}", figure(ratio(samples, scenario, pair, row)));
        }
        text.push('\n');
    }
    if let Some((_, best)) = outcome.concurrency.iter().find(|(of, _)| *of == scenario) {
        let _ = writeln!(text, "  (raw loop: {best} at once)");
    }
    text.push('\n');
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

/// The report for programs.
pub fn json(outcome: &Outcome) -> Value {
    let goals: Vec<Value> = goals(&outcome.samples)
        .iter()
        .map(
            |goal| json!({"what": goal.what, "measured": goal.measured, "reached": goal.reached()}),
        )
        .collect();
    let concurrency: Vec<Value> = outcome
        .concurrency
        .iter()
        .map(|(scenario, best)| json!({"scenario": scenario, "concurrency": best}))
        .collect();
    json!({"samples": outcome.samples, "rawLoop": concurrency, "goals": goals})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contender: Contender, round: u32, seconds: f64) -> Sample {
        let scenario = Scenario::Backlog1000;
        Sample {
            scenario,
            contender,
            round,
            services: 1_000,
            values: [(scenario.key(), seconds)].into(),
        }
    }

    #[test]
    fn ratios_are_those_of_rounds() {
        let samples = [
            sample(Contender::Ballast, 1, 2.0),
            sample(Contender::Raw, 1, 1.0),
            // A disturbed round: both take long, and one is not measured.
            sample(Contender::Ballast, 2, 30.0),
            sample(Contender::Raw, 2, 10.0),
            sample(Contender::Ballast, 3, 1.0),
        ];
        let goals = goals(&samples);
        assert_eq!(goals[0].measured, Some(2.5));
        assert_eq!(goals[0].reached(), Some(false));
        assert_eq!(goals[2].reached(), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
