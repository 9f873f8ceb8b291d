//! Load balancers, listeners, target groups, targets and tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_aws::call::{Call, Ref};
use ballast_aws::client::Cause;
use ballast_aws::client::values::{Filter, Health, LoadBalancer};
use ballast_aws::desired::{Check, Subnet, Tls, Transport};
use ballast_aws::forward::Forward;
use ballast_aws::observed::{LoadBalancerState, Reservation};
use ballast_aws::settings::Scheme;
use ballast_aws::settings::tls::{Alpn, POLICY};
use ballast_aws::target::TargetType;
use ballast_aws_fake::Config;
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};

use crate::bed::{
    Bed, bed_with_a_load_balancer, http_check, listener, load_balancer, made, manner,
    security_group, subnet, tags, target_group, targets, tcp_check,
};

const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";
const PROTECTION: &str = "deletion_protection.enabled";

/// The load balancer as AWS describes it.
async fn described(bed: &Bed) -> LoadBalancer {
    let arns = [bed.id("balancer")];
    let found = bed.client.load_balancers(&arns, manner()).await.unwrap();
    found.first().cloned().unwrap()
}

async fn set(bed: &Bed, key: &str, value: &str) {
    let call = Call::ModifyLoadBalancerAttributes {
        load_balancer: made("balancer"),
        attributes: tags(&[(key, value)]),
    };
    bed.call(&call).await.unwrap();
}

#[tokio::test]
async fn a_load_balancer_is_made_and_changed() {
    let bed = bed_with_a_load_balancer().await;
    let balancer = bed.id("balancer");
    let found = described(&bed).await;
    assert_eq!(found.state, LoadBalancerState::Provisioning);
    assert_eq!((found.name.as_str(), found.vpc.as_str()), ("front", VPC));
    assert!(found.network);
    assert_eq!(found.scheme, Scheme::Internal);
    assert!(!found.hostname.is_empty());
    let zones: Vec<_> = found.zones.values().map(|zone| &zone.subnet).collect();
    let both = [subnet("subnet-private-a"), subnet("subnet-private-b")];
    assert_eq!(zones, both.iter().collect::<Vec<_>>());
    assert_eq!(found.security_groups, BTreeSet::from([bed.id("group")]));
    bed.fake.advance(Duration::from_mins(3));
    assert_eq!(described(&bed).await.state, LoadBalancerState::Active);

    // The same again is the same load balancer; another one of the name is not.
    let again = bed.call(&load_balancer("front", both.to_vec())).await;
    let again = again.unwrap();
    assert_eq!(again.id.as_deref(), Some(balancer.as_str()));
    assert_eq!(again.hostname.as_deref(), Some(found.hostname.as_str()));
    assert_eq!(again.state, Some(LoadBalancerState::Active));
    let one = vec![subnet("subnet-private-a")];
    let (code, cause) = bed.refused(&load_balancer("front", one)).await;
    assert_eq!(code, "DuplicateLoadBalancerName");
    assert_eq!(cause, Cause::Duplicate);

    let three = ["a", "b", "c"].map(|zone| subnet(&format!("subnet-private-{zone}")));
    bed.call(&Call::SetSubnets {
        load_balancer: made("balancer"),
        addresses: None,
        subnets: three.to_vec(),
    })
    .await
    .unwrap();
    bed.call(&Call::SetSecurityGroups {
        load_balancer: made("balancer"),
        security_groups: vec![made("group"), Ref::Known(NODE_GROUP.into())],
        private_link_rules: false,
    })
    .await
    .unwrap();
    let found = described(&bed).await;
    assert!(!found.private_link_rules);
    assert_eq!(found.zones.len(), 3);
    assert_eq!(found.security_groups.len(), 2);
    set(&bed, CROSS_ZONE, "true").await;
    let attributes = bed.client.load_balancer_attributes(&balancer, manner());
    assert_eq!(attributes.await.unwrap()[CROSS_ZONE], "true");
}

