//! Pods with the readiness gate of Ballast: the only ones of which anything is kept. A pod with
//! this gate in its template is not ready before the load balancers of its Services find it
//! healthy. Nothing puts the gate into a pod: its owner writes it. Pure.

use k8s_openapi::api::core::v1::Pod;

use super::watched::{PodSpec, PodStatus, Watched};

/// The condition of the gate.
pub const GATE: &str = "ballast.dev/target-healthy";
const CONTAINERS_READY: &str = "ContainersReady";

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
        let is_true = |kind: &str| {
            let mut all = conditions.clone();
            all.any(|it| it.kind == kind && it.status == "True")
        };
        let others = gates.iter().map(|gate| gate.condition_type.as_str());
        let mut others = others.filter(|gate| *gate != GATE);
        Some(Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            ready_but: pod.metadata.deletion_timestamp.is_none()
                && is_true(CONTAINERS_READY)
                && others.all(is_true),
            open: is_true(GATE),
        })
    }

    /// Whether only the gate keeps it from being ready.
    pub const fn waits(&self) -> bool {
        self.ready_but && !self.open
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
}
