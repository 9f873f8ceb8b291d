//! What a Service asks for in its spec and in Ballast's own annotations, and AWS cannot do. Pure.
//!
//! Annotations of AWS are in [`annotations`](crate::annotations).

use ballast_provider::{Affinity, FamilyPolicy, Member, Reason, Refusal};

use crate::annotations::PREFIX;

/// Kubernetes' default for `clientIP.timeoutSeconds`, which nobody asked for.
const TIMEOUT: u32 = 10_800;

/// Refuses what the Service cannot do without.
pub(crate) fn check(member: &Member) -> Result<(), Refusal> {
    if member.placement.family_policy == FamilyPolicy::RequireDualStack {
        return Err(Refusal::new(
            Reason::Unsupported,
            "spec.ipFamilyPolicy: Ballast does not support IPv6 on AWS yet, so no Service gets both families; use PreferDualStack or SingleStack",
        ));
    }
    Ok(())
}

/// One remark for each request that has no effect.
pub(crate) fn remarks(member: &Member) -> Vec<String> {
    let wanted = &member.load_balancer;
    let mut remarks = Vec::new();
    if wanted.families.len() > 1 {
        remarks.push(
            "spec.ipFamilies: Ballast does not support IPv6 on AWS yet; the load balancer has IPv4 addresses only".to_owned(),
        );
    }
    if let Affinity::ClientIp { timeout_seconds } = wanted.affinity
        && timeout_seconds != TIMEOUT
    {
        remarks.push(
            "spec.sessionAffinityConfig has no effect: AWS keeps a client on its target for as long as the target is healthy".to_owned(),
        );
    }
    if !wanted.requested_addresses.is_empty() {
        remarks.push(format!(
            "the requested addresses have no effect: AWS assigns them. Use the annotation {PREFIX}private-ipv4-addresses, or {PREFIX}eip-allocations with the scheme internet-facing"
        ));
    }
    if wanted.share_key.is_some() {
        remarks.push(
            "ballast.dev/share-key has no effect: Ballast does not share load balancers on AWS yet"
                .to_owned(),
        );
    }
    if member.placement.pool.is_some() {
        remarks.push(
            "ballast.dev/address-pool has no effect: on AWS, addresses come from subnets"
                .to_owned(),
        );
    }
    let others = wanted
        .settings
        .keys()
        .filter(|key| !key.starts_with(PREFIX));
    remarks.extend(others.map(|key| format!("{key} has no effect on AWS")));
    remarks
}

#[cfg(test)]
mod tests {
    use ballast_provider::{Family, Placement};

    use super::*;
    use crate::desired::tests::{WEB, service};

    #[test]
    fn what_aws_cannot_do_is_said_or_refused() {
        type Ask = fn(&mut Member);
        let table: [(Ask, &str); 8] = [
            (|_| {}, ""),
            (
                |it| it.load_balancer.families = vec![Family::V4, Family::V6],
                "spec.ipFamilies",
            ),
            (
                |it| {
                    it.load_balancer.affinity = Affinity::ClientIp {
                        timeout_seconds: TIMEOUT,
                    };
                },
                "",
            ),
            (
                |it| {
                    it.load_balancer.affinity = Affinity::ClientIp {
                        timeout_seconds: 60,
                    };
                },
                "spec.sessionAffinityConfig",
            ),
            (
                |it| it.load_balancer.requested_addresses = vec![[192, 0, 2, 1].into()],
                "private-ipv4-addresses",
            ),
            (
                |it| it.load_balancer.share_key = Some("web".into()),
                "ballast.dev/share-key",
            ),
            (
                |it| it.placement.pool = Some("public".into()),
                "ballast.dev/address-pool",
            ),
            (
                |it| {
                    let settings = &mut it.load_balancer.settings;
                    settings.insert(format!("{PREFIX}scheme"), "internal".into());
                    settings.insert("example.com/x".into(), "y".into());
                },
                "example.com/x",
            ),
        ];
        for (ask, expected) in table {
            let mut member = Member {
                load_balancer: service(&[WEB]),
                published: Vec::new(),
                placement: Placement::default(),
            };
            ask(&mut member);
            assert_eq!(check(&member), Ok(()));
            match &remarks(&member)[..] {
                [] => assert_eq!(expected, ""),
                [one] => assert!(!expected.is_empty() && one.contains(expected), "{one}"),
                more => panic!("{more:?}"),
            }
            member.placement.family_policy = FamilyPolicy::RequireDualStack;
            let refused = check(&member).unwrap_err();
            assert_eq!(refused.reason, Reason::Unsupported);
        }
    }
}
