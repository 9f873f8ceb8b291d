//! Target groups that others own, in which a Service registers its targets. Pure.
//!
//! A Service names them by the ports whose targets they get ([`TARGET_GROUPS`]). Ballast then makes no load balancer: it
//! registers and deregisters targets, and changes nothing else. Several Services, also of several clusters, can have
//! their targets in one target group.
//!
//! ```text
//!  Service ─▶ note: a target group of Ballast's without a listener, with what it has registered
//!                │  tag ballast.dev/bound-to
//!                ▼
//!         target group of somebody else ◀─ its owner's tag ballast.dev/targets-from permits it
//! ```
//!
//! **The note** says which targets are the Service's. A target is in it before it is registered, and leaves it after it
//! was deregistered. So no crash leaves a target that nobody knows of, and what other clusters have registered is never
//! touched. AWS bills no target group.
//!
//! **The owner permits it** with the tag [`TARGETS_FROM`]. Whoever may create Services could otherwise send the traffic
//! of others to pods of their own.

use std::collections::BTreeMap;

use ballast_provider::mark::CLUSTER;
use ballast_provider::{Family, Reason, Refusal, ServiceId};

use crate::annotations::invalid;
use crate::client::values::TargetGroup;
use crate::desired::Transport;
use crate::observed::Arn;
use crate::target::TargetType;

/// The annotation that names target groups: `PORT=ARN`, separated by commas.
pub const TARGET_GROUPS: &str = "aws.ballast.dev/target-groups";
/// The tag of a target group whose owner permits Services to register targets: `NAMESPACE/NAME`, separated by spaces.
pub const TARGETS_FROM: &str = "ballast.dev/targets-from";
/// The tag of a note: the ARN of the target group that it is about.
pub const BOUND_TO: &str = "ballast.dev/bound-to";

/// The target groups of a Service, by its ports.
pub type Bound = BTreeMap<u16, Arn>;

/// The most of them. Whoever names many that do not exist must not use up AWS's limit of calls.
const MOST: usize = 10;

/// What AWS says of target groups that a Service names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those that exist.
    pub groups: Vec<TargetGroup>,
    /// Their tags by ARN.
    pub tags: BTreeMap<Arn, BTreeMap<String, String>>,
}

/// Who asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The Service.
    pub id: &'a ServiceId,
    /// What its targets are.
    pub target_type: TargetType,
    /// Its families.
    pub families: &'a [Family],
    /// The transport of each of its ports that it names.
    pub ports: &'a BTreeMap<u16, Transport>,
    /// The VPC of the nodes.
    pub vpc: &'a str,
}

/// The Service may use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// The families of their targets.
    pub families: BTreeMap<Arn, Family>,
    /// One that no load balancer uses.
    pub unused: Option<Arn>,
    /// Why it must not use another one.
    pub refused: Option<Refusal>,
}

/// The value of the annotation.
pub(crate) fn parse(key: &str, value: &str) -> Result<Bound, Refusal> {
    let mut all = Bound::new();
    for entry in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let named = entry.split_once('=').and_then(|(port, arn)| {
            let port = port.trim().parse::<u16>().ok().filter(|port| *port > 0)?;
            is_target_group(arn.trim()).then(|| (port, arn.trim().to_owned()))
        });
        let Some((port, arn)) = named else {
            return Err(invalid(format!(
                "annotation {key} must be a list of PORT=ARN with ARNs of target groups, such as 80=arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef, not \"{}\"",
                ballast_provider::text::shortened(entry, 64)
            )));
        };
        if let Some((other, _)) = all
            .iter()
            .find(|(other, it)| **it == arn && **other != port)
        {
            return Err(invalid(format!(
                "annotation {key} names {arn} for port {other} and for port {port}; a target group gets the targets of one port"
            )));
        }
        if all.insert(port, arn).is_some() {
            return Err(invalid(format!("annotation {key} names port {port} twice")));
        }
    }
    if all.is_empty() || all.len() > MOST {
        return Err(invalid(format!(
            "annotation {key} names {} ports; it must name 1 to {MOST}",
            all.len()
        )));
    }
    Ok(all)
}

/// `arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID`
fn is_target_group(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "elasticloadbalancing", _, _, resource] = parts[..] else {
        return false;
    };
    let path: Vec<&str> = resource.split('/').collect();
    matches!(path[..], ["targetgroup", name, id] if !name.is_empty() && !id.is_empty())
}

/// Which target groups a Service may use: those that exist, that their owners permit, and that can have its targets.
pub(crate) fn judge(asked: &Bound, by: Asking<'_>, seen: &Seen) -> Permitted {
    let mut permitted = Permitted::default();
    for (port, arn) in asked {
        let Some(transport) = by.ports.get(port) else {
            continue;
        };
        let group = match usable(arn, (*port, *transport), by, seen) {
            Ok(group) => group,
            Err(why) => {
                permitted.refused.get_or_insert(why);
                continue;
            }
        };
        permitted.families.insert(arn.clone(), group.family);
        if group.load_balancers.is_empty() {
            permitted.unused.get_or_insert_with(|| arn.clone());
        }
    }
    permitted
}

