//! What `ballast plan` prints for people. Pure.

use std::fmt::Write as _;

use super::steps::{Planned, Report, Verdict};
use crate::process::text::{one_line, shortened};

/// The column where values begin.
const VALUES: usize = 15;
/// The most characters of a value.
const LONGEST: usize = 2_048;
const NOTHING: &str = "Nothing was changed.";

/// Each Service, and the sums.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for one in &report.services {
        out.push_str(&service(one));
        out.push('\n');
    }
    for name in &report.not_served {
        let name = one_line(name);
        let _ = writeln!(out, "{name}: no class of Ballast serves it\n");
    }
    out.push_str(&sums(report));
    out
}

fn service(one: &Planned) -> String {
    let title = format!("{}/{}", one.namespace, one.name);
    let provider = one.provider.as_deref().unwrap_or("no provider");
    let mut out = format!(
        "{} {} (class {}, {provider})\n",
        one_line(&title),
        one.result.as_str(),
        one_line(&one.class)
    );
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            let value = shortened(&one_line(value), LONGEST);
            let _ = writeln!(out, "  {name:VALUES$}{value}");
        }
    };
    if let Some(reason) = one.reason {
        field(reason, &one.why);
    }
    field("Listeners", &one.listeners.join(", "));
    field("Load balancer", &one.load_balancer);
    field("Shared with", &one.shared_with.join(", "));
    field("Calls", &calls(one));
    field("Cost", &cost(one));
    for warning in &one.warnings {
        field("Warning", warning);
    }
    out
}

fn calls(one: &Planned) -> String {
    let total: usize = one.calls.values().sum();
    let kinds: Vec<String> = one
        .calls
        .iter()
        .map(|(action, count)| match count {
            1 => action.clone(),
            count => format!("{count} {action}"),
        })
        .collect();
    match (total, one.result) {
        (_, Verdict::Refused | Verdict::Waits) => String::new(),
        (0, _) => "none".to_owned(),
        (total, _) => format!("{total}: {}", kinds.join(", ")),
    }
}

fn cost(one: &Planned) -> String {
    match (one.cost, one.cost_is_as_on_aws) {
        (None, _) => String::new(),
        (Some(cost), false) => format!("{cost} a month more"),
        (Some(cost), true) => format!("none; on AWS {cost} a month more"),
    }
}

fn sums(report: &Report) -> String {
    let all = report.services.len();
    if all == 0 {
        return format!("No Service that a class of Ballast would serve. {NOTHING}\n");
    }
    let refused = report.services.iter();
    let refused = refused.filter(|one| matches!(one.result, Verdict::Refused | Verdict::Waits));
    let refused = match refused.count() {
        0 => String::new(),
        count => format!(", {count} not served"),
    };
    let noun = if all == 1 { "Service" } else { "Services" };
    format!(
        "{all} {noun}{refused}; {} changing calls; about {} a month more, without traffic. {NOTHING}\n",
        report.calls, report.cost
    )
}
