//! Listeners that end TLS, and their certificates.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws::settings::tls::POLICY;
use ballast_aws_fake::Config;
use ballast_aws_fake::state::listeners::Listener;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{Balancer, Cause, LoadBalancer, Member, Placement, Provider, Reason};

use crate::bed::{Bed, certificate, delete, essence, service, settle, with};

/// A Service with one port and these certificates.
pub(crate) fn secure(certificates: &[&str]) -> LoadBalancer {
    let all: Vec<String> = certificates.iter().map(|id| certificate(id)).collect();
    with(service("web", &[(443, 30_443)]), "ssl-cert", &all.join(","))
}

/// The only listener.
fn listener(bed: &Bed) -> Listener {
    let all = bed.fake.snapshot().listeners;
    let [one] = &all.into_values().collect::<Vec<_>>()[..] else {
        panic!("one listener");
    };
    one.clone()
}

/// Its protocol, and its certificates by the last part of their ARNs, the default one first.
fn essentials(bed: &Bed) -> (String, Vec<String>) {
    let one = listener(bed);
    let all = one.certificate.iter().chain(&one.certificates);
    let names = all.map(|arn| arn.rsplit('/').next().unwrap().to_owned());
    (one.protocol.clone(), names.collect())
}

fn is(protocol: &str, certificates: &[&str]) -> (String, Vec<String>) {
    let names = certificates.iter().map(|id| (*id).to_owned());
    (protocol.to_owned(), names.collect())
}

/// The calls to listeners.
fn of_listeners(calls: &[String]) -> Vec<&str> {
    let all = calls.iter().map(String::as_str);
    all.filter(|call| call.contains("Listener")).collect()
}

#[tokio::test]
async fn certificates_from_the_first_to_the_last() {
    let bed = Bed::new().await;
    bed.fake.remember_foreign();
    bed.fake.forget_foreign(NODE_GROUP);
    let provider = bed.start().await.unwrap();
    let wanted = secure(&["one", "two"]);
    let (settled, calls) = bed.calls_of(settle(&provider, &wanted)).await;
    settled.unwrap();
    assert_eq!(
        of_listeners(&calls),
        ["CreateListener", "AddListenerCertificates"]
    );
    assert_eq!(essentials(&bed), is("TLS", &["one", "two"]));
    assert_eq!(listener(&bed).ssl_policy.as_deref(), Some(POLICY));
    // Nothing is left to do, for this process and the next one.
    for process in [&provider, &bed.start().await.unwrap()] {
        let turn = settle(process, &wanted);
        let (settled, calls) = bed.calls_of(turn).await;
        settled.unwrap();
        assert_eq!(calls, Vec::<String>::new());
    }
    let ssl = |service: LoadBalancer| with(service, "backend-protocol", "ssl");
    let alpn = |service: LoadBalancer| with(service, "alpn-policy", "HTTP2Preferred");
    let web = || service("web", &[(443, 30_443)]);
    let table = [
        (
            "another default certificate",
            secure(&["three", "two"]),
            is("TLS", &["three", "two"]),
            &["ModifyListener"][..],
        ),
        (
            "they change places",
            secure(&["two", "three"]),
            // The default one stays in the list.
            is("TLS", &["two", "three", "two"]),
            &["AddListenerCertificates", "ModifyListener"],
        ),
        (
            "another default certificate, and one more",
            secure(&["one", "two", "three"]),
            is("TLS", &["one", "three", "two"]),
            &["ModifyListener"],
        ),
        (
            "one alone",
            secure(&["one"]),
            is("TLS", &["one"]),
            &["RemoveListenerCertificates", "RemoveListenerCertificates"],
        ),
        ("TCP", web(), is("TCP", &[]), &["ModifyListener"]),
        (
            "TLS",
            secure(&["two", "one"]),
            is("TLS", &["two", "one"]),
            &["ModifyListener", "AddListenerCertificates"],
        ),
        (
            "ALPN",
            alpn(secure(&["two", "one"])),
            is("TLS", &["two", "one"]),
            &["ModifyListener"],
        ),
        (
            "TLS to the targets",
            ssl(secure(&["two", "one"])),
            is("TLS", &["two", "one"]),
            &["ModifyListener"],
        ),
        ("TCP again", web(), is("TCP", &[]), &["ModifyListener"]),
    ];
    for (what, wanted, expected, expected_calls) in table {
        let (settled, calls) = bed.calls_of(settle(&provider, &wanted)).await;
        settled.unwrap();
        // Nothing was read: it was known.
        assert_eq!(of_listeners(&calls), expected_calls, "{what}: {calls:?}");
        assert_eq!(essentials(&bed), expected, "{what}");
        let groups = bed.fake.snapshot().target_groups;
        let protocols: BTreeSet<&str> = groups.values().map(|it| it.protocol.as_str()).collect();
        let to_targets = if what == "TLS to the targets" {
            "TLS"
        } else {
            "TCP"
        };
        assert_eq!(protocols, BTreeSet::from([to_targets]), "{what}");
        let alpn = listener(&bed).alpn;
        assert_eq!(alpn.as_deref() == Some("HTTP2Preferred"), what == "ALPN");
        // What a full look reads is what was known.
        bed.fake.advance(Duration::from_mins(10));
        let changes = provider.look().await;
        let drifted = changes.iter().find(|it| it.cause == Cause::Drifted);
        assert_eq!(drifted, None, "{what}");
    }
    assert_eq!(bed.fake.foreign_changes(), Vec::<String>::new());
    delete(&bed, &provider, &web()).await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
}