fn usable<'a>(
    arn: &str,
    port: (u16, Transport),
    by: Asking<'_>,
    seen: &'a Seen,
) -> Result<&'a TargetGroup, Refusal> {
    let group = seen.groups.iter().find(|it| it.arn == *arn);
    let none = BTreeMap::new();
    let tags = seen.tags.get(arn).unwrap_or(&none);
    // Whoever asks must not learn whether it exists.
    let group = group.ok_or_else(|| unpermitted(arn, by.id))?;
    permit(tags, by.id, arn)?;
    fits(group, port, by)?;
    Ok(group)
}

/// Refuses to register the targets of this Service in a target group with these tags, unless its owner permits it.
fn permit(tags: &BTreeMap<String, String>, id: &ServiceId, arn: &str) -> Result<(), Refusal> {
    // Ballast's own have their targets from the Services that they were made for.
    if tags.contains_key(CLUSTER) {
        return Err(refused(arn, "Ballast has made it for a Service"));
    }
    let service = id.to_string();
    let permitted = tags.get(TARGETS_FROM).map(String::as_str);
    let mut services = permitted.unwrap_or_default().split_whitespace();
    if services.any(|one| one == service) {
        return Ok(());
    }
    Err(unpermitted(arn, id))
}

/// Whoever asks must not learn whom it permits, nor whether it is there.
fn unpermitted(arn: &str, id: &ServiceId) -> Refusal {
    refused(
        arn,
        &format!(
            "its owner has not permitted it, or AWS does not find it in this region and account. Its tag {TARGETS_FROM} must name {id}, among others separated by spaces"
        ),
    )
}

/// Refuses a target group that cannot have the targets of this port.
fn fits(
    group: &TargetGroup,
    (port, transport): (u16, Transport),
    by: Asking<'_>,
) -> Result<(), Refusal> {
    let (arn, target_type) = (&group.arn, by.target_type);
    if group.target_type != Some(target_type) {
        let (is, other) = match target_type {
            TargetType::Instance => ("nodes", "ip"),
            TargetType::Ip => ("pods", "instance"),
        };
        return Err(refused(
            arn,
            &format!(
                "the targets of the Service are {is}, so its target type must be {}. Use another target group, or nlb-target-type: {other}",
                target_type.as_str()
            ),
        ));
    }
    // One for HTTP or TLS has TCP underneath.
    let carries = match group.transport {
        Some(carried) => carried == transport || carried == Transport::TcpUdp,
        None => transport == Transport::Tcp,
    };
    if !carries {
        return Err(refused(
            arn,
            &format!(
                "port {port} of the Service is {}, which its protocol does not carry",
                transport.protocol(false)
            ),
        ));
    }
    if group.vpc.as_deref() != Some(by.vpc) {
        return Err(refused(
            arn,
            &format!("it is not in {}, the VPC of the nodes", by.vpc),
        ));
    }
    if !by.families.contains(&group.family) {
        return Err(refused(
            arn,
            &format!(
                "it is for {}, which is not in spec.ipFamilies of the Service",
                group.family
            ),
        ));
    }
    Ok(())
}

