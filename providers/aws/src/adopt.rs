//! Which load balancer of another controller a Service may take over. Pure.
//!
//! A Service names it by its ARN ([`ADOPT`]). Whoever may create Services must not take what belongs to others, so
//! the name alone is not enough: the load balancer itself must say, with the tags of its maker, that it was made for
//! a Service of this cluster with the same namespace and name, or that it was kept when that was deleted. Who has taken it over marks it with Ballast's own
//! tags; from then on the ARN says only which of the objects that it owns a Service means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ballast_provider::mark::Sign;
use ballast_provider::{Mark, Reason, Refusal, ServiceId, mark};
use jiff::{SignedDuration, Timestamp};

use crate::annotations::invalid;
use crate::observed::Arn;

/// The annotation that names a load balancer by its ARN.
pub const ADOPT: &str = "aws.ballast.dev/adopt";

/// The name of a cluster that nobody has named. Many have it, so it says of no load balancer whose it is.
pub const UNNAMED: &str = "kubernetes";
/// A cluster that has given no sign of life for so long may be gone.
const GONE: SignedDuration = SignedDuration::from_hours(72);

/// The Service, as the AWS Load Balancer Controller writes it.
const STACK: &str = "service.k8s.aws/stack";
/// What the object is for the AWS Load Balancer Controller.
const RESOURCE: &str = "service.k8s.aws/resource";
/// The cluster, as the AWS Load Balancer Controller writes it.
const LBC_CLUSTER: &str = "elbv2.k8s.aws/cluster";
/// The Service, as cloud-provider-aws writes it.
const IN_TREE: &str = "kubernetes.io/service-name";
/// The cluster is the rest of this key, as cloud-provider-aws writes it.
const CLUSTER: &str = "kubernetes.io/cluster/";

/// A load balancer that a Service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its ARN.
    pub arn: Arn,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
}

// === impl Adopted ===

impl Adopted {
    /// The value of the annotation.
    pub(crate) fn parse(key: &str, value: &str) -> Result<Self, Refusal> {
        Self::of(value).ok_or_else(|| {
            invalid(format!(
                "{key} must be the ARN of a Network Load Balancer, such as arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/web/0123456789abcdef, not \"{value}\""
            ))
        })
    }

    /// From `arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/net/NAME/ID`.
    fn of(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "elasticloadbalancing", region, _, resource] = parts[..] else {
            return None;
        };
        let path: Vec<&str> = resource.split('/').collect();
        let ["loadbalancer", "net", name, _] = path[..] else {
            return None;
        };
        let named = !region.is_empty() && !name.is_empty();
        named.then(|| Self {
            arn: arn.to_owned(),
            name: name.to_owned(),
            region: region.to_owned(),
        })
    }
}

/// Whether a load balancer of Ballast's may go to a new Service of the name of its former one. Either it was kept when
/// that one was deleted (`deletionPolicy: Retain`), in the same cluster, or in a former one with the same name of its
/// own; or such a former cluster has given no sign of life for [`GONE`]: it was built anew from its manifests.
pub(crate) fn is_left_for(
    tags: &BTreeMap<String, String>,
    id: &ServiceId,
    mark: &Mark,
    now: Timestamp,
) -> bool {
    let tag = |key: &str| tags.get(key).map(String::as_str);
    let same_cluster = tag(mark::CLUSTER) == Some(&mark.cluster);
    let former =
        mark.cluster_name != UNNAMED && tag(mark::CLUSTER_NAME) == Some(&mark.cluster_name);
    let is_gone = || {
        let seen = Sign::of(tags, mark::LAST_SEEN);
        former && !same_cluster && seen.is_some_and(|sign| now.duration_since(sign.at) >= GONE)
    };
    (same_cluster || former)
        && tag(mark::SERVICE) == Some(&id.to_string())
        && (tags.contains_key(mark::RETAINED) || is_gone())
}

