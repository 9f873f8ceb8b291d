//! Random histories of calls: a refused call changes nothing, and what AWS promises about its objects
//! always holds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::rules::Change as RuleChange;
use super::super::security_groups::{Permission, Source};
use super::super::seed::NODE_GROUP;
use super::super::targets::Description;
use super::*;

/// One step. Numbers choose among the objects that there are.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    CreateLoadBalancer(u8, u8),
    DeleteLoadBalancer(usize),
    Protect(usize, bool),
    SetSubnets(usize, u8, Option<bool>, Option<bool>),
    SetIpAddressType(usize, bool),
    CreateTargetGroup(u8, bool, bool),
    DeleteTargetGroup(usize),
    Register(usize, u16),
    Deregister(usize, u16),
    CreateListener(usize, u16, usize),
    ModifyListener(usize, usize),
    Secure(usize, Option<u8>),
    Certificate(usize, u8, bool),
    DeleteListener(usize),
    CreateRule(usize, u32, bool, Vec<usize>),
    ModifyRule(usize, Option<bool>, Option<usize>),
    DeleteRule(usize),
    CreateSecurityGroup(u8),
    Authorize(usize, usize),
    Revoke(usize, usize),
    DeleteSecurityGroup(usize),
    Tag(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0_usize..6;
    prop_oneof![
        2 => (0_u64..400).prop_map(Step::Wait),
        3 => (0_u8..3, 1_u8..8).prop_map(|(name, zones)| Step::CreateLoadBalancer(name, zones)),
        1 => one.clone().prop_map(Step::DeleteLoadBalancer),
        1 => (one.clone(), any::<bool>()).prop_map(|(it, on)| Step::Protect(it, on)),
        2 => (one.clone(), 0_u8..8, any::<Option<bool>>(), any::<Option<bool>>())
            .prop_map(|(it, zones, dual, nat)| Step::SetSubnets(it, zones, dual, nat)),
        2 => (one.clone(), prop::bool::weighted(0.7))
            .prop_map(|(it, dual)| Step::SetIpAddressType(it, dual)),
        4 => (0_u8..6, any::<bool>(), any::<bool>())
            .prop_map(|(name, udp, six)| Step::CreateTargetGroup(name, udp, six)),
        1 => one.clone().prop_map(Step::DeleteTargetGroup),
        2 => (one.clone(), 1_u16..5).prop_map(|(it, node)| Step::Register(it, node)),
        2 => (one.clone(), 1_u16..5).prop_map(|(it, node)| Step::Deregister(it, node)),
        4 => (one.clone(), 80_u16..83, one.clone())
            .prop_map(|(it, port, group)| Step::CreateListener(it, port, group)),
        1 => (one.clone(), one.clone()).prop_map(|(it, group)| Step::ModifyListener(it, group)),
        2 => (one.clone(), prop::option::of(0_u8..4))
            .prop_map(|(it, certificate)| Step::Secure(it, certificate)),
        2 => (one.clone(), 0_u8..4, any::<bool>())
            .prop_map(|(it, certificate, add)| Step::Certificate(it, certificate, add)),
        1 => one.clone().prop_map(Step::DeleteListener),
        4 => (one.clone(), 1_u32..4, any::<bool>(), prop::collection::vec(one.clone(), 1..3))
            .prop_map(|(it, at, six, groups)| Step::CreateRule(it, at, six, groups)),
        2 => (one.clone(), any::<Option<bool>>(), prop::option::of(one.clone()))
            .prop_map(|(it, six, group)| Step::ModifyRule(it, six, group)),
        1 => one.clone().prop_map(Step::DeleteRule),
        2 => (0_u8..3).prop_map(Step::CreateSecurityGroup),
        2 => (one.clone(), one.clone()).prop_map(|(it, of)| Step::Authorize(it, of)),
        1 => (one.clone(), one.clone()).prop_map(|(it, of)| Step::Revoke(it, of)),
        2 => one.clone().prop_map(Step::DeleteSecurityGroup),
        1 => (one, 0_u8..4).prop_map(|(it, number)| Step::Tag(it, number)),
    ]
}

/// The key of one of the objects, or one that no object has.
fn pick<T>(all: &BTreeMap<String, T>, index: usize, missing: &str) -> String {
    all.keys()
        .nth(index)
        .cloned()
        .unwrap_or_else(|| missing.to_owned())
}

/// One of three certificates, or one that does not exist.
fn certificate_of(number: u8) -> String {
    format!("arn:{number}")
}

