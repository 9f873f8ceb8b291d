//! Looks whether another service controller serves the Services without a class.
//!
//! Such a controller holds a Lease in `kube-system` and renews it. [`KNOWN`] lists the names
//! of these Leases; `--other-controllers-leases` adds others. They are read only while a class
//! is a default class. A Lease counts if it changed between two looks; at the first look it
//! counts if it has a holder.
//!
//! [`run`] is one task of the leader. It only posts on the board and can be cancelled at any
//! point.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tracing::{debug, warn};

use crate::class::Contender;
use crate::class::board::Board;
use crate::process::REQUEST_TIMEOUT;

/// The namespace of Leases that are named without one.
const NAMESPACE: &str = "kube-system";
/// Leases of controllers that serve Services without a class, all in `kube-system`.
///
/// | Lease | controller |
/// |---|---|
/// | `cloud-controller-manager` | most cloud controller managers: the default of `--leader-elect-resource-name` in `k8s.io/cloud-provider` |
/// | `k3s-cloud-controller-manager` | k3s, whose servicelb publishes node addresses |
/// | `kube-vip-cloud-controller` | kube-vip-cloud-provider |
/// | `plndr-svcs-lock` | kube-vip, when it announces Services |
///
/// Not in the table: `rke2-cloud-controller-manager`, which runs without the service
/// controller, and `cilium-operator-resource-lock`, which every Cilium has, with LB-IPAM in
/// use or not. A controller without leader election (`MetalLB`, or any with
/// `--leader-elect=false`) has no Lease and is not found.
pub const KNOWN: [&str; 4] = [
    "cloud-controller-manager",
    "k3s-cloud-controller-manager",
    "kube-vip-cloud-controller",
    "plndr-svcs-lock",
];
/// Longer than any renewal period.
const PERIOD: Duration = Duration::from_secs(30);
/// While nothing is known yet.
const RETRY: Duration = Duration::from_secs(1);
/// The most Leases that are read; each is a request every [`PERIOD`].
pub const MOST: usize = 32;

/// A Lease of another controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    namespace: String,
    name: String,
}

/// What the last look saw: the holder and the version of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Option<(String, Option<String>)>);

/// A Lease that was looked at, once and again.
struct Looked {
    lease: LeaseName,
    before: Option<Seen>,
}

/// The Leases to read: the known ones and these.
pub fn leases(others: impl IntoIterator<Item = LeaseName>) -> Vec<LeaseName> {
    let known = KNOWN.into_iter().map(|name| LeaseName {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
    });
    let mut all: Vec<LeaseName> = known.collect();
    let others: BTreeSet<LeaseName> = others.into_iter().collect();
    let others = others.into_iter().filter(|other| !all.contains(other));
    let others: Vec<LeaseName> = others.collect();
    all.extend(others);
    all
}

/// Whether the controller of this Lease runs, after two looks. Pure.
pub fn contender(lease: &LeaseName, before: Option<&Seen>, now: &Seen) -> Contender {
    let stands_still = before == Some(now);
    match &now.0 {
        Some((holder, _)) if !holder.is_empty() && !stands_still => {
            Contender::Present(format!("{lease} ({holder})"))
        }
        _ => Contender::Nobody,
    }
}

/// Reads the Leases and posts on the board. Ends when the board is dropped.
pub async fn run(client: Client, board: Board, leases: Vec<LeaseName>) {
    let mut changes = board.subscribe();
    let fresh = |leases: &[LeaseName]| -> Vec<Looked> {
        let looked = leases.iter().cloned();
        looked
            .map(|lease| Looked {
                lease,
                before: None,
            })
            .collect()
    };
    let mut looked = fresh(&leases);
    loop {
        let has_default = changes
            .borrow_and_update()
            .views
            .values()
            .any(|class| class.default);
        if has_default {
            match look(&client, &mut looked).await {
                Some(contender) => board.post_contender(contender),
                // Services without a class wait for the first answer.
                None if board.snapshot().contender == Contender::Unknown => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                None => {}
            }
            tokio::time::sleep(PERIOD).await;
        } else {
            // It is too old by the time that a class becomes the default.
            board.post_contender(Contender::Unknown);
            looked = fresh(&leases);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Reads every Lease once. `None`: some could not be read and none of the others counts.
async fn look(client: &Client, looked: &mut [Looked]) -> Option<Contender> {
    let (mut present, mut complete) = (None, true);
    for one in looked {
        let Some(now) = one.read(client).await else {
            complete = false;
            continue;
        };
        let verdict = contender(&one.lease, one.before.as_ref(), &now);
        one.before = Some(now);
        if present.is_none() && verdict != Contender::Nobody {
            present = Some(verdict);
        }
    }
    present.or_else(|| complete.then_some(Contender::Nobody))
}

// === impl Looked ===

impl Looked {
    /// `None`: not known this time.
    async fn read(&self, client: &Client) -> Option<Seen> {
        let LeaseName { namespace, name } = &self.lease;
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        match tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(lease)) => Some(Seen::of(lease.as_ref())),
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                if self.before.is_none() {
                    warn!(
                        lease = %self.lease, error = %status.message,
                        "not allowed to read the Lease of another service controller; assuming that it does not run"
                    );
                }
                Some(Seen::default())
            }
            failed => {
                debug!(lease = %self.lease, ?failed, "cannot read the Lease of another service controller");
                None
            }
        }
    }
}

