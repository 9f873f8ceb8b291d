//! What `ballast teardown` prints for people. Pure.

use super::report::{Left, Report, Selection, Verdict, summary};
use crate::cli::status::render::View;
use crate::cli::text::{Cell, Table, Tone};
use crate::cli::{NOBODY, NOT_YET};

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

/// The question whether to do the work of the controller.
pub fn take_over(report: &Report, lease: &(String, String)) -> String {
    format!(
        "{}, so nobody releases {}. Do it from here, with your rights in the cluster and the cloud credentials of your environment? [y/N] ",
        report.controller.told(lease),
        summary(report)
    )
}

/// The last line, and the exit status. `drained`: there was a class; `took_over`: this command did
/// the work of the controller.
pub fn end(
    report: &Report,
    verdict: Verdict,
    (drained, took_over): (bool, bool),
    lease: &(String, String),
    program: &str,
) -> (String, u8) {
    let rest = summary(report);
    let told = report.controller.told(lease);
    let again = format!("{program} teardown");
    match verdict {
        Verdict::Done if !drained => ("no LoadBalancerClass found; nothing to do".to_owned(), 0),
        // A tool has deleted the classes, and may create them again.
        Verdict::Done if report.classes.is_empty() => {
            ("all load balancers are released".to_owned(), 0)
        }
        Verdict::Done => {
            let classes = classes(report);
            (format!("all load balancers of {classes} are released"), 0)
        }
        Verdict::Dead if took_over => (
            format!(
                "not released yet: {rest}. No controller is running, so the drain does not continue by itself; run this again: {again} --wait --takeover"
            ),
            NOBODY,
        ),
        Verdict::Dead => (
            format!(
                "not released: {rest}; {told}. The drain continues when a controller runs; then run this again: {again} --wait. To release them without a controller, with your own rights and cloud credentials: {again} --wait --takeover"
            ),
            NOBODY,
        ),
        Verdict::Left | Verdict::GoOn => (
            format!(
                "not released yet: {rest}; {told}. The drain continues; to wait for it: {again} --wait; to end it: {again} --undo"
            ),
            NOT_YET,
        ),
    }
}