/// What a rule asks for. Several target groups have weights.
fn rule_of(six: Option<bool>, groups: Option<Vec<String>>) -> RuleChange {
    let weighted = |all: Vec<String>| {
        let weight = (all.len() > 1).then_some(10);
        all.into_iter().map(|arn| (arn, weight)).collect()
    };
    RuleChange {
        family: six.map(|six| if six { "ipv6" } else { "ipv4" }.to_owned()),
        forward: groups.map(weighted),
    }
}

fn kind(dual: bool) -> &'static str {
    if dual { "dualstack" } else { "ipv4" }
}

fn zones(bits: u8) -> Vec<Mapping> {
    let chosen = ["a", "b", "c"].iter().enumerate();
    let chosen = chosen.filter(|(index, _)| bits >> index & 1 == 1);
    chosen
        .map(|(_, zone)| subnet(&format!("subnet-private-{zone}")))
        .collect()
}

/// Makes one step. Returns whether it was refused.
#[expect(clippy::too_many_lines, reason = "one arm for each call")]
fn make(cloud: &mut Cloud, now: &mut Moment, step: &Step) -> bool {
    let at = *now;
    let missing = |kind: &str| format!("arn:aws:elasticloadbalancing:x:y:{kind}/net/x/0");
    let balancer =
        |cloud: &Cloud, index| pick(cloud.load_balancers.all(), index, &missing("loadbalancer"));
    let group =
        |cloud: &Cloud, index| pick(cloud.target_groups.all(), index, &missing("targetgroup"));
    let listener_at =
        |cloud: &Cloud, index| pick(cloud.listeners.all(), index, &missing("listener"));
    let guard = |cloud: &Cloud, index| pick(cloud.security_groups.all(), index, "sg-x");
    let node = |number: u16| {
        vec![Description {
            id: format!("i-{number:08}"),
            port: None,
            zone: None,
        }]
    };
    let from = |id: String| Permission {
        protocol: "-1".into(),
        from: None,
        to: None,
        source: Source::Group(id),
    };
    let rule_at = |cloud: &Cloud, index| pick(cloud.rules.all(), index, &missing("listener-rule"));
    match *step {
        Step::Wait(seconds) => {
            *now += Duration::from_secs(seconds);
            cloud.tick(*now);
            Ok(())
        }
        Step::CreateLoadBalancer(name, bits) => {
            let group = pick(cloud.security_groups.all(), usize::from(bits), NODE_GROUP);
            let create = CreateLoadBalancer {
                name: format!("lb{name}"),
                kind: Some("network".into()),
                scheme: Some("internal".into()),
                subnets: zones(bits),
                security_groups: vec![group],
                ..CreateLoadBalancer::default()
            };
            cloud.create_load_balancer(at, create).map(drop)
        }
        Step::DeleteLoadBalancer(index) => {
            let arn = balancer(cloud, index);
            cloud.delete_load_balancer(at, &arn)
        }
        Step::Protect(index, on) => {
            let arn = balancer(cloud, index);
            let on = on.to_string();
            let change = super::tags(&[("deletion_protection.enabled", &on)]);
            cloud
                .modify_load_balancer_attributes(&arn, &change)
                .map(drop)
        }
        Step::SetSubnets(index, bits, dual, source_nat) => {
            let arn = balancer(cloud, index);
            let stack = Stack {
                ip_address_type: dual.map(|dual| kind(dual).to_owned()),
                source_nat,
                ..Stack::default()
            };
            cloud.set_subnets(at, &arn, &zones(bits), stack).map(drop)
        }
        Step::SetIpAddressType(index, dual) => {
            let arn = balancer(cloud, index);
            cloud.set_ip_address_type(&arn, kind(dual)).map(drop)
        }
        Step::CreateTargetGroup(name, udp, six) => {
            let mut create = target_group(&format!("tg{name}"));
            if six {
                create.target_type = Some("ip".into());
                create.ip_address_type = Some("ipv6".into());
            }
            if udp {
                create.protocol = Some("UDP".into());
            }
            cloud.create_target_group(at, create).map(drop)
        }
        Step::DeleteTargetGroup(index) => {
            let arn = group(cloud, index);
            cloud.delete_target_group(at, &arn)
        }
        Step::Register(index, number) => {
            let arn = group(cloud, index);
            cloud.register_targets(at, &arn, &node(number))
        }
        Step::Deregister(index, number) => {
            let arn = group(cloud, index);
            cloud.deregister_targets(at, &arn, &node(number))
        }
        Step::CreateListener(index, port, of) => {
            let (arn, of) = (balancer(cloud, index), group(cloud, of));
            let udp = (cloud.target_groups.get(&of)).is_some_and(|it| it.protocol == "UDP");
            let mut change = listener(port, &of);
            if udp {
                change.protocol = Some("UDP".into());
            }
            cloud
                .create_listener(at, &arn, change, Tags::new())
                .map(drop)
        }
        Step::ModifyListener(index, of) => {
            let (arn, of) = (listener_at(cloud, index), group(cloud, of));
            let change = ListenerChange {
                forward: Some(vec![(of, None)]),
                ..ListenerChange::default()
            };
            cloud.modify_listener(at, &arn, change).map(drop)
        }
        Step::Secure(index, certificate) => {
            let arn = listener_at(cloud, index);
            let protocol = if certificate.is_some() { "TLS" } else { "TCP" };
            let change = ListenerChange {
                protocol: Some(protocol.into()),
                certificate: certificate.map(certificate_of),
                ssl_policy: certificate.map(|_| "ELBSecurityPolicy-X".into()),
                ..ListenerChange::default()
            };
            cloud.modify_listener(at, &arn, change).map(drop)
        }
        Step::Certificate(index, certificate, add) => {
            let (arn, some) = (listener_at(cloud, index), [certificate_of(certificate)]);
            if add {
                cloud.add_listener_certificates(&arn, &some).map(drop)
            } else {
                cloud.remove_listener_certificates(&arn, &some)
            }
        }
        Step::DeleteListener(index) => {
            let arn = listener_at(cloud, index);
            cloud.delete_listener(at, &arn)
        }
        Step::CreateRule(index, priority, six, ref of) => {
            let arn = listener_at(cloud, index);
            let groups = of.iter().map(|it| group(cloud, *it)).collect();
            let change = rule_of(Some(six), Some(groups));
            cloud
                .create_rule(at, &arn, priority, change, Tags::new())
                .map(drop)
        }
        Step::ModifyRule(index, six, of) => {
            let arn = rule_at(cloud, index);
            let change = rule_of(six, of.map(|it| vec![group(cloud, it)]));
            cloud.modify_rule(at, &arn, change).map(drop)
        }
        Step::DeleteRule(index) => {
            let arn = rule_at(cloud, index);
            cloud.delete_rule(at, &arn)
        }
        Step::CreateSecurityGroup(name) => {
            let create = CreateSecurityGroup {
                name: format!("g{name}"),
                description: "x".into(),
                vpc: Some(VPC.into()),
                tags: Tags::new(),
            };
            cloud.create_security_group(at, create).map(drop)
        }
        Step::Authorize(index, of) => {
            let (id, of) = (guard(cloud, index), guard(cloud, of));
            cloud
                .authorize_ingress(&id, vec![(from(of), None)])
                .map(drop)
        }
        Step::Revoke(index, of) => {
            let (id, of) = (guard(cloud, index), guard(cloud, of));
            cloud.revoke_ingress(&id, &[from(of)]).map(drop)
        }
        Step::DeleteSecurityGroup(index) => {
            let id = guard(cloud, index);
            cloud.delete_security_group(at, &id)
        }
        Step::Tag(index, number) => {
            let arns = [balancer(cloud, index), group(cloud, index)];
            cloud.add_tags(&arns, &super::tags(&[("n", &number.to_string())]))
        }
    }
    .is_err()
}

