//! The API server's audit log: which client wrote what, for tests that count writes; and what
//! the controller read, for the test of its rights.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// One request that the API server has answered; for a watch, one that it has begun to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The client program.
    pub user_agent: String,
    /// The user.
    pub user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`; of Ballast's own
    /// accounts also `get`, `list` and `watch`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// For example `status`; empty for the object itself.
    pub resource: String,
    /// `status`, for one; empty for the object itself.
    pub subresource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// May be empty for a `create` with a generated name.
    pub name: String,
    /// The HTTP status.
    pub code: u16,
    /// The authorizer denied the request; other refusals have the same status.
    pub forbidden: bool,
    /// When it was answered.
    pub time: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

/// All complete lines; the last line may still be incomplete.
pub(crate) fn read(path: &Path) -> Result<Vec<AuditEvent>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "no audit log at {}; start the lab with `audit: true`",
            path.display()
        )
    })?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<AuditEvent>> {
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut events = Vec::new();
    for line in complete.lines() {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
        // A watch is complete only when it ends.
        let answered = if line.verb == "watch" {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        };
        if line.stage == answered {
            events.push(line.into());
        }
    }
    Ok(events)
}

impl AuditEvent {
    /// Whether the request can change something. A client asks for its own identity with a
    /// `create`.
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
            && self.resource != "selfsubjectreviews"
    }
}

impl From<Line> for AuditEvent {
    fn from(line: Line) -> Self {
        Self {
            user_agent: line.user_agent,
            user: line.user.username,
            verb: line.verb,
            group: line.object_ref.api_group,
            resource: line.object_ref.resource,
            subresource: line.object_ref.subresource,
            namespace: line.object_ref.namespace,
            name: line.object_ref.name,
            code: line.response_status.code,
            forbidden: line
                .annotations
                .get("authorization.k8s.io/decision")
                .is_some_and(|decision| decision == "forbid"),
            time: line.stage_timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_complete_lines_only() {
        let line = r#"{"kind":"Event","stage":"ResponseComplete","verb":"patch","user":{"username":"u","groups":[]},"userAgent":"ballast/1","objectRef":{"resource":"services","namespace":"default","name":"web","subresource":"status"},"responseStatus":{"code":200},"stageTimestamp":"2026-01-02T03:04:05.000006Z"}"#;
        let events = parse(&format!("{line}\n{}", &line[..40])).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (
                events[0].verb.as_str(),
                events[0].subresource.as_str(),
                events[0].code
            ),
            ("patch", "status", 200)
        );
    }
}
