//! The list, the plan and the result, for people and programs. Pure.

use std::fmt::Write as _;

use anyhow::Result;
use ballast_provider::{Billed, Money, Prices};
use serde_json::{Value, json};

use super::choose::Plan;
use super::report::{Cluster, Item, Report, State};
use super::sweep::Swept;
use crate::cli::text::{self, Cell, Look, NOTHING, Table, Tone};
use crate::process::text::one_line;

/// What may be relinquished that a message names.
const NAMED: usize = 5;

/// A table for each cluster.
pub fn text(reports: &[Report], prices: &Prices, look: Look) -> String {
    let mut out = String::new();
    for report in reports {
        let _ = writeln!(out, "{}", report.account);
        if report.clusters.is_empty() {
            out.push_str("  no load balancers of Ballast\n");
        }
        for cluster in &report.clusters {
            out.push('\n');
            out.push_str(&heading(cluster, report, prices));
            out.push_str(&table(cluster, report, prices, look));
        }
        if !report.relinquished.is_empty() {
            let named: Vec<&str> = (report.relinquished.iter().take(NAMED))
                .map(String::as_str)
                .collect();
            let more = report.relinquished.len().saturating_sub(NAMED);
            let more = if more == 0 {
                String::new()
            } else {
                format!(" and {more} more")
            };
            let _ = writeln!(
                out,
                "\nWithout the tag ballast.dev/cluster, so nobody's (Ballast does not touch them): {}{more}",
                one_line(&named.join(", "))
            );
        }
        out.push('\n');
    }
    out + &summary(reports, prices)
}

fn heading(cluster: &Cluster, report: &Report, prices: &Prices) -> String {
    let seen = cluster.last_seen.map_or("never seen".to_owned(), |at| {
        format!("last seen {} ago", text::age(at, report.now))
    });
    let state = match (cluster.is_current, cluster.is_alive) {
        (true, _) => "the current cluster",
        (false, true) => "alive",
        (false, false) => "GONE",
    };
    let cost = prices.per_month(cluster.items.iter().map(Item::billed).sum());
    let (name, uid) = (one_line(cluster.called()), one_line(&cluster.uid));
    format!("Cluster {name} ({uid}): {state}, {seen}, {cost} a month\n")
}