/// What holds at any time.
fn check(cloud: &Cloud, now: Moment) {
    let names: BTreeSet<&str> = cloud
        .load_balancers
        .values()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names.len(),
        cloud.load_balancers.len(),
        "a name has one load balancer"
    );
    let names: BTreeSet<&str> = cloud
        .target_groups
        .values()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names.len(),
        cloud.target_groups.len(),
        "a name has one target group"
    );
    check_groups(cloud, now, &check_listeners(cloud));
    check_interfaces(cloud, now);
}

/// Returns the load balancer of each target group that is used.
fn check_listeners(cloud: &Cloud) -> BTreeMap<&str, &str> {
    let mut ports = BTreeSet::new();
    let mut users: BTreeMap<&str, &str> = BTreeMap::new();
    for listener in cloud.listeners.values() {
        let user = listener.load_balancer.as_str();
        assert!(
            cloud.load_balancers.get(user).is_some(),
            "a listener has its load balancer"
        );
        assert!(
            ports.insert((user, listener.port)),
            "a port has one listener"
        );
        let listed = listener.certificates.len();
        assert!(listed <= cloud.settings.quotas.certificates);
        let tls = listener.protocol == "TLS";
        assert_eq!(listener.certificate.is_some(), tls, "TLS has a certificate");
        assert!(tls || listed == 0, "certificates are of TLS");
        let balancer = cloud.load_balancers.get(user).unwrap();
        let dual = balancer.ip_address_type == "dualstack";
        assert!(
            listener.protocol != "UDP" || !dual || balancer.source_nat,
            "UDP on dual stack has source NAT"
        );
        let rules = (cloud.rules.values()).filter(|it| it.listener == listener.arn);
        let rules: Vec<_> = rules.collect();
        assert!(rules.is_empty() || dual, "rules have dual stack");
        let priorities: BTreeSet<u32> = rules.iter().map(|it| it.priority).collect();
        assert_eq!(priorities.len(), rules.len(), "a priority has one rule");
        let actions = rules.iter().map(|it| &it.forward);
        for (group, _) in actions.chain([&listener.forward]).flatten() {
            let there = cloud.target_groups.get(group).expect("what is used exists");
            assert!(
                dual || there.ip_address_type == "ipv4",
                "IPv6 has dual stack"
            );
            let udp = there.protocol == "UDP";
            assert_eq!(udp, listener.protocol == "UDP", "protocols go together");
            let first = users.entry(group).or_insert(user);
            assert_eq!(*first, user, "a target group has one load balancer");
        }
    }
    for rule in cloud.rules.values() {
        assert!(
            cloud.listeners.get(&rule.listener).is_some(),
            "a rule has its listener"
        );
    }
    users
}

