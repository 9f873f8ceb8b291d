//! Which VPC, subnets and security groups of nodes the load balancers use. Pure: whoever asks gives
//! what AWS lists.
//!
//! Subnets, in this order (as the AWS Load Balancer Controller finds them): those that the settings
//! name; those that the load balancer has; those with the role tag for the scheme; those that are
//! public or private by their route table.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::{Reason, Refusal};

use crate::annotations::{PREFIX, invalid};
use crate::client::values::{Instance, PrefixList, RouteTable, Subnet, Tags};
use crate::desired::FoundSubnet;
use crate::settings::Scheme;

/// A load balancer needs eight free addresses in each of its subnets ("Network Load Balancers:
/// Requirements" in the user guide).
const FREE_ADDRESSES: u32 = 8;
/// The tag of what belongs to a cluster, before the cluster's name. Nodes have it, too.
const CLUSTER: &str = "kubernetes.io/cluster/";

/// For how many rules lists of AWS's own count, by the ends of their names: AWS does not report it
/// ("AWS-managed prefix list weight" in the Amazon VPC user guide). All others count as one.
const WEIGHTS: [(&str, usize); 5] = [
    (".cloudfront.origin-facing", 55),
    (".route53-healthchecks", 25),
    (".vpc-lattice", 10),
    (".s3express", 6),
    (".groundstation", 5),
];

/// The result of a choice of subnets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subnets {
    /// These.
    Found(Vec<FoundSubnet>),
    /// No subnet has a role tag: the route tables decide.
    NeedsRoutes,
}

/// The security groups of nodes that let load balancers in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeGroups {
    /// One for each kind of node, by ID.
    pub chosen: BTreeSet<String>,
    /// The candidates of nodes with several groups, of which none or several carry the cluster's
    /// tag.
    pub ambiguous: BTreeSet<String>,
}

/// For how many rules of a security group a prefix list counts.
pub fn entries(list: &PrefixList) -> usize {
    let reported = list.max_entries.and_then(|most| usize::try_from(most).ok());
    let own = || WEIGHTS.iter().find(|(end, _)| list.name.ends_with(end));
    reported.unwrap_or_else(|| own().map_or(1, |(_, weight)| *weight))
}

/// The VPC of these instances, if they have one in common.
pub fn vpc(instances: &[Instance]) -> Result<Option<String>, Refusal> {
    let all: BTreeSet<&String> = instances.iter().filter_map(|it| it.vpc.as_ref()).collect();
    if all.len() > 1 {
        let names: Vec<&str> = all.iter().map(|name| name.as_str()).collect();
        return Err(invalid(format!(
            "the nodes are in the VPCs {}; set spec.aws.vpc of the class",
            names.join(", ")
        )));
    }
    Ok(all.first().map(|name| (*name).clone()))
}

/// The clusters to which instances belong by their tags; usually one.
pub fn clusters(instances: &[Instance]) -> BTreeSet<String> {
    let keys = instances.iter().flat_map(|instance| instance.tags.keys());
    keys.filter_map(|key| key.strip_prefix(CLUSTER))
        .map(ToOwned::to_owned)
        .collect()
}

/// The subnets that are named, in the order of their names. A value of the tag `Name` may be the
/// name of several.
pub fn named(names: &[String], all: &[Subnet]) -> Result<Vec<FoundSubnet>, Refusal> {
    let mut found = Vec::new();
    for name in names {
        let mut those: Vec<FoundSubnet> = all
            .iter()
            .filter(|subnet| subnet.id == *name || subnet.tags.get("Name") == Some(name))
            .map(FoundSubnet::from)
            .collect();
        if those.is_empty() {
            return Err(invalid(format!(
                "annotation {PREFIX}subnets: no subnet of the VPC has the ID or the tag Name \"{name}\""
            )));
        }
        those.sort();
        found.append(&mut those);
    }
    Ok(found)
}

/// One subnet for each zone of the region, for a Service that names none.
pub fn discovered(
    (scheme, dualstack): (Scheme, bool),
    region: &str,
    clusters: &BTreeSet<String>,
    all: &[Subnet],
    routes: Option<&[RouteTable]>,
) -> Result<Subnets, Refusal> {
    let role = role_tag(scheme);
    let tagged = |subnet: &&Subnet| {
        let value = subnet.tags.get(role);
        value.is_some_and(|value| value.is_empty() || value == "1")
    };
    let regular = |subnet: &&Subnet| is_regular(&subnet.zone, region);
    let all = || all.iter().filter(regular);
    let by_role = fitting(all().filter(tagged), clusters, dualstack);
    if !by_role.is_empty() {
        return Ok(Subnets::Found(by_role));
    }
    let Some(routes) = routes else {
        return Ok(Subnets::NeedsRoutes);
    };
    let wanted = scheme == Scheme::InternetFacing;
    let reachable = |subnet: &&Subnet| is_public(subnet, routes) == wanted;
    let by_route = fitting(all().filter(reachable), clusters, dualstack);
    if by_route.is_empty() {
        return Err(no_subnet(scheme, &all().collect::<Vec<_>>()));
    }
    Ok(Subnets::Found(by_route))
}