fn table(cluster: &Cluster, report: &Report, prices: &Prices, look: Look) -> String {
    let header = [
        "NAME",
        "KIND",
        "CLASS",
        "SERVICE",
        "AGE",
        "PER MONTH",
        "STATE",
    ];
    let mut table = Table::new(&header);
    for item in &cluster.items {
        let services: Vec<String> = item.services.iter().map(ToString::to_string).collect();
        let or_nothing = |text: String| {
            if text.is_empty() {
                NOTHING.to_owned()
            } else {
                text
            }
        };
        let age = item.created().map(|at| text::age(at, report.now));
        let tone = match item.state {
            State::Gone | State::NoService => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row(vec![
            Cell::new(item.name()),
            Cell::new(item.kind().as_str()),
            Cell::new(or_nothing(item.owner.class.clone())),
            Cell::new(or_nothing(services.join(", "))),
            Cell::new(age.unwrap_or_else(|| NOTHING.to_owned())),
            Cell::new(prices.per_month(item.billed()).to_string()),
            Cell::new(item.state.as_str()).toned(tone),
        ]);
    }
    table.render(look)
}

fn summary(reports: &[Report], prices: &Prices) -> String {
    let items = || {
        let clusters = reports.iter().flat_map(|one| &one.clusters);
        clusters.flat_map(|one| &one.items)
    };
    let of = |states: &[State]| -> (usize, Money) {
        let some: Vec<&Item> = items().filter(|it| states.contains(&it.state)).collect();
        let billed: Billed = some.iter().map(|it| it.billed()).sum();
        (some.len(), prices.per_month(billed))
    };
    let (gone, cost) = of(&[State::Gone]);
    let mut out = if gone == 0 {
        "Nothing is left of clusters that are gone.\n".to_owned()
    } else {
        format!(
            "{gone} left of clusters that are gone, about {cost} a month. To delete them: --delete --cluster NAME\n"
        )
    };
    let (orphans, cost) = of(&[State::NoService]);
    if orphans > 0 {
        let _ = writeln!(
            out,
            "{orphans} without a Service in the current cluster, about {cost} a month. To delete them: --compare --delete"
        );
    }
    let (retained, cost) = of(&[State::Retained, State::Kept]);
    if retained > 0 {
        let _ = writeln!(out, "{retained} kept on purpose, about {cost} a month.");
    }
    out + "Costs are estimates from list prices; --price changes them.\n"
}

/// Everything, for programs.
pub fn json(reports: &[Report], prices: &Prices) -> Result<String> {
    let all: Vec<Value> = reports.iter().map(|one| report(one, prices)).collect();
    let items = || {
        let clusters = reports.iter().flat_map(|one| &one.clusters);
        clusters.flat_map(|one| &one.items)
    };
    let gone = || items().filter(|it| matches!(it.state, State::Gone | State::NoService));
    let totals = json!({
        "objects": items().count(),
        "monthlyCost": prices.per_month(items().map(Item::billed).sum()).dollars(),
        "orphans": gone().count(),
        "orphansMonthlyCost": prices.per_month(gone().map(Item::billed).sum()).dollars(),
    });
    let value = json!({"clouds": all, "totals": totals});
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn report(report: &Report, prices: &Prices) -> Value {
    let clusters = report.clusters.iter().map(|cluster| {
        let items = cluster.items.iter();
        let objects: Vec<Value> = items.map(|it| item(it, prices)).collect();
        json!({
            "uid": cluster.uid,
            "name": cluster.name,
            "lastSeen": cluster.last_seen.map(|at| format!("{at:.0}")),
            "alive": cluster.is_alive,
            "current": cluster.is_current,
            "monthlyCost": prices.per_month(cluster.items.iter().map(Item::billed).sum()).dollars(),
            "objects": objects,
        })
    });
    json!({
        "account": report.account,
        "clusters": clusters.collect::<Vec<_>>(),
        "relinquished": report.relinquished,
    })
}

fn item(item: &Item, prices: &Prices) -> Value {
    let services: Vec<String> = item.services.iter().map(ToString::to_string).collect();
    let parts: Vec<Value> = (item.objects.iter())
        .map(|it| json!({"kind": it.kind.as_str(), "name": it.name, "id": it.id}))
        .collect();
    json!({
        "name": item.name(),
        "kind": item.kind().as_str(),
        "class": item.owner.class,
        "service": services.first(),
        "services": services,
        "created": item.created().map(|at| format!("{at:.0}")),
        "monthlyCost": prices.per_month(item.billed()).dollars(),
        "state": item.state.as_str(),
        "parts": parts,
    })
}

/// One line for each load balancer, RFC 4180.
pub fn csv(reports: &[Report], prices: &Prices) -> String {
    let mut out = "account,cluster,cluster_uid,last_seen,name,kind,class,services,created,per_month,state\r\n".to_owned();
    for report in reports {
        for cluster in &report.clusters {
            for item in &cluster.items {
                let services: Vec<String> = item.services.iter().map(ToString::to_string).collect();
                let time = |at: Option<jiff::Timestamp>| {
                    at.map_or_else(String::new, |at| format!("{at:.0}"))
                };
                let fields = [
                    report.account.clone(),
                    cluster.name.clone(),
                    cluster.uid.clone(),
                    time(cluster.last_seen),
                    item.name().to_owned(),
                    item.kind().as_str().to_owned(),
                    item.owner.class.clone(),
                    services.join(" "),
                    time(item.created()),
                    format!("{:.2}", prices.per_month(item.billed()).dollars()),
                    item.state.as_str().to_owned(),
                ];
                let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
                out.push_str(&fields.join(","));
                out.push_str("\r\n");
            }
        }
    }
    out
}

/// A field that a spreadsheet takes as text, never as a formula: tags are what anybody wrote.
fn quoted(field: &str) -> String {
    let guarded = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{field}")
    } else {
        field.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

/// What is about to be deleted.
pub fn plan(plan: &Plan, report: &Report, prices: &Prices) -> String {
    let cost = prices.per_month(plan.items.iter().map(Item::billed).sum());
    let cluster = &plan.cluster;
    let mut out = format!(
        "{}\nCluster {} ({})\n  delete {}, which cost about {cost} a month:\n",
        report.account,
        one_line(cluster.called()),
        one_line(&cluster.uid),
        plan.items.len()
    );
    for item in &plan.items {
        let services: Vec<String> = item.services.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "    {} ({}; {})",
            one_line(item.name()),
            item.kind(),
            if services.is_empty() {
                "of the class".to_owned()
            } else {
                one_line(&services.join(", "))
            }
        );
    }
    if !plan.stays.is_empty() {
        let _ = writeln!(out, "  keep {}:", plan.stays.len());
        for item in &plan.stays {
            let _ = writeln!(
                out,
                "    {} ({})",
                one_line(item.name()),
                item.state.as_str()
            );
        }
    }
    if cluster.is_alive {
        out.push_str("  This cluster gives signs of life.\n");
    }
    out
}

/// What became of it, for people.
pub fn swept(report: &Report, swept: &Swept) -> String {
    let mut out = format!("{}: deleted {}\n", report.account, swept.deleted.len());
    if !swept.left.is_empty() {
        let _ = writeln!(out, "{} left:", swept.left.len());
        for (name, why) in &swept.left {
            let _ = writeln!(out, "  {}: {}", one_line(name), one_line(why));
        }
    }
    out
}

/// The same for programs.
pub fn swept_json(report: &Report, swept: &Swept) -> Result<String> {
    let left: Vec<Value> = (swept.left.iter())
        .map(|(name, why)| json!({"name": name, "reason": why}))
        .collect();
    let value = json!({"account": report.account, "deleted": swept.deleted, "left": left});
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}