/// A class reads the list of certificates of TLS listeners, and of no others.
#[tokio::test]
async fn what_somebody_else_changes_is_repaired() {
    type Edit<'a> = (&'static str, Box<dyn Fn(&mut Listener) + 'a>);
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let wanted = with(secure(&["one", "two"]), "alpn-policy", "HTTP2Only");
    settle(&provider, &wanted).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    settle(&provider, &wanted).await.unwrap();
    let before = essence(&bed.fake.snapshot());
    let arn = listener(&bed).arn;
    let (two, three) = (certificate("two"), certificate("three"));
    let edits: [Edit<'_>; 5] = [
        (
            "a certificate removed",
            Box::new(|it| {
                it.certificates.remove(&two);
            }),
        ),
        (
            "a certificate added",
            Box::new(|it| {
                it.certificates.insert(three.clone());
            }),
        ),
        (
            "another default certificate",
            Box::new(|it| it.certificate = Some(three.clone())),
        ),
        (
            "a weak policy",
            Box::new(|it| it.ssl_policy = Some("ELBSecurityPolicy-2016-08".into())),
        ),
        ("no ALPN policy", Box::new(|it| it.alpn = None)),
    ];
    for (what, edit) in edits {
        bed.fake
            .edit(|cloud, _| edit(cloud.listeners.get_mut(&arn).unwrap()));
        assert_ne!(essence(&bed.fake.snapshot()), before, "{what}");
        let changes = provider.look().await;
        let drift = changes.iter().find(|it| it.cause == Cause::Drifted);
        let says = &drift.unwrap().difference;
        assert!(says.ends_with(": listener 443"), "{what}: {says}");
        settle(&provider, &wanted).await.unwrap();
        assert_eq!(essence(&bed.fake.snapshot()), before, "{what}");
    }
    let (_, calls) = bed.calls_of(provider.look()).await;
    let asked = |calls: &[String]| {
        let asked = calls.iter();
        let asked = asked.filter(|call| *call == "DescribeListenerCertificates");
        asked.count()
    };
    assert_eq!(asked(&calls), 1, "{calls:?}");
    let tcp = service("web", &[(443, 30_443)]);
    settle(&provider, &tcp).await.unwrap();
    let (_, calls) = bed.calls_of(provider.look()).await;
    assert_eq!(asked(&calls), 0, "{calls:?}");
}

/// It is gone already when the Service does not want it any more.
#[tokio::test]
async fn a_certificate_that_somebody_else_has_removed_is_removed() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &secure(&["one", "two"])).await.unwrap();
    let arn = listener(&bed).arn;
    let removed = bed
        .fake
        .edit(|cloud, _| cloud.remove_listener_certificates(&arn, &[certificate("two")]));
    removed.unwrap();
    let (settled, calls) = bed.calls_of(settle(&provider, &secure(&["one"]))).await;
    settled.unwrap();
    assert_eq!(of_listeners(&calls), ["RemoveListenerCertificates"]);
    assert_eq!(essentials(&bed), is("TLS", &["one"]));
    let (settled, calls) = bed.calls_of(settle(&provider, &secure(&["one"]))).await;
    settled.unwrap();
    assert_eq!(calls, Vec::<String>::new());
}