#[tokio::test]
async fn capacity_is_reserved_and_cancelled() {
    let bed = bed_with_a_load_balancer().await;
    let balancer = bed.id("balancer");
    let modify = |units| Call::ModifyCapacityReservation {
        load_balancer: made("balancer"),
        units,
    };
    let read = || bed.client.capacity_reservation(&balancer, manner());
    assert_eq!(
        bed.refused(&modify(Some(5_500))).await,
        ("PriorRequestNotComplete".to_owned(), Cause::InUse)
    );
    assert_eq!(read().await.unwrap(), None);
    bed.fake.advance(Duration::from_mins(3));
    bed.call(&modify(Some(5_500))).await.unwrap();
    let reserved = |failed: Option<&str>| {
        Some(Reservation {
            units: 5_500,
            failed: failed.map(str::to_owned),
        })
    };
    assert_eq!(read().await.unwrap(), reserved(None));
    assert_eq!(
        bed.refused(&modify(None)).await,
        ("CapacityReservationPending".to_owned(), Cause::InUse)
    );
    bed.fake.edit(|cloud, _| {
        let there = cloud.load_balancers.get_mut(&balancer).unwrap();
        there.capacity.as_mut().unwrap().trouble = Some("Too little".into());
    });
    let failed = reserved(Some("eu-central-1a: Too little"));
    assert_eq!(read().await.unwrap(), failed);
    bed.call(&modify(None)).await.unwrap();
    assert_eq!(read().await.unwrap(), None);
}

#[tokio::test]
async fn listeners_of_a_load_balancer() {
    let mut bed = bed_with_a_load_balancer().await;
    bed.make("dns", &target_group("dns", Transport::TcpUdp, tcp_check()))
        .await;
    bed.make("second", &listener(53, Transport::TcpUdp, "dns"))
        .await;
    bed.make("other", &target_group("other", Transport::Tcp, tcp_check()))
        .await;
    let (code, cause) = bed.refused(&listener(80, Transport::Tcp, "other")).await;
    assert_eq!(code, "DuplicateListener");
    assert_eq!(cause, Cause::Duplicate);
    let read = async |bed: &Bed| {
        let balancer = bed.id("balancer");
        let found = bed.client.listeners(&balancer, manner()).await.unwrap();
        let all = found.into_iter();
        let all = all.map(|one| (one.port, (one.transport, one.forward)));
        all.collect::<BTreeMap<_, _>>()
    };
    let web = (Some(Transport::Tcp), Some(Forward::to(bed.id("web"))));
    let dns = (Some(Transport::TcpUdp), Some(Forward::to(bed.id("dns"))));
    assert_eq!(read(&bed).await, BTreeMap::from([(80, web), (53, dns)]));
    bed.call(&Call::ModifyListener {
        listener: bed.id("listener"),
        protocol: None,
        forward: Some(Forward::to(made("other"))),
        service: None,
    })
    .await
    .unwrap();
    bed.call(&Call::DeleteListener {
        listener: bed.id("second"),
    })
    .await
    .unwrap();
    let other = (Some(Transport::Tcp), Some(Forward::to(bed.id("other"))));
    assert_eq!(read(&bed).await, BTreeMap::from([(80, other)]));
}