fn refused(arn: &str, why: &str) -> Refusal {
    Refusal::new(
        Reason::Invalid,
        format!("annotation {TARGET_GROUPS}: Ballast registers no targets in {arn}: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WEB: &str =
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef";

    #[test]
    fn ports_have_target_groups() {
        let all = parse(TARGET_GROUPS, &format!("80={WEB} , 443 = {WEB}0,")).unwrap();
        let api = format!("{WEB}0");
        assert_eq!(all, Bound::from([(80, WEB.into()), (443, api)]));
        for (wrong, says) in [
            ("", "0 ports"),
            ("80", "must be a list"),
            ("web=x", "must be a list"),
            (&format!("0={WEB}"), "must be a list"),
            (&format!("http={WEB}"), "must be a list"),
            (&format!("80={WEB},80={WEB}0"), "names port 80 twice"),
            (
                &format!("80={WEB},81={WEB}"),
                "a target group gets the targets of one port",
            ),
            (
                "80=arn:aws:elasticloadbalancing:r:1:loadbalancer/net/web/01",
                "must be a list",
            ),
            ("80=arn:aws:ec2:r:1:targetgroup/web/01", "must be a list"),
            (
                "80=arn:aws:elasticloadbalancing:r:1:targetgroup/web",
                "must be a list",
            ),
        ] {
            let refusal = parse(TARGET_GROUPS, wrong).unwrap_err();
            assert!(refusal.message.contains(says), "{wrong}: {refusal}");
            assert!(refusal.message.contains(TARGET_GROUPS), "{refusal}");
        }
    }

    #[test]
    fn only_services_that_the_owner_names_may_register() {
        let id = ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-1".into(),
        };
        for (tag, may) in [
            (None, false),
            (Some(""), false),
            (Some("shop/web"), true),
            (Some("blog/web  shop/web"), true),
            (Some("shop/webs other/shop/web"), false),
            (Some("shop"), false),
        ] {
            let tags = tag.map(|value| (TARGETS_FROM.to_owned(), value.to_owned()));
            let said = permit(&tags.into_iter().collect(), &id, WEB);
            assert_eq!(said.is_ok(), may, "{tag:?}");
            if let Err(refusal) = said {
                assert!(refusal.message.contains(TARGETS_FROM), "{refusal}");
                assert!(!refusal.message.contains("blog"), "{refusal}");
            }
        }
    }

    #[test]
    fn all_that_it_names_must_be_permitted() {
        let id = ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-1".into(),
        };
        let group = |arn: &str, used: bool| TargetGroup {
            arn: arn.into(),
            name: "web".into(),
            transport: Some(Transport::Tcp),
            tls: false,
            port: Some(80),
            target_type: Some(TargetType::Ip),
            family: Family::V6,
            vpc: Some("vpc-1".into()),
            check: None,
            load_balancers: used.then(|| "lb".to_owned()).into_iter().collect(),
        };
        let permits = |key: &str| BTreeMap::from([(key.to_owned(), "shop/web".to_owned())]);
        let ports = BTreeMap::from([(80, Transport::Tcp), (81, Transport::Tcp)]);
        let by = Asking {
            id: &id,
            target_type: TargetType::Ip,
            families: &[Family::V6],
            ports: &ports,
            vpc: "vpc-1",
        };
        let asked = Bound::from([(80, "one".into()), (81, "two".into())]);
        let mut seen = Seen {
            groups: vec![group("one", true), group("two", false)],
            tags: ["one", "two"]
                .map(|arn| (arn.to_owned(), permits(TARGETS_FROM)))
                .into(),
        };
        let permitted = judge(&asked, by, &seen);
        assert_eq!(permitted.refused, None);
        assert_eq!(permitted.unused.as_deref(), Some("two"));
        assert_eq!(permitted.families["one"], Family::V6);
        let says = |seen: &Seen| {
            let permitted = judge(&asked, by, seen);
            // What is wrong with one holds up no other.
            assert!(permitted.families.contains_key("one"));
            permitted.refused.expect("one is refused").message
        };
        let mut own = seen.clone();
        own.tags.get_mut("two").unwrap().extend(permits(CLUSTER));
        assert!(says(&own).contains("Ballast has made it"), "{}", says(&own));
        seen.tags.remove("two");
        assert!(says(&seen).contains("has not permitted it"));
        seen.groups.pop();
        assert!(says(&seen).contains("does not find it"));
    }

    #[test]
    fn a_target_group_must_be_able_to_have_the_targets() {
        let group = |transport, target_type, vpc: &str| TargetGroup {
            arn: WEB.into(),
            name: "web".into(),
            transport,
            tls: false,
            port: Some(80),
            target_type: Some(target_type),
            family: Family::V4,
            vpc: Some(vpc.into()),
            check: None,
            load_balancers: BTreeSet::new(),
        };
        let nodes = TargetType::Instance;
        let pods = TargetType::Ip;
        let (tcp, udp) = (Transport::Tcp, Transport::Udp);
        for (transport, has, vpc, asks, says) in [
            (Some(tcp), nodes, "vpc-1", (tcp, nodes), ""),
            // HTTP
            (None, nodes, "vpc-1", (tcp, nodes), ""),
            (Some(Transport::TcpUdp), pods, "vpc-1", (udp, pods), ""),
            (Some(tcp), pods, "vpc-2", (tcp, pods), "not in vpc-1"),
            (None, nodes, "vpc-1", (udp, nodes), "does not carry"),
            (Some(udp), nodes, "vpc-1", (tcp, nodes), "does not carry"),
            (Some(tcp), pods, "vpc-1", (tcp, nodes), "must be instance"),
            (Some(tcp), nodes, "vpc-1", (tcp, pods), "must be ip"),
            (Some(tcp), nodes, "vpc-2", (tcp, nodes), "not in vpc-1"),
        ] {
            let (port_is, target_type) = asks;
            let group = group(transport, has, vpc);
            let id = ServiceId {
                namespace: "shop".into(),
                name: "web".into(),
                uid: "uid-1".into(),
            };
            let ports = BTreeMap::new();
            let by = |families| Asking {
                id: &id,
                target_type,
                families,
                ports: &ports,
                vpc: "vpc-1",
            };
            let six = fits(&group, (80, port_is), by(&[Family::V6]));
            assert!(six.is_err(), "of another family");
            let said = fits(&group, (80, port_is), by(&[Family::V4]));
            let said = said.err().map_or(String::new(), |it| it.message);
            assert_eq!(said.is_empty(), says.is_empty(), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}
