//! Pods with the readiness gate of Ballast: the only ones of which more than the name is kept. A
//! pod with this gate in its template is not ready before the load balancers of its Services find
//! it healthy. Nothing puts the gate into a pod: its owner writes it. Pure.

use k8s_openapi::api::core::v1::Pod;

use super::watched::{PodCondition, PodSpec, PodStatus, Watched};

/// The condition of the gate.
pub const GATE: &str = "ballast.dev/target-healthy";
const CONTAINERS_READY: &str = "ContainersReady";
const READY: &str = "Ready";

/// A Pod, as the watch reads it.
pub type WatchedPod = Watched<Pod, PodSpec, PodStatus>;

/// A pod with the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedPod {
    /// Its UID.
    pub uid: Box<str>,
    /// It would be ready if the gate were open.
    ready_but: bool,
    /// The gate is open.
    open: bool,
    /// The pod has become unready since the gate opened, although its containers are ready: its node
    /// does not answer.
    lost: bool,
}

/// Whether a pod has become unready after its gate opened.
fn is_lost(ready: Option<&PodCondition>, gate: Option<&PodCondition>) -> bool {
    let since = |it: &PodCondition| it.last_transition_time.as_ref().map(|time| time.0);
    ready.is_some_and(|ready| ready.status != "True" && since(ready) > gate.and_then(since))
}

// === impl GatedPod ===

impl GatedPod {
    /// `None` for a pod without the gate.
    pub fn of(pod: &WatchedPod) -> Option<Self> {
        let gates = pod.spec.as_ref()?.readiness_gates.as_deref()?;
        if !gates.iter().any(|gate| gate.condition_type == GATE) {
            return None;
        }
        let conditions = pod
            .status
            .iter()
            .flat_map(|it| it.conditions.iter().flatten());
        let find = |kind: &str| conditions.clone().find(|it| it.kind == kind);
        let is_true = |kind: &str| find(kind).is_some_and(|it| it.status == "True");
        let others = gates.iter().map(|gate| gate.condition_type.as_str());
        let mut others = others.filter(|gate| *gate != GATE);
        Some(Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            ready_but: pod.metadata.deletion_timestamp.is_none()
                && is_true(CONTAINERS_READY)
                && others.all(is_true),
            open: is_true(GATE),
            lost: is_lost(find(READY), find(GATE)),
        })
    }

    /// Whether only the gate keeps it from being ready.
    pub const fn waits(&self) -> bool {
        self.ready_but && !self.open
    }

    /// Whether it is a target although its slice does not call it ready: while it waits, and until
    /// the slice follows its open gate. Otherwise the pod would be deregistered in the moment in
    /// which it becomes ready, and be examined anew.
    pub const fn is_target(&self) -> bool {
        self.ready_but && !(self.open && self.lost)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_waits_for_its_gate_alone() {
        let gates = |gates: &[&str]| -> Value {
            gates
                .iter()
                .map(|gate| json!({"conditionType": gate}))
                .collect()
        };
        let all = |kinds: &[(&str, &str)]| -> Value {
            let all = kinds.iter();
            all.map(|(kind, status)| json!({"type": kind, "status": status}))
                .collect()
        };
        let ready = ("ContainersReady", "True");
        let (ours, both) = (gates(&[GATE]), gates(&["example.com/other", GATE]));
        let deleted = json!("2026-01-02T03:04:05Z");
        for (what, gates, conditions, deletion, expected) in [
            ("no gates", Value::Null, all(&[ready]), Value::Null, None),
            (
                "other gates",
                gates(&["example.com/other"]),
                all(&[ready]),
                Value::Null,
                None,
            ),
            (
                "it waits",
                ours.clone(),
                all(&[ready]),
                Value::Null,
                Some(true),
            ),
            (
                "closed in so many words",
                ours.clone(),
                all(&[ready, (GATE, "False")]),
                Value::Null,
                Some(true),
            ),
            (
                "open",
                ours.clone(),
                all(&[ready, (GATE, "True")]),
                Value::Null,
                Some(false),
            ),
            (
                "it starts",
                ours.clone(),
                all(&[("ContainersReady", "False")]),
                Value::Null,
                Some(false),
            ),
            (
                "no status",
                ours.clone(),
                Value::Null,
                Value::Null,
                Some(false),
            ),
            ("it is deleted", ours, all(&[ready]), deleted, Some(false)),
            (
                "another gate is closed",
                both.clone(),
                all(&[ready]),
                Value::Null,
                Some(false),
            ),
            (
                "another gate is open",
                both,
                all(&[ready, ("example.com/other", "True")]),
                Value::Null,
                Some(true),
            ),
        ] {
            let pod = json!({
                "metadata": {"name": "web-1", "uid": "u", "deletionTimestamp": deletion},
                "spec": {"readinessGates": gates, "containers": [{"name": "web"}]},
                "status": {"conditions": conditions},
            });
            let pod = GatedPod::of(&serde_json::from_value(pod).unwrap());
            assert_eq!(pod.map(|pod| pod.waits()), expected, "{what}");
        }
    }

    #[test]
    fn a_pod_stays_a_target_until_its_slice_follows() {
        let at = |second: u8| format!("2026-01-02T03:04:{second:02}Z");
        // The status of the containers, the gate and the pod, and since when.
        for (what, containers, gate, ready, expected) in [
            ("it waits", "True", ("False", 2), ("False", 1), true),
            (
                "the gate has opened",
                "True",
                ("True", 5),
                ("False", 1),
                true,
            ),
            (
                "in the same second",
                "True",
                ("True", 5),
                ("False", 5),
                true,
            ),
            ("it is ready", "True", ("True", 5), ("True", 6), true),
            ("its node is lost", "True", ("True", 5), ("False", 9), false),
            (
                "lost, in other words",
                "True",
                ("True", 5),
                ("Unknown", 9),
                false,
            ),
            (
                "a container fails",
                "False",
                ("True", 5),
                ("False", 9),
                false,
            ),
            ("it starts", "False", ("False", 2), ("False", 1), false),
        ] {
            let pod = json!({
                "metadata": {"name": "web-1", "uid": "u"},
                "spec": {"readinessGates": [{"conditionType": GATE}]},
                "status": {"conditions": [
                    {"type": CONTAINERS_READY, "status": containers, "lastTransitionTime": at(3)},
                    {"type": GATE, "status": gate.0, "lastTransitionTime": at(gate.1)},
                    {"type": READY, "status": ready.0, "lastTransitionTime": at(ready.1)},
                ]},
            });
            let pod = GatedPod::of(&serde_json::from_value(pod).unwrap()).unwrap();
            assert_eq!(pod.is_target(), expected, "{what}");
        }
    }
}
