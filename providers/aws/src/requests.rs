//! What a Service asks for in its spec and in Ballast's own annotations, and AWS cannot do. Pure.
//!
//! Annotations of AWS are in [`annotations`](crate::annotations).

use ballast_provider::{Affinity, Member, Reason, Refusal, text};

use crate::adopt::ADOPT;
use crate::annotations::{ACTIONS, PREFIX};
use crate::bind::TARGET_GROUPS;

/// Kubernetes' default for `clientIP.timeoutSeconds`, which nobody asked for.
const TIMEOUT: u32 = 10_800;

/// Refuses what the Service cannot do without.
pub(crate) fn check(member: &Member) -> Result<(), Refusal> {
    let wanted = &member.load_balancer;
    if wanted.share_key.is_some() && wanted.settings.contains_key(ADOPT) {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "annotation {ADOPT}: a Service with ballast.dev/share-key takes over no load balancer: it has the one that it shares. Remove one of the two"
            ),
        ));
    }
    for with in [ADOPT, "ballast.dev/share-key"] {
        let has = if with == ADOPT {
            wanted.settings.contains_key(ADOPT)
        } else {
            wanted.share_key.is_some()
        };
        if has && wanted.settings.contains_key(TARGET_GROUPS) {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "annotation {TARGET_GROUPS}: the Service gets no load balancer, so {with} has nothing to be about. Remove one of the two"
                ),
            ));
        }
    }
    if let Some(key) = &member.load_balancer.share_key
        && key.len() > LONGEST_KEY
    {
        return Err(Refusal::new(
            Reason::Invalid,
            format!(
                "ballast.dev/share-key has {} letters; on AWS it is a tag with the namespace, and has at most {LONGEST_KEY}",
                key.len()
            ),
        ));
    }
    if let Some(key) = &member.load_balancer.share_key
        && let Some(wrong) = key.chars().find(|letter| !is_taggable(*letter))
    {
        return Err(Refusal::new(
            Reason::Invalid,
            format!(
                "ballast.dev/share-key \"{}\" has {wrong:?}: on AWS it is a tag, and may have letters, digits and {SIGNS}",
                text::shortened(key, 32)
            ),
        ));
    }
    Ok(())
}

/// AWS permits these in the value of a tag, beside letters and digits ("Tag your Amazon EC2 resources").
const SIGNS: &str = "+-=._:/@";

/// The value of a tag has 256 letters, and a namespace up to 63, with a slash after it.
const LONGEST_KEY: usize = 256 - 64;

/// Letters of ASCII only: other ones take several bytes, and some look alike.
fn is_taggable(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || SIGNS.contains(letter)
}

/// One remark for each request that has no effect.
pub(crate) fn remarks(member: &Member) -> Vec<String> {
    let wanted = &member.load_balancer;
    let mut remarks = Vec::new();
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
    if member.placement.pool.is_some() {
        remarks.push(
            "ballast.dev/address-pool has no effect: on AWS, addresses come from subnets"
                .to_owned(),
        );
    }
    let others = wanted
        .settings
        .keys()
        .filter(|key| !key.starts_with(PREFIX) && !key.starts_with(ACTIONS))
        .filter(|key| ![ADOPT, TARGET_GROUPS].contains(&key.as_str()));
    remarks.extend(others.map(|key| format!("{key} has no effect on AWS")));
    remarks
}

#[cfg(test)]
mod tests {
    use ballast_provider::Placement;

    use super::*;
    use crate::desired::tests::{WEB, service};

    #[test]
    fn what_aws_cannot_do_is_said_or_refused() {
        type Ask = fn(&mut Member);
        let table: [(Ask, &str); 7] = [
            (|_| {}, ""),
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
            (|it| it.load_balancer.share_key = Some("web".into()), ""),
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
                endpoints: None,
            };
            ask(&mut member);
            assert_eq!(check(&member), Ok(()));
            match &remarks(&member)[..] {
                [] => assert_eq!(expected, ""),
                [one] => assert!(!expected.is_empty() && one.contains(expected), "{one}"),
                more => panic!("{more:?}"),
            }
            member.load_balancer.share_key = Some("web*".into());
            let refused = check(&member).unwrap_err();
            assert!(refused.message.contains("'*'"), "{refused}");
            member.load_balancer.share_key = Some("x".repeat(LONGEST_KEY + 1));
            let refused = check(&member).unwrap_err();
            assert!(refused.message.contains("at most 192"), "{refused}");
        }
    }
}
