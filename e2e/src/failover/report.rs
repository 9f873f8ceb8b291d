//! The report: the median and the worst of all rounds, and whether the goals are reached.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::run::Outcome;
use super::terms::{Goal, Limit, Sample, Scene};

/// A value of a scene over all rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The scene.
    pub scene: Scene,
    /// The value's name.
    pub value: &'static str,
    /// The number of rounds.
    pub rounds: usize,
    /// The median.
    pub median: f64,
    /// The largest.
    pub worst: f64,
    /// The smallest.
    pub least: f64,
}

/// The rows of a run, in its order; those with goals first.
pub fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut rows = vec![];
    for scene in Scene::ALL {
        let mine: Vec<&Sample> = samples.iter().filter(|it| it.scene == scene).collect();
        let goals: Vec<&str> = scene.goals().iter().map(|it| it.value).collect();
        let names: BTreeSet<&'static str> = mine
            .iter()
            .flat_map(|it| it.values.keys().copied())
            .collect();
        let place = |name: &str| goals.iter().position(|it| *it == name);
        let mut names: Vec<&'static str> = names.into_iter().collect();
        names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
        for value in names {
            let all = mine.iter().filter_map(|it| it.values.get(value).copied());
            let mut all: Vec<f64> = all.collect();
            all.sort_by(f64::total_cmp);
            rows.extend(row(scene, value, &all));
        }
    }
    rows
}

fn row(scene: Scene, value: &'static str, sorted: &[f64]) -> Option<Row> {
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle])
    };
    Some(Row {
        scene,
        value,
        rounds: sorted.len(),
        median,
        worst: *sorted.last()?,
        least: *sorted.first()?,
    })
}

impl Row {
    /// The goals for this value, and whether each is reached.
    fn goals(&self) -> Vec<(Goal, bool)> {
        let mine = self.scene.goals().into_iter();
        let mine = mine.filter(|goal| goal.value == self.value);
        mine.map(|goal| {
            let reached = match goal.limit {
                Limit::Median(at_most) => self.median <= at_most,
                Limit::Worst(at_most) => self.worst <= at_most,
                Limit::Always(exactly) => self.least >= exactly && self.worst <= exactly,
            };
            (goal, reached)
        })
        .collect()
    }
}

/// Whether every goal of the scenes that were measured is reached, and every round could be measured.
pub fn reached(outcome: &Outcome) -> bool {
    let all = rows(&outcome.samples);
    let mut goals = all.iter().flat_map(Row::goals);
    // A value that was never measured has no row.
    let mut wanted = outcome.samples.iter().flat_map(|sample| {
        let goals = sample.scene.goals().into_iter();
        goals.map(move |goal| (sample, goal.value))
    });
    outcome.failures.is_empty()
        && goals.all(|(_, reached)| reached)
        && wanted.all(|(sample, value)| sample.values.contains_key(value))
}

/// The report for people.
pub fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<48}{:>7}{:>10}{:>10}  {:<28}result",
        "", "rounds", "median", "worst", "goal"
    );
    let mut last = None;
    for row in rows(&outcome.samples) {
        if last.replace(row.scene) != Some(row.scene) {
            let _ = writeln!(text, "{}", row.scene.title());
        }
        let goals = row.goals();
        let limits: Vec<String> = goals.iter().map(|(goal, _)| limit(goal)).collect();
        let result = match goals.iter().map(|it| it.1).min() {
            None => "",
            Some(true) => "reached",
            Some(false) => "NOT reached",
        };
        let _ = writeln!(
            text,
            "  {:<46}{:>7}{:>10.3}{:>10.3}  {:<28}{result}",
            row.value,
            row.rounds,
            row.median,
            row.worst,
            limits.join(", "),
        );
    }
    for (scene, why) in &outcome.failures {
        let _ = writeln!(text, "NOT measured: {}: {why}", scene.title());
    }
    text
}

fn limit(goal: &Goal) -> String {
    match goal.limit {
        Limit::Median(at_most) => format!("median ≤ {at_most}"),
        Limit::Worst(at_most) => format!("worst ≤ {at_most}"),
        Limit::Always(exactly) => format!("always {exactly}"),
    }
}

/// The report for programs.
pub fn json(outcome: &Outcome) -> Value {
    let rows: Vec<Value> = rows(&outcome.samples)
        .iter()
        .map(|row| {
            let goals = row.goals();
            json!({
                "scene": row.scene, "value": row.value, "rounds": row.rounds,
                "median": row.median, "worst": row.worst,
                "goals": goals.iter().map(|it| limit(&it.0)).collect::<Vec<_>>(),
                "reached": goals.iter().map(|it| it.1).min(),
            })
        })
        .collect();
    let failures = outcome.failures.iter();
    let failures: Vec<Value> = failures
        .map(|(scene, why)| json!({"scene": scene, "why": why}))
        .collect();
    json!({"samples": outcome.samples, "rows": rows, "failures": failures})
}

#[cfg(test)]
mod tests {
    use super::super::terms::Values;
    use super::super::terms::value::{ANSWERED, KNOWN, KNOWN_MOVES};
    use super::*;

    /// A round that reaches all goals, but for one value.
    fn sample(scene: Scene, name: &'static str, value: f64) -> Sample {
        let best = scene.goals().into_iter().map(|goal| match goal.limit {
            Limit::Always(exactly) => (goal.value, exactly),
            Limit::Median(_) | Limit::Worst(_) => (goal.value, 0.0),
        });
        let mut values: Values = best.collect();
        values.insert(name, value);
        Sample {
            scene,
            round: 1,
            values,
        }
    }

    fn samples(outages: &[f64]) -> Vec<Sample> {
        let sample = |outage: &f64| sample(Scene::NodeKilled, KNOWN, *outage);
        outages.iter().map(sample).collect()
    }

    fn outcome(outages: &[f64]) -> Outcome {
        Outcome {
            samples: samples(outages),
            failures: vec![],
        }
    }

    #[test]
    fn a_goal_is_reached_by_median_and_worst() {
        assert!(reached(&outcome(&[0.7, 0.6, 1.4])));
        assert!(!reached(&outcome(&[0.9, 0.9, 0.1])), "the median");
        assert!(!reached(&outcome(&[0.1, 0.1, 1.6])), "the worst");
        let rows = rows(&samples(&[0.2, 0.4]));
        assert!((rows[0].median - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_goal_that_nobody_measured_is_not_reached() {
        let mut outcome = outcome(&[0.7, 0.6]);
        outcome.samples[1].values.remove(ANSWERED);
        assert!(!reached(&outcome));
    }

    #[test]
    fn exactly_one_is_not_none() {
        let sample = |moves| sample(Scene::Frozen3s, KNOWN_MOVES, moves);
        for (moves, good) in [([1.0, 1.0], true), ([0.0, 1.0], false), ([1.0, 2.0], false)] {
            let samples = moves.map(sample).into();
            let failures = vec![];
            assert_eq!(reached(&Outcome { samples, failures }), good, "{moves:?}");
        }
    }

    #[test]
    fn a_round_that_failed_is_no_success() {
        let mut outcome = outcome(&[0.1]);
        outcome.failures.push((Scene::Split, "no answer".into()));
        assert!(!reached(&outcome));
        let text = table(&outcome);
        assert!(text.contains("NOT measured: segment split"), "{text}");
    }
}