/// Which groups of nodes get the rule that lets load balancers in. `tags`: those of the groups of
/// nodes that have several; without them, such nodes count as ambiguous.
pub fn node_groups(
    instances: &[Instance],
    clusters: &BTreeSet<String>,
    tags: Option<&BTreeMap<String, Tags>>,
) -> NodeGroups {
    let mut groups = NodeGroups::default();
    for instance in instances {
        let own = |id: &&String| {
            let tags = tags.and_then(|tags| tags.get(*id));
            tags.is_some_and(|tags| belongs(tags, clusters))
        };
        let candidates = &instance.security_groups;
        let tagged: Vec<&String> = candidates.iter().filter(own).collect();
        match (candidates.len(), &tagged[..]) {
            (0, _) => {}
            (1, _) => groups.chosen.extend(candidates.iter().cloned()),
            (_, [one]) => {
                groups.chosen.insert((*one).clone());
            }
            _ => groups.ambiguous.extend(candidates.iter().cloned()),
        }
    }
    groups
}

const fn role_tag(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Internal => "kubernetes.io/role/internal-elb",
        Scheme::InternetFacing => "kubernetes.io/role/elb",
    }
}

/// One for each zone: a subnet of this cluster before others, one with IPv6 addresses if they are asked for, and then
/// the lowest ID.
fn fitting<'a>(
    subnets: impl Iterator<Item = &'a Subnet>,
    clusters: &BTreeSet<String>,
    dualstack: bool,
) -> Vec<FoundSubnet> {
    let mut zones: BTreeMap<&str, &Subnet> = BTreeMap::new();
    for subnet in subnets {
        let foreign = owners(&subnet.tags).count() > 0 && !belongs(&subnet.tags, clusters);
        if subnet.outpost || subnet.free_addresses < FREE_ADDRESSES || foreign {
            continue;
        }
        let rank = |subnet: &Subnet| {
            let lacks = dualstack && subnet.ipv6.is_empty();
            (!belongs(&subnet.tags, clusters), lacks, subnet.id.clone())
        };
        let best = zones.entry(&subnet.zone).or_insert(subnet);
        if rank(subnet) < rank(best) {
            *best = subnet;
        }
    }
    zones.into_values().map(FoundSubnet::from).collect()
}

fn owners(tags: &Tags) -> impl Iterator<Item = &str> {
    tags.keys().filter_map(|key| key.strip_prefix(CLUSTER))
}

fn belongs(tags: &Tags, clusters: &BTreeSet<String>) -> bool {
    owners(tags).any(|cluster| clusters.contains(cluster))
}

/// Whether a zone is an Availability Zone: its name is the region's and a letter. Local Zones and Wavelength
/// Zones have longer ones (`us-west-2-lax-1a`, `us-east-1-wl1-bos-wlz-1`). A load balancer cannot have
/// zones of several kinds, and the nodes of a cluster are seldom all in one of those, so they must be named.
fn is_regular(zone: &str, region: &str) -> bool {
    let letter = zone.strip_prefix(region).unwrap_or_default();
    letter.len() == 1 && letter.starts_with(|it: char| it.is_ascii_lowercase())
}

/// Whether the route table of a subnet leads to an internet gateway. A subnet without one of its
/// own has the main one of its VPC.
fn is_public(subnet: &Subnet, routes: &[RouteTable]) -> bool {
    let own = routes.iter().find(|it| it.subnets.contains(&subnet.id));
    let main = || routes.iter().find(|it| it.main && it.vpc == subnet.vpc);
    own.or_else(main).is_some_and(|it| it.internet_gateway)
}

fn no_subnet(scheme: Scheme, all: &[&Subnet]) -> Refusal {
    let kind = match scheme {
        Scheme::Internal => "private",
        Scheme::InternetFacing => "public",
    };
    let full = (all.iter().filter(|it| it.free_addresses < FREE_ADDRESSES)).count();
    Refusal::new(
        Reason::Invalid,
        format!(
            "no subnet fits the scheme {}: none has the tag {}, and none of the {} subnets of the VPC in Availability Zones is {kind}, of this cluster, and has {FREE_ADDRESSES} free addresses ({full} have fewer). Tag the subnets, or name them with {PREFIX}subnets",
            scheme.as_str(),
            role_tag(scheme),
            all.len()
        ),
    )
}

// === impl FoundSubnet ===

impl From<&Subnet> for FoundSubnet {
    fn from(subnet: &Subnet) -> Self {
        Self {
            id: subnet.id.clone(),
            zone: subnet.zone.clone(),
            ipv6: !subnet.ipv6.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
