//! The report of a run. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::terms::{Check, Row};

/// The report for people: a table in Markdown, as in `docs/benchmarks.md`.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| calls for | LBC 3.5 | goal | Ballast | |\n|---|---|---|---|---|\n");
    for row in rows {
        let said: Vec<String> = row.checks.iter().map(words).collect();
        let reached = if row.reached() {
            "reached"
        } else {
            "NOT reached"
        };
        let scene = row.scene;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {reached} |",
            scene.event(),
            scene.other(),
            scene.goal(),
            said.join(", "),
        );
    }
    text
}

/// The report for programs.
pub(crate) fn json(rows: &[Row]) -> Value {
    let check = |check: &Check| {
        json!({
            "what": check.what,
            "measured": check.measured,
            "most": check.most.filter(|most| most.is_finite()),
            "reached": check.reached(),
        })
    };
    let row = |row: &Row| {
        json!({
            "event": row.scene.event(),
            "lbc": row.scene.other(),
            "goal": row.scene.goal(),
            "measured": row.checks.iter().map(check).collect::<Vec<_>>(),
            "reached": row.reached(),
        })
    };
    Value::Array(rows.iter().map(row).collect())
}

/// A number with what it counts. Whole numbers have no point.
fn words(check: &Check) -> String {
    let Check { what, measured, .. } = check;
    let number = if measured.fract() == 0.0 {
        format!("{measured}")
    } else {
        format!("{measured:.1}")
    };
    format!("{number} {what}").trim_end().to_owned()
}
