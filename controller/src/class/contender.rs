//! Looks whether another service controller serves this cluster's class-less Services:
//! a cloud controller manager whose Lease is being renewed.
//!
//! Asked only while a class wants to be the default. A Lease is alive if it changed
//! between two looks; at the first look it gets the benefit of the doubt.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tracing::{debug, warn};

use crate::class::Contender;
use crate::class::board::Board;
use crate::process::REQUEST_TIMEOUT;

/// Lease of upstream's cloud controller manager.
const LEASE: &str = "cloud-controller-manager";
const NAMESPACE: &str = "kube-system";
/// Longer than any renewal period.
const PERIOD: Duration = Duration::from_secs(30);
/// While nothing is known yet.
const RETRY: Duration = Duration::from_secs(1);

/// What the last look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Option<(String, Option<String>)>);

/// Who contends, after two looks. Pure.
pub fn contender(before: Option<&Seen>, now: &Seen) -> Contender {
    let stands_still = before == Some(now);
    match &now.0 {
        Some((holder, _)) if !holder.is_empty() && !stands_still => {
            Contender::Present(format!("{LEASE} ({holder})"))
        }
        _ => Contender::Nobody,
    }
}

/// Looks for ever, and posts on the board.
pub async fn run(client: Client, board: Board) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut changes = board.subscribe();
    let mut before: Option<Seen> = None;
    loop {
        let wanted = changes
            .borrow_and_update()
            .views
            .values()
            .any(|class| class.default);
        if wanted {
            match tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(LEASE)).await {
                Ok(Ok(lease)) => {
                    let now = Seen::of(lease.as_ref());
                    board.post_contender(contender(before.as_ref(), &now));
                    before = Some(now);
                }
                Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                    warn!(error = %status.message, "another service controller's Lease must not be read; taken for none");
                    board.post_contender(Contender::Nobody);
                }
                failed => {
                    debug!(?failed, "the other controller's Lease cannot be read");
                    // Services without a class wait for the first answer.
                    if board.snapshot().contender == Contender::Unknown {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            tokio::time::sleep(PERIOD).await;
        } else {
            // What was seen is too old by the time that somebody asks again.
            board.post_contender(Contender::Unknown);
            before = None;
            if changes.changed().await.is_err() {
                return;
            }
        }
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

    #[test]
    fn a_lease_contends_while_it_moves() {
        let first = seen("ccm-1", "10");
        let present = Contender::Present("cloud-controller-manager (ccm-1)".into());
        for (what, before, now, expected) in [
            ("the first look", None, first.clone(), &present),
            ("renewed", Some(&first), seen("ccm-1", "11"), &present),
            (
                "nobody renews it",
                Some(&first),
                first.clone(),
                &Contender::Nobody,
            ),
            ("released", Some(&first), seen("", "12"), &Contender::Nobody),
            ("deleted", Some(&first), Seen::default(), &Contender::Nobody),
        ] {
            assert_eq!(contender(before, &now), *expected, "{what}");
        }
    }
}