fn check_groups(cloud: &Cloud, now: Moment, users: &BTreeMap<&str, &str>) {
    for group in cloud.target_groups.values() {
        let used = users.contains_key(group.arn.as_str());
        assert_eq!(
            group.used.is_some(),
            used,
            "a group knows whether it is used"
        );
        let drains = group.targets.values().filter(|it| it.drains.is_some());
        assert!(used || drains.count() == 0, "what is unused does not drain");
        cloud.describe_target_health(now, &group.arn, &[]).unwrap();
    }
}

fn check_interfaces(cloud: &Cloud, now: Moment) {
    for one in cloud.load_balancers.values() {
        assert!(!one.zones.is_empty(), "a load balancer has a zone");
        let live = (cloud.interfaces.values())
            .filter(|it| it.load_balancer == one.arn && it.gone.is_none());
        let subnets: BTreeSet<&str> = live.map(|it| it.subnet.as_str()).collect();
        let zones = one.zones.values().map(|it| it.subnet.as_str());
        assert_eq!(subnets, zones.collect(), "each zone has its interface");
        let dual = one.ip_address_type == "dualstack";
        assert!(dual || !one.source_nat, "source NAT has dual stack");
        let mut live = (cloud.interfaces.values())
            .filter(|it| it.load_balancer == one.arn && it.gone.is_none());
        assert!(
            live.all(|it| it.ipv6.is_some() == dual),
            "interfaces have the families of their load balancer"
        );
        let prefixes = one.ipv6.values().filter(|it| it.prefix.is_some()).count();
        let wanted = if one.source_nat { one.zones.len() } else { 0 };
        assert_eq!(prefixes, wanted, "source NAT has prefixes");
    }
    let addresses: BTreeSet<_> = cloud.interfaces.values().map(|it| it.address).collect();
    assert_eq!(
        addresses.len(),
        cloud.interfaces.len(),
        "an address has one interface"
    );
    let ipv6 = cloud.interfaces.values().filter_map(|it| it.ipv6);
    let distinct: BTreeSet<_> = ipv6.clone().collect();
    assert_eq!(distinct.len(), ipv6.count(), "also one of IPv6");
    for interface in cloud.interfaces.values() {
        assert!(
            interface.gone.is_none_or(|gone| gone > now),
            "interfaces go in time"
        );
        for id in &interface.groups {
            assert!(
                cloud.security_groups.get(id).is_some(),
                "groups in use exist"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_refused_call_changes_nothing(steps in prop::collection::vec(step(), 1..60)) {
        let mut cloud = dualstack();
        cloud.certificates.extend((0..3).map(certificate_of));
        cloud.settings.quotas.certificates = 2;
        let mut now = START;
        for step in &steps {
            cloud.tick(now);
            let before = cloud.snapshot();
            if make(&mut cloud, &mut now, step) {
                prop_assert_eq!(&before, &cloud.snapshot(), "{:?}", step);
            }
            check(&cloud, now);
        }
    }
}