// === impl LeaseName ===

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        if namespace == NAMESPACE {
            f.write_str(name)
        } else {
            write!(f, "{namespace}/{name}")
        }
    }
}

impl FromStr for LeaseName {
    type Err = String;

    /// `NAME` of a Lease in `kube-system`, or `NAMESPACE/NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or((NAMESPACE, text));
        // What Kubernetes accepts as names of namespaces (RFC 1123 labels) and of Leases.
        let is_name = |text: &str, dots: bool| {
            let within = |byte: u8| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || byte == b'-'
                    || dots && byte == b'.'
            };
            !text.is_empty()
                && text.len() <= if dots { 253 } else { 63 }
                && text.bytes().all(within)
        };
        if !is_name(namespace, false) || !is_name(name, true) {
            return Err("not NAME or NAMESPACE/NAME of a Lease".to_owned());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

// === impl Seen ===

impl Seen {
    fn of(lease: Option<&Lease>) -> Self {
        Self(lease.map(|lease| {
            let spec = lease.spec.as_ref();
            (
                spec.and_then(|spec| spec.holder_identity.clone())
                    .unwrap_or_default(),
                lease.metadata.resource_version.clone(),
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, version: &str) -> Seen {
        Seen(Some((holder.into(), Some(version.into()))))
    }

    fn lease(text: &str) -> LeaseName {
        text.parse().unwrap()
    }

    #[test]
    fn a_lease_contends_while_it_moves() {
        let first = seen("ccm-1", "10");
        let present = Contender::Present("cloud-controller-manager (ccm-1)".into());
        for (what, before, now, expected) in [
            ("the first look", None, first.clone(), &present),
            ("renewed", Some(&first), seen("ccm-1", "11"), &present),
            (
                "not renewed",
                Some(&first),
                first.clone(),
                &Contender::Nobody,
            ),
            ("released", Some(&first), seen("", "12"), &Contender::Nobody),
            ("deleted", Some(&first), Seen::default(), &Contender::Nobody),
        ] {
            let lease = lease("cloud-controller-manager");
            assert_eq!(contender(&lease, before, &now), *expected, "{what}");
        }
    }

    #[test]
    fn the_known_leases_come_first_and_others_once() {
        let all = leases([
            lease("edge/lb"),
            lease("ccm-2"),
            lease("kube-system/ccm-2"),
            lease("k3s-cloud-controller-manager"),
        ]);
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all[..KNOWN.len()], KNOWN);
        assert_eq!(all[KNOWN.len()..], ["edge/lb", "ccm-2"]);
    }

    /// A Lease that the controller may not read would be taken for none.
    #[test]
    fn the_controller_may_read_every_known_lease() {
        let role = include_str!("../../../deploy/rbac.yaml");
        let names = KNOWN.map(|name| format!("{name:?}")).join(",");
        let names = format!("resourceNames: [{names}]\n");
        assert!(role.contains(&names), "{names}");
    }

    #[test]
    fn a_text_that_cannot_be_a_lease_is_refused() {
        for bad in [
            "", "/", "a/", "/a", "a/b/c", "Upper", "a b", "a.b/c", "../x",
        ] {
            assert!(bad.parse::<LeaseName>().is_err(), "{bad:?}");
        }
        assert_eq!(lease("a/b.c").to_string(), "a/b.c");
    }
}
