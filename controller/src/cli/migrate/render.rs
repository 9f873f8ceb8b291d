//! What `ballast migrate` prints for people. Pure.

use anyhow::Result;

use super::convert::{Migration, manifest};
use super::source::Note;
use super::takeover::{Outcome, Running, ServiceLine};
use crate::cli::text::{Cell, Look, Table, Tone};
use crate::process::text::one_line;
use ballast_crds::LoadBalancerClass;
use serde::Serialize;

/// The result of applying an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// `AddressPool` or `LoadBalancerClass`
    pub kind: &'static str,
    /// `metadata.name`
    pub name: String,
    /// `created`, `configured`, `unchanged`, or `failed`
    pub outcome: &'static str,
    /// Why it failed.
    pub why: String,
}

/// Why no Service is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Blocked {
    /// Unknown, because there is no cluster or the user may not read it.
    Unknown,
    /// `MetalLB`'s controller still writes the status of the same Services.
    ControllerRuns,
    /// Two controllers write it: the class is the default already, and `MetalLB`'s controller
    /// runs.
    TwoWriters,
    /// Another class is the default.
    OtherDefault(String),
    /// `MetalLB` served only the Services of one class.
    ClassOfItsOwn(String),
    /// An object was not applied.
    Failed,
}

/// The objects as a manifest for `kubectl apply -f -`.
pub fn manifests(migration: &Migration, blocked: Option<&Blocked>) -> Result<String> {
    let mut out = String::from("# Converted from MetalLB's objects by: ballast migrate metallb\n");
    if let (Some(blocked), Some(class)) = (blocked, migration.classes.first()) {
        out.extend(["# ", &one_line(&blocked.explain(class)), "\n"]);
    }
    for pool in &migration.pools {
        document(&mut out, pool)?;
    }
    for class in &migration.classes {
        document(&mut out, class)?;
    }
    Ok(out)
}

fn document<T: Serialize>(out: &mut String, object: &T) -> Result<()> {
    let value = manifest(object)?;
    out.push_str("---\n");
    out.push_str(&ballast_crds::to_yaml(&value)?);
    Ok(())
}

/// The settings that change or are lost.
pub fn notes(notes: &[Note], look: Look) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["OBJECT", "FIELD", "RESULT", "WHY"]);
    for note in notes {
        table.row(vec![
            Cell::new(&note.object),
            Cell::new(&note.field),
            Cell::new(note.kind.as_str()),
            Cell::remark(&note.message),
        ]);
    }
    table.render(look)
}

/// The results of applying the objects.
pub fn applied(lines: &[Applied], look: Look) -> String {
    let mut table = Table::new(&["KIND", "NAME", "RESULT", "WHY"]);
    for line in lines {
        let tone = match line.outcome {
            "failed" => Tone::Bad,
            _ => Tone::Good,
        };
        table.row(vec![
            Cell::new(line.kind),
            Cell::new(&line.name),
            Cell::new(line.outcome).toned(tone),
            Cell::remark(&line.why),
        ]);
    }
    table.render(look)
}

/// What happens to the Services, and below that what only their owners can do.
pub fn services(lines: &[ServiceLine], look: Look) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["NAMESPACE", "NAME", "ADDRESS", "RESULT", "WHY"]);
    for line in lines {
        let tone = match line.outcome {
            Outcome::Keeps | Outcome::Served => Tone::Good,
            Outcome::Gets => Tone::Waiting,
            Outcome::KeepsOutside | Outcome::Refused | Outcome::ByHand => Tone::Bad,
        };
        table.row(vec![
            Cell::new(&line.namespace),
            Cell::new(&line.name),
            Cell::new(line.addresses.join(",")),
            Cell::new(line.outcome.as_str()).toned(tone),
            Cell::remark(&line.why),
        ]);
    }
    let mut out = table.render(look);
    for line in lines.iter().filter(|line| !line.commands.is_empty()) {
        let name = one_line(&format!("{}/{}", line.namespace, line.name));
        out.extend(["\n# ", &name, "\n"]);
        for command in &line.commands {
            out.push_str(command);
            out.push('\n');
        }
    }
    out
}