/// Refuses to take over a load balancer with these tags, unless they say that it was made for this Service in one
/// of these clusters.
pub(crate) fn permit(
    tags: &BTreeMap<String, String>,
    id: &ServiceId,
    clusters: &BTreeSet<String>,
) -> Result<(), Refusal> {
    let service = id.to_string();
    let tag = |key: &str| tags.get(key).map(String::as_str);
    let by_lbc = tag(STACK) == Some(&service) && tag(RESOURCE) == Some("LoadBalancer");
    let in_tree = tag(IN_TREE) == Some(&service);
    if !by_lbc && !in_tree {
        // Whoever asks must not learn whose it is.
        let made_for = tag(STACK).or_else(|| tag(IN_TREE));
        return Err(refused(&match made_for {
            Some(_) => format!("its tags do not say that it was made for the Service {service}"),
            None => format!(
                "it has neither the tag {STACK} of the AWS Load Balancer Controller nor {IN_TREE} of cloud-provider-aws, so nothing says that it was made for the Service {service}"
            ),
        }));
    }
    let named: BTreeSet<&str> = if by_lbc {
        tag(LBC_CLUSTER).into_iter().collect()
    } else {
        tags.keys()
            .filter_map(|key| key.strip_prefix(CLUSTER))
            .collect()
    };
    if named.iter().any(|name| clusters.contains(*name)) {
        return Ok(());
    }
    let listed = |all: &mut dyn Iterator<Item = &str>| {
        let all: Vec<&str> = all.collect();
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(", ")
        }
    };
    Err(refused(&format!(
        "its tags name the cluster {}, and the instances of the nodes (tag {CLUSTER}NAME) name {}. Ballast takes over load balancers of its own cluster only",
        listed(&mut named.into_iter()),
        listed(&mut clusters.iter().map(String::as_str)),
    )))
}

/// It cannot be taken over.
pub(crate) fn refused(why: &impl fmt::Display) -> Refusal {
    Refusal::new(
        Reason::Invalid,
        format!("annotation {ADOPT}: Ballast does not take over this load balancer: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/k8s-shop-web/0123456789abcdef";

    #[test]
    fn an_arn_has_a_name_and_a_region() {
        let adopted = Adopted::parse(ADOPT, WEB).unwrap();
        assert_eq!(
            (adopted.name.as_str(), adopted.region.as_str()),
            ("k8s-shop-web", "eu-central-1")
        );
        for wrong in [
            "",
            "k8s-shop-web",
            "arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/app/web/01",
            "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/01",
            "arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/net/web",
            "arn:aws:elasticloadbalancing::1:loadbalancer/net/web/01",
            "arn:aws:ec2:eu-central-1:1:loadbalancer/net/web/01",
        ] {
            let refusal = Adopted::parse(ADOPT, wrong).unwrap_err();
            assert!(refusal.message.contains(ADOPT), "{refusal}");
        }
    }

    #[test]
    fn only_the_load_balancer_of_the_same_service_is_taken_over() {
        let id = ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-1".into(),
        };
        let clusters = BTreeSet::from(["prod".to_owned()]);
        let lbc = |stack: &str, cluster: &str| {
            vec![
                (STACK, stack.to_owned()),
                (RESOURCE, "LoadBalancer".to_owned()),
                (LBC_CLUSTER, cluster.to_owned()),
            ]
        };
        let in_tree = |service: &str, cluster: &str| {
            let mut tags = vec![(IN_TREE, service.to_owned())];
            tags.push(match cluster {
                "prod" => ("kubernetes.io/cluster/prod", "owned".to_owned()),
                _ => ("kubernetes.io/cluster/test", "owned".to_owned()),
            });
            tags
        };
        let mut group = lbc("shop/web", "prod");
        group[1].1 = "80".into();
        for (tags, expected) in [
            (lbc("shop/web", "prod"), ""),
            (in_tree("shop/web", "prod"), ""),
            (vec![], "it has neither the tag"),
            (
                vec![("Name", "shop/web".to_owned())],
                "it has neither the tag",
            ),
            (
                lbc("shop/other", "prod"),
                "do not say that it was made for the Service shop/web",
            ),
            (in_tree("other/web", "prod"), "do not say that it was made"),
            (
                group,
                "do not say that it was made for the Service shop/web",
            ),
            (lbc("shop/web", "test"), "name the cluster test"),
            (in_tree("shop/web", "test"), "name the cluster test"),
        ] {
            let about = format!("{tags:?}");
            let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value));
            let said = permit(&tags.collect(), &id, &clusters);
            let said = said.err().map_or(String::new(), |it| it.message);
            assert_eq!(said.is_empty(), expected.is_empty(), "{about}: {said}");
            assert!(said.contains(expected), "{about}: {said}");
        }
        let tags = lbc("shop/web", "prod");
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value));
        let said = permit(&tags.collect(), &id, &BTreeSet::new()).unwrap_err();
        assert!(said.message.contains("name none"), "{said}");
    }
}
