//! What `ballast teardown` prints for people. Pure.

use super::report::{Left, Report, Selection, summary};
use crate::cli::status::render::View;
use crate::cli::text::{Cell, Table, Tone};

/// What is left, one line each.
pub fn left(report: &Report, view: View<'_>) -> String {
    let mut table = Table::new(&["NAMESPACE", "NAME", "CLASS", "ADDRESS", "WHY"]);
    for it in &report.left {
        let mut row = cells(it);
        row.push(Cell::remark(&it.why));
        table.row(row);
    }
    if table.is_empty() {
        return String::new();
    }
    table.render(view.look)
}

/// What would be released, one line each.
pub fn plan(report: &Report, view: View<'_>) -> String {
    let mut table = Table::new(&["NAMESPACE", "NAME", "CLASS", "ADDRESS"]);
    for it in report.left.iter().filter(|it| it.namespace.is_some()) {
        table.row(cells(it));
    }
    if table.is_empty() {
        return String::new();
    }
    table.render(view.look)
}

fn cells(it: &Left) -> Vec<Cell> {
    let name = match &it.namespace {
        Some(_) => it.name.clone(),
        None => format!("class/{}", it.name),
    };
    vec![
        Cell::new(it.namespace.as_deref().unwrap_or_default()),
        Cell::new(name).toned(Tone::Bad),
        Cell::new(&it.class),
        Cell::new(it.addresses.join(",")),
    ]
}

/// The names of the classes, for sentences.
pub fn classes(report: &Report) -> String {
    let names: Vec<&str> = report.classes.iter().map(|it| it.name.as_str()).collect();
    match names.as_slice() {
        [one] => format!("class {one}"),
        many => format!("classes {}", many.join(", ")),
    }
}

/// The classes that were requested by name and do not exist.
pub fn missing(report: &Report, selection: &Selection) -> Option<String> {
    let Selection::Named(names) = selection else {
        return None;
    };
    let known = |name: &&String| report.classes.iter().all(|it| it.name != **name);
    let missing: Vec<&str> = names.iter().filter(known).map(String::as_str).collect();
    match missing.as_slice() {
        [] => None,
        [one] => Some(format!("LoadBalancerClass {one} does not exist")),
        many => Some(format!(
            "LoadBalancerClasses {} do not exist",
            many.join(", ")
        )),
    }
}

/// A progress line while nothing changes.
pub fn waiting(report: &Report, lease: &(String, String)) -> String {
    format!(
        "waiting for {}; {}",
        summary(report),
        report.controller.told(lease)
    )
}

/// The confirmation question.
pub fn question(report: &Report) -> String {
    let services = report.left.iter().filter(|it| it.namespace.is_some());
    let what = match services.count() {
        0 => "No Service has a load balancer".to_owned(),
        1 => "1 Service loses its load balancer and address".to_owned(),
        many => format!("{many} Services lose their load balancers and addresses"),
    };
    format!(
        "This drains {}. {what}; the Services stay. Continue? [y/N] ",
        classes(report)
    )
}