/// TLS is a protocol with settings of its own, and a list of certificates.
#[tokio::test]
async fn a_listener_ends_tls() {
    let bed = bed_with_a_load_balancer().await;
    let issue = |id: &str| bed.fake.edit(|cloud, _| cloud.issue_certificate(id));
    let (one, two, three) = (issue("one"), issue("two"), issue("three"));
    let listener = bed.id("listener");
    let read = async || {
        let balancer = bed.id("balancer");
        let found = bed.client.listeners(&balancer, manner()).await.unwrap();
        let [only] = &found[..] else {
            panic!("{found:?}");
        };
        (only.transport, only.tls.clone())
    };
    let modify = |protocol: (Transport, Option<Tls>)| Call::ModifyListener {
        listener: listener.clone(),
        protocol: Some(protocol),
        forward: None,
        service: None,
    };
    let tls = |certificate: &str, alpn| Tls {
        certificate: certificate.to_owned(),
        policy: POLICY.into(),
        alpn,
    };
    for alpn in [Alpn::Http2Preferred, Alpn::None] {
        let wanted = tls(&one, alpn);
        let change = modify((Transport::Tcp, Some(wanted.clone())));
        bed.call(&change).await.unwrap();
        assert_eq!(read().await, (Some(Transport::Tcp), Some(wanted)));
    }
    let unknown = modify((Transport::Tcp, Some(tls("arn:aws:acm:x", Alpn::None))));
    let (code, cause) = bed.refused(&unknown).await;
    assert_eq!(
        (code.as_str(), cause),
        ("CertificateNotFound", Cause::NotFound)
    );

    let add = |certificate: &str| Call::AddListenerCertificates {
        listener: Ref::Known(listener.clone()),
        certificate: certificate.into(),
    };
    let remove = |certificate: &str| Call::RemoveListenerCertificates {
        listener: Ref::Known(listener.clone()),
        certificate: certificate.into(),
    };
    let listed = async || {
        let found = bed.client.listener_certificates(&listener, manner()).await;
        found.unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(listed().await, Vec::<String>::new(), "without the default");
    bed.call(&add(&two)).await.unwrap();
    bed.call(&add(&three)).await.unwrap();
    assert_eq!(listed().await, [three.clone(), two.clone()]);
    bed.call(&remove(&three)).await.unwrap();
    assert_eq!(listed().await, [two]);
    let (code, _) = bed.refused(&remove(&three)).await;
    assert_eq!(code, "CertificateNotFound");
    let (code, cause) = bed.refused(&remove(&one)).await;
    assert_eq!(
        (code.as_str(), cause),
        ("OperationNotPermitted", Cause::Protected)
    );
    bed.call(&modify((Transport::Tcp, None))).await.unwrap();
    assert_eq!(read().await, (Some(Transport::Tcp), None));
}

#[tokio::test]
async fn a_load_balancer_is_deleted_and_its_interfaces_linger() {
    let bed = bed_with_a_load_balancer().await;
    let balancer = bed.id("balancer");
    let delete = Call::DeleteLoadBalancer {
        load_balancer: balancer.clone(),
    };
    set(&bed, PROTECTION, "true").await;
    let (code, cause) = bed.refused(&delete).await;
    assert_eq!(code, "OperationNotPermitted");
    assert_eq!(cause, Cause::Protected);
    set(&bed, PROTECTION, "false").await;
    bed.call(&delete).await.unwrap();
    bed.call(&delete).await.unwrap();
    let found = bed.client.load_balancers(&[balancer], manner()).await;
    assert_eq!(found, Ok(Vec::new()));
    let group = Call::DeleteSecurityGroup {
        security_group: bed.id("group"),
    };
    let (code, cause) = bed.refused(&group).await;
    assert_eq!(
        (code.as_str(), cause),
        ("DependencyViolation", Cause::InUse)
    );
    bed.fake.advance(Duration::from_mins(5));
    bed.call(&group).await.unwrap();
}

#[tokio::test]
async fn target_groups_and_their_targets() {
    let bed = bed_with_a_load_balancer().await;
    let web = bed.id("web");
    let read = async || {
        let names = ["web".to_owned()];
        let found = bed
            .client
            .target_groups_named(&names, manner())
            .await
            .unwrap();
        found.first().cloned().unwrap()
    };
    let found = read().await;
    assert_eq!((found.name.as_str(), found.port), ("web", Some(30_080)));
    assert_eq!(found.transport, Some(Transport::Tcp));
    assert_eq!(found.target_type, Some(TargetType::Instance));
    assert_eq!(found.vpc.as_deref(), Some(VPC));
    assert_eq!(found.check, Some(http_check()), "as it was created");
    assert_eq!(found.load_balancers, BTreeSet::from([bed.id("balancer")]));
    let check = Check {
        path: Some("/ready".into()),
        success_codes: Some("200-299".into()),
        interval: 15,
        timeout: 7,
        healthy_threshold: 4,
        unhealthy_threshold: 5,
        ..http_check()
    };
    bed.call(&Call::ModifyTargetGroup {
        target_group: made("web"),
        check: check.clone(),
    })
    .await
    .unwrap();
    assert_eq!(read().await.check, Some(check));
    bed.call(&Call::ModifyTargetGroupAttributes {
        target_group: made("web"),
        attributes: tags(&[("proxy_protocol_v2.enabled", "true")]),
    })
    .await
    .unwrap();
    let attributes = bed.client.target_group_attributes(&web, manner());
    assert_eq!(
        attributes.await.unwrap()["proxy_protocol_v2.enabled"],
        "true"
    );

    let register = |ids: &[&str]| Call::RegisterTargets {
        target_group: made("web"),
        targets: targets(ids),
    };
    bed.call(&register(&["i-00000001", "i-00000002"]))
        .await
        .unwrap();
    let (code, cause) = bed.refused(&register(&["i-0none"])).await;
    assert_eq!((code.as_str(), cause), ("InvalidTarget", Cause::Invalid));
    let health = async || {
        let all = bed.client.target_health(&web, manner()).await.unwrap();
        let all = all.into_iter().map(|one| (one.target.id(), one.health));
        all.collect::<BTreeMap<_, _>>()
    };
    let first = health().await;
    assert_eq!(first.len(), 2);
    assert!(
        first.values().all(|health| *health == Health::Initial),
        "{first:?}"
    );
    bed.fake.advance(Duration::from_mins(10));
    assert_eq!(health().await["i-00000001"], Health::Healthy);
    bed.call(&Call::DeregisterTargets {
        target_group: made("web"),
        targets: targets(&["i-00000002"]),
    })
    .await
    .unwrap();
    assert_eq!(health().await["i-00000002"], Health::Draining);
    let delete = Call::DeleteTargetGroup { target_group: web };
    let (code, cause) = bed.refused(&delete).await;
    assert_eq!((code.as_str(), cause), ("ResourceInUse", Cause::InUse));
    bed.call(&Call::DeleteListener {
        listener: bed.id("listener"),
    })
    .await
    .unwrap();
    bed.call(&delete).await.unwrap();
}

#[tokio::test]
async fn tags_of_everything_at_once() {
    let bed = bed_with_a_load_balancer().await;
    let arns = ["balancer", "listener", "web"].map(|name| bed.id(name));
    let of: Vec<Ref> = arns.iter().cloned().map(Ref::Known).collect();
    let read = async || bed.client.tags(&arns, manner()).await.unwrap();
    for arn in &arns {
        assert_eq!(
            read().await[arn],
            tags(&[("owner", "test")]),
            "from creation on"
        );
    }
    // Objects of both services in one call of the plan.
    let mut both = of.clone();
    both.push(made("group"));
    let applied = tags(&[("ballast.dev/applied", "0123")]);
    bed.call(&Call::AddTags {
        of: both.clone(),
        tags: applied.clone(),
    })
    .await
    .unwrap();
    for (arn, found) in read().await {
        assert_eq!(found.len(), 2, "{arn}");
    }
    let filter = [Filter::tag("ballast.dev/applied", ["0123"])];
    let groups = bed.client.security_groups(&filter, manner()).await.unwrap();
    assert_eq!(groups.len(), 1);
    bed.call(&Call::RemoveTags {
        of: both,
        keys: applied.into_keys().collect(),
    })
    .await
    .unwrap();
    assert!(read().await.values().all(|found| found.len() == 1));
    // What is gone is left out, and does not hide the rest.
    let gone = format!("{}0", arns[0]);
    let some = [gone, arns[0].clone(), arns[2].clone()];
    let found = bed.client.tags(&some, manner()).await.unwrap();
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn addresses_are_asked_for_subnet_by_subnet() {
    let mut bed = Bed::new(Config::default()).await;
    bed.make("group", &security_group("clients")).await;
    let address = "10.0.100.77".parse().ok();
    let at = Subnet {
        private_address: address,
        ..subnet("subnet-private-a")
    };
    bed.make("balancer", &load_balancer("fixed", vec![at.clone()]))
        .await;
    let found = bed
        .client
        .load_balancers(&[bed.id("balancer")], manner())
        .await;
    let found = found.unwrap();
    let zone = &found[0].zones["eu-central-1a"];
    assert_eq!(zone.subnet, at);
    assert!(zone.addresses.contains(&address.unwrap()));
}
