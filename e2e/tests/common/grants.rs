//! Granted and used rights: RBAC compared with the audit log, in both directions.

use anyhow::{Result, ensure};
use ballast_e2e::{AuditEvent, documents};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// A document of a manifest, with the fields that concern rights.
#[derive(Deserialize)]
struct Role {
    metadata: ObjectMeta,
    #[serde(default)]
    rules: Vec<PolicyRule>,
}

/// One verb on one resource, and its scope.
#[derive(Debug)]
struct Right<'a> {
    verb: &'a str,
    group: &'a str,
    /// The resource with its subresource.
    resource: &'a str,
    namespace: Option<&'a str>,
    /// `None`: any name.
    name: Option<&'a str>,
}

/// Checks that nothing was forbidden to this user, and that it used every right of this
/// manifest. Returns the number of rights.
pub(crate) fn fit(manifest: &str, user: &str, audit: &[AuditEvent]) -> Result<usize> {
    fit_of(manifest, user, audit, None)
}

/// The same for the roles of one name, whose bindings have that name, too. Requests that are
/// refused after the bindings were deleted do not count: pods end later.
pub(crate) fn fit_of(
    manifest: &str,
    user: &str,
    audit: &[AuditEvent],
    name: Option<&str>,
) -> Result<usize> {
    let own: Vec<&AuditEvent> = audit.iter().filter(|event| event.user == user).collect();
    let forbidden: Vec<_> = own
        .iter()
        .filter(|event| event.forbidden && !name.is_some_and(|name| unbound(audit, event, name)))
        .collect();
    ensure!(forbidden.is_empty(), "{forbidden:#?}");
    let mut granted = 0;
    for document in documents(manifest)? {
        let role: Role = serde_json::from_value(document)?;
        if name.is_some() && role.metadata.name.as_deref() != name {
            continue;
        }
        for right in rights(&role) {
            granted += 1;
            let fits = own.iter().any(|event| right.allows(event));
            ensure!(fits, "{user} never used {right:?}");
        }
    }
    println!(
        "{user}: {granted} rights granted, {} requests, all rights used",
        own.len()
    );
    Ok(granted)
}

/// Whether a binding of this name had been deleted when the event happened.
fn unbound(audit: &[AuditEvent], event: &AuditEvent, name: &str) -> bool {
    let bindings = ["rolebindings", "clusterrolebindings"];
    let mut changes = audit.iter().filter(|it| {
        bindings.contains(&it.resource.as_str()) && it.name == name && it.time <= event.time
    });
    changes.next_back().is_some_and(|it| it.verb == "delete")
}

fn rights(role: &Role) -> Vec<Right<'_>> {
    let mut all = Vec::new();
    for rule in &role.rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    all.extend(names(rule.resource_names.as_deref()).map(|name| Right {
                        verb,
                        group,
                        resource,
                        namespace: role.metadata.namespace.as_deref(),
                        name,
                    }));
                }
            }
        }
    }
    all
}

/// Single rights: if a rule grants two things and one is never used, that one is too many.
fn names(of_rule: Option<&[String]>) -> impl Iterator<Item = Option<&str>> {
    let all = of_rule.unwrap_or_default();
    let any = all.is_empty().then_some(None);
    any.into_iter()
        .chain(all.iter().map(|name| Some(name.as_str())))
}

// === impl Right ===

impl Right<'_> {
    fn allows(&self, event: &AuditEvent) -> bool {
        let resource = if event.subresource.is_empty() {
            event.resource.clone()
        } else {
            format!("{}/{}", event.resource, event.subresource)
        };
        let there = self
            .namespace
            .is_none_or(|namespace| namespace == event.namespace);
        let named = self.name.is_none_or(|name| name == event.name);
        // A server-side apply of an object that does not exist needs the right to create it.
        let creates = event.verb == "patch" && event.code == 201;
        (self.verb == event.verb || self.verb == "create" && creates)
            && self.group == event.group
            && self.resource == resource
            && there
            && named
    }
}
