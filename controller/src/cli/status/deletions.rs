//! The deletions that wait: why, and how to go on. Pure. `-o json|yaml` prints these structs, so
//! fields may be added, but never renamed or removed.
//!
//! The condition of a Namespace in `Terminating` only counts what is left in it; this names the
//! Services and what holds them.

use ballast_provider::Reason;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::render::View;
use super::report::{Classes, ServiceStatus, find};
use crate::cli::text::{Cell, Table, Tone, age};
use crate::cluster::conditions::PROGRAMMED;
use crate::cluster::deletion::next_step;

/// A deletion that is younger and gives no reason goes on as usual.
const USUAL: SignedDuration = SignedDuration::from_secs(30);
const TITLE: &str = "Deletions that wait:";

/// One deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingDeletion {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// The class whose load balancer is released.
    pub class: Option<String>,
    /// When the deletion began.
    pub since: Option<Timestamp>,
    /// The reason, for machines; empty if the controller has not reported any.
    pub reason: String,
    /// What it waits for.
    pub why: String,
    /// How to go on.
    pub next: String,
}

/// The deletions that wait.
pub fn of(services: &[ServiceStatus], classes: &Classes, now: Timestamp) -> Vec<WaitingDeletion> {
    let releasing = services.iter().filter(|one| one.state == "Releasing");
    let all = releasing.filter_map(|one| {
        let told = find(&one.conditions, PROGRAMMED).filter(|it| it.status != "True");
        let class = one.class.as_deref().unwrap_or_default();
        let known = one
            .since
            .is_some_and(|since| now.duration_since(since) < USUAL);
        let missing = one.held && classes.is_missing(class);
        let reason = match told {
            Some(told) => told.reason.clone(),
            None if missing => Reason::ClassNotFound.as_str().to_owned(),
            None if !one.held => Reason::Released.as_str().to_owned(),
            None if known => return None,
            None => String::new(),
        };
        if known && reason == Reason::Releasing.as_str() {
            return None;
        }
        let next = if reason.is_empty() {
            "Check that the controller runs, and look at its log".to_owned()
        } else {
            next_step(&reason, class)
        };
        Some(WaitingDeletion {
            namespace: one.namespace.clone(),
            name: one.name.clone(),
            class: one.class.clone(),
            since: one.since,
            why: if missing && told.is_none() {
                format!("LoadBalancerClass {class} does not exist")
            } else {
                one.why.clone()
            },
            next,
            reason,
        })
    });
    all.collect()
}

/// One line per deletion. Empty if there are none.
pub fn text(all: &[WaitingDeletion], view: View<'_>) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "CLASS",
        "SINCE",
        "REASON",
        "WHY, AND NEXT",
    ]);
    for one in all {
        let since = one.since.map(|since| age(since, view.now));
        table.row(vec![
            Cell::new(&one.namespace),
            Cell::new(&one.name),
            Cell::new(one.class.as_deref().unwrap_or_default()),
            Cell::new(since.unwrap_or_default()),
            Cell::new(&one.reason).toned(Tone::Waiting),
            Cell::remark(&format!("{}. {}", one.why.trim_end_matches('.'), one.next)),
        ]);
    }
    format!("\n{TITLE}\n{}", table.render(view.look))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{classes, condition, now, service, status, view};
    use super::super::report::report;
    use super::*;

    fn deleted(
        name: &str,
        second: &str,
        finalizers: &[&str],
        told: Option<(&str, &str)>,
    ) -> k8s_openapi::api::core::v1::Service {
        let conditions: Vec<_> = told
            .into_iter()
            .map(|(reason, message)| condition("Programmed", "Unknown", reason, message))
            .collect();
        service(
            name,
            json!({
                "metadata": {
                    "deletionTimestamp": format!("2026-03-01T11:59:{second}Z"),
                    "finalizers": finalizers,
                },
                "spec": {"loadBalancerClass": finalizers.first().filter(|it| it.starts_with("ballast.dev/")).unwrap_or(&"ballast.dev/local")},
                "status": status(&conditions, &["127.77.0.1"]),
            }),
        )
    }

    #[test]
    fn each_says_why_and_how_to_go_on() {
        let ours = &["ballast.dev/local"][..];
        let protected = "AWS refuses DeleteLoadBalancer: Load balancer 'arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/net/web/1' cannot be deleted because deletion protection is enabled";
        let all = [
            deleted("a-protected", "10", ours, Some(("AccessDenied", protected))),
            deleted("b-silent", "10", ours, None),
            // It has just begun.
            deleted("c-young", "50", ours, None),
            deleted(
                "d-young-and-slow",
                "50",
                ours,
                Some(("Releasing", "The load balancer is being deleted")),
            ),
            deleted(
                "e-slow",
                "10",
                ours,
                Some((
                    "Releasing",
                    "The load balancer is being deleted; it waits for security group sg-1",
                )),
            ),
            deleted("f-orphan", "50", &["ballast.dev/gone"], None),
            deleted(
                "g-held",
                "10",
                &["example.com/backup"],
                Some((
                    "Released",
                    "Ballast has released the load balancer; the Service waits for finalizers of others: example.com/backup",
                )),
            ),
            deleted(
                "h-unreachable",
                "50",
                ours,
                Some((
                    "CloudError",
                    "Since 2026-03-01T11:59:51Z the deletion fails: AWS does not answer",
                )),
            ),
            service("living", json!({})),
        ];
        let classes = classes();
        let report = report(&all, &classes);
        let waiting = of(&report.services, &classes, now());
        insta::assert_snapshot!(text(&waiting, view()));
        insta::assert_json_snapshot!(waiting);
        assert_eq!(text(&[], view()), "");
    }
}