/// What to do next.
pub fn next(
    migration: &Migration,
    blocked: Option<&Blocked>,
    running: &Running,
    program: &str,
) -> Vec<String> {
    let Some(class) = migration.classes.first() else {
        return vec![
            "no LoadBalancerClass is created, because no L2Advertisement announces a pool"
                .to_owned(),
        ];
    };
    let mut lines = Vec::new();
    match blocked {
        Some(Blocked::ControllerRuns) => {
            let controllers = running.controllers.join(", ");
            lines.push(format!(
                "no Service is taken over, because MetalLB's controller is running ({controllers}) and writes the status of the same Services"
            ));
            lines.push(match running.stop() {
                Some(stop) => format!("stop it and run this command again; the Services keep their addresses: {stop} && {program} migrate metallb --apply"),
                None => format!("it is stopping; run this command again: {program} migrate metallb --apply"),
            });
        }
        Some(Blocked::TwoWriters) => {
            lines.push(Blocked::TwoWriters.explain(class));
            lines.push(match running.stop() {
                Some(stop) => format!("stop it now: {stop}"),
                None => "it is stopping".to_owned(),
            });
        }
        Some(blocked) => lines.push(blocked.explain(class)),
        None => {}
    }
    if blocked.is_none() && !running.speakers.is_empty() {
        lines.push(format!(
            "MetalLB's speakers still announce the addresses ({}). While they do, Ballast's announcers claim none of them: until then the Services are NotAnnounced, and {program} status --announcers shows the MAC address that answers",
            running.speakers.join(", ")
        ));
        lines.push(format!(
            "check that an announcer runs on each node ({program} status --announcers), then stop the speakers; the announcers take the addresses over within a second: {}",
            running.stop_speakers()
        ));
        lines.push(format!(
            "when every Service is Ready ({program} status), delete the rest of MetalLB"
        ));
    }
    lines
}

// === impl Blocked ===

impl Blocked {
    fn explain(&self, class: &LoadBalancerClass) -> String {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        match self {
            Self::Unknown => format!(
                "LoadBalancerClass {name} is not the default yet. When MetalLB's controller is stopped, set default: true; Services without a class then keep their addresses"
            ),
            Self::ControllerRuns => format!(
                "LoadBalancerClass {name} is not the default yet, because MetalLB's controller is running. When it is stopped, set default: true; Services without a class then keep their addresses"
            ),
            Self::TwoWriters => format!(
                "LoadBalancerClass {name} is already the default, and MetalLB's controller is running; both write the status of the same Services"
            ),
            Self::OtherDefault(other) => format!(
                "LoadBalancerClass {name} takes over no Service, because LoadBalancerClass {other} is the default; remove its default: true and run this command again"
            ),
            Self::ClassOfItsOwn(served) => format!(
                "LoadBalancerClass {name} is not the default, because MetalLB serves only Services of class {served} (--lb-class), and the class of a Service cannot be changed in place"
            ),
            Self::Failed => {
                "no Service is taken over, because some objects could not be applied".to_owned()
            }
        }
    }

    /// Whether someone must act before the migration is complete. `default`: whether the class
    /// serves Services without a class already.
    pub const fn is_not_yet(&self, default: bool) -> bool {
        match self {
            Self::ControllerRuns | Self::TwoWriters => true,
            Self::OtherDefault(_) => !default,
            Self::Unknown | Self::ClassOfItsOwn(_) | Self::Failed => false,
        }
    }
}

// === impl Running ===

impl Running {
    /// The command that stops the speakers. A `DaemonSet` cannot be scaled.
    fn stop_speakers(&self) -> String {
        let sets = self.speakers.iter().filter_map(|one| {
            let (namespace, name) = one.strip_prefix("DaemonSet ")?.split_once('/')?;
            Some(format!("kubectl delete daemonset {name} -n {namespace}"))
        });
        let all: Vec<String> = sets.collect();
        if all.is_empty() {
            "they are stopping".to_owned()
        } else {
            all.join(" && ")
        }
    }

    /// The command that stops the controllers. Pods without a workload need none: they stop by
    /// themselves.
    fn stop(&self) -> Option<String> {
        let deployments = self.controllers.iter().filter_map(|one| {
            let (namespace, name) = one.strip_prefix("Deployment ")?.split_once('/')?;
            Some(format!(
                "kubectl scale deployment {name} -n {namespace} --replicas=0"
            ))
        });
        let all: Vec<String> = deployments.collect();
        (!all.is_empty()).then(|| all.join(" && "))
    }
}

#[cfg(test)]
mod tests;
