use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::desired::{Addresses, Check, Subnet, TargetGroup, Transport};
use crate::nodes::Selector;
use crate::settings::{CheckProtocol, Scheme};

fn check() -> Check {
    Check {
        protocol: CheckProtocol::Tcp,
        port: None,
        path: None,
        success_codes: None,
        interval: 10,
        timeout: 6,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
    }
}

/// One of each.
#[expect(clippy::too_many_lines, reason = "one value for each call")]
fn calls() -> Vec<Call> {
    let it = || Ref::Known("arn:1".into());
    let tags = BTreeMap::new;
    vec![
        Call::CreateSecurityGroup {
            name: String::new(),
            tags: tags(),
        },
        Call::AuthorizeSecurityGroupIngress {
            security_group: it(),
            rules: BTreeSet::new(),
        },
        Call::RevokeSecurityGroupIngress {
            security_group: it(),
            rules: BTreeSet::new(),
        },
        Call::DeleteSecurityGroup {
            security_group: String::new(),
        },
        Call::CreateTargetGroup {
            target_group: TargetGroup {
                name: String::new(),
                target_type: crate::target::TargetType::Instance,
                family: ballast_provider::Family::V4,
                transport: Transport::Tcp,
                tls: false,
                port: 1,
                check: check(),
                attributes: tags(),
                selector: Selector::default(),
                tags: tags(),
            },
            tags: tags(),
        },
        Call::ModifyTargetGroup {
            target_group: it(),
            check: check(),
        },
        Call::ModifyTargetGroupAttributes {
            target_group: it(),
            attributes: tags(),
        },
        Call::DeleteTargetGroup {
            target_group: String::new(),
        },
        Call::RegisterTargets {
            target_group: it(),
            targets: Vec::new(),
        },
        Call::DeregisterTargets {
            target_group: it(),
            targets: Vec::new(),
        },
        Call::CreateLoadBalancer {
            name: String::new(),
            scheme: Scheme::Internal,
            addresses: Addresses::Ipv4,
            subnets: Vec::<Subnet>::new(),
            security_groups: Vec::new(),
            tags: tags(),
        },
        Call::ModifyLoadBalancerAttributes {
            load_balancer: it(),
            attributes: tags(),
        },
        Call::ModifyCapacityReservation {
            load_balancer: it(),
            units: None,
        },
        Call::SetSubnets {
            load_balancer: it(),
            addresses: None,
            subnets: Vec::new(),
        },
        Call::SetSecurityGroups {
            load_balancer: it(),
            security_groups: Vec::new(),
            private_link_rules: true,
        },
        Call::DeleteLoadBalancer {
            load_balancer: String::new(),
        },
        Call::CreateListener {
            name: String::new(),
            load_balancer: it(),
            port: 1,
            transport: Transport::Tcp,
            tls: None,
            forward: Forward::to(it()),
            tags: tags(),
        },
        Call::ModifyListener {
            listener: String::new(),
            protocol: None,
            forward: None,
            service: None,
        },
        Call::ModifyListenerAttributes {
            listener: it(),
            attributes: tags(),
        },
        Call::AddListenerCertificates {
            listener: it(),
            certificate: String::new(),
        },
        Call::RemoveListenerCertificates {
            listener: it(),
            certificate: String::new(),
        },
        Call::DeleteListener {
            listener: String::new(),
        },
        Call::CreateRule {
            listener: it(),
            forward: Forward::to(it()),
            tags: tags(),
        },
        Call::ModifyRule {
            rule: String::new(),
            forward: Forward::to(it()),
        },
        Call::DeleteRule {
            rule: String::new(),
        },
        Call::AddTags {
            of: vec![it()],
            tags: tags(),
        },
        Call::RemoveTags {
            of: vec![it()],
            keys: Vec::new(),
        },
    ]
}

/// Every action that writes belongs to a call of the planner. The two for tags of EC2's objects
/// are made for [`Call::AddTags`] and [`Call::RemoveTags`].
#[test]
fn each_call_has_its_action_and_each_action_its_call() {
    let mut used = BTreeSet::from([Action::CreateTags, Action::DeleteTags]);
    for call in calls() {
        assert_eq!(action(&call).name(), call.action());
        used.insert(action(&call));
    }
    let writes: BTreeSet<_> = (Action::ALL.iter().copied())
        .filter(|action| action.writes())
        .collect();
    assert_eq!(used, writes);
}

#[test]
fn objects_belong_to_a_service_by_the_form_of_their_names() {
    let ids = ["arn:aws:x", "sg-1", "arn:aws-cn:y"].map(str::to_owned);
    let (arns, others) = by_service(ids.to_vec());
    assert_eq!(
        (arns.len(), others.as_slice()),
        (2, &["sg-1".to_owned()][..])
    );
}