/// A certificate or policy that AWS does not have is the author's mistake, and said in AWS's words.
#[tokio::test]
async fn what_aws_does_not_know_is_said() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &secure(&["one"])).await.unwrap();
    for late in [secure(&["late"]), secure(&["one", "late"])] {
        let why = settle(&provider, &late).await.unwrap_err();
        assert_eq!(why.reason(), Reason::Invalid, "{why}");
        for words in ["CertificateNotFound", "certificate/late"] {
            assert!(why.to_string().contains(words), "{why}");
        }
        assert_eq!(essentials(&bed), is("TLS", &["one"]));
    }
    bed.fake.edit(|cloud, _| cloud.issue_certificate("late"));
    bed.fake.advance(Duration::from_mins(10));
    let late = secure(&["one", "late"]);
    settle(&provider, &late).await.unwrap();
    assert_eq!(essentials(&bed), is("TLS", &["one", "late"]));
}

/// AWS limits the lists of all listeners of a load balancer together.
#[tokio::test]
async fn too_many_certificates_are_said_and_others_take_their_place() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let ids = |letter: &str, number: usize| -> Vec<String> {
        (0..number).map(|at| format!("{letter}{at:02}")).collect()
    };
    let of = |letter: &str, number: usize| {
        let ids = ids(letter, number);
        secure(&ids.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for id in ids("a", 27).iter().chain(&ids("b", 26)) {
        bed.fake.edit(|cloud, _| cloud.issue_certificate(id));
    }
    settle(&provider, &of("a", 26)).await.unwrap();
    let why = settle(&provider, &of("a", 27)).await.unwrap_err();
    assert_eq!(why.reason(), Reason::QuotaExceeded, "{why}");
    settle(&provider, &of("b", 26)).await.unwrap();
    let (_, names) = essentials(&bed);
    assert_eq!(names, ids("b", 26));
}

/// Both ports together have no room for the former certificates and the new ones.
#[tokio::test]
async fn certificates_of_two_ports_change_places_with_others() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let two = service("web", &[(443, 30_443), (8_443, 31_443)]);
    let of = |letter: &str| {
        let ids = (0..13).map(|at| format!("{letter}{at:02}"));
        let arns = ids.map(|id| bed.fake.edit(|cloud, _| cloud.issue_certificate(&id)));
        with(two.clone(), "ssl-cert", &arns.collect::<Vec<_>>().join(","))
    };
    for letter in ["a", "b"] {
        settle(&provider, &of(letter)).await.unwrap();
        for one in bed.fake.snapshot().listeners.values() {
            let all = one.certificate.iter().chain(&one.certificates);
            let right = all.filter(|arn| arn.contains(&format!("/{letter}")));
            assert_eq!((right.count(), one.certificates.len()), (13, 12), "{one:?}");
        }
    }
}

/// It is refused before anything is made.
#[tokio::test]
async fn tls_where_aws_has_none_is_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let wrong = with(secure(&["one"]), "ssl-ports", "80");
    let balancer = Balancer {
        key: provider.key(&wrong),
        members: vec![Member {
            load_balancer: wrong,
            published: Vec::new(),
            placement: Placement::default(),
            endpoints: None,
        }],
        kept: BTreeSet::new(),
        deletes_nothing: false,
    };
    let refusal = provider.validate(&balancer).unwrap_err();
    assert_eq!(refusal.reason, Reason::Invalid);
    let words = "aws-load-balancer-ssl-ports: the Service has no port 80";
    assert!(refusal.message.contains(words), "{refusal}");
}

/// A certificate is renewed while AWS has no room for another node: its host keeps the old one.
#[tokio::test]
async fn no_certificate_goes_because_there_is_no_room_for_targets() {
    let mut config = Config::default();
    config.settings.quotas.targets_per_load_balancer = 3;
    let mut bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &secure(&["one", "two"])).await.unwrap();
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    let why = settle(&provider, &secure(&["one", "three"])).await;
    let why = why.unwrap_err().to_string();
    assert!(why.contains("TooManyTargets"), "{why}");
    assert_eq!(essentials(&bed), is("TLS", &["one", "two"]));
    bed.nodes -= 1;
    bed.retarget(&provider).await.unwrap();
    settle(&provider, &secure(&["one", "three"])).await.unwrap();
    assert_eq!(essentials(&bed), is("TLS", &["one", "three"]));
}
