//! TLS and certificates.

use super::*;

type Settings = &'static [(&'static str, &'static str)];
/// What changes: settings before and after it, and its calls.
type Row = (&'static str, Settings, Settings, &'static [&'static str]);

const A: (&str, &str) = ("ssl-cert", "arn:aws:acm:r:1:certificate/a");
const B: (&str, &str) = ("ssl-cert", "arn:aws:acm:r:1:certificate/b");
const C: (&str, &str) = ("ssl-cert", "arn:aws:acm:r:1:certificate/c");
const AB: (&str, &str) = (
    "ssl-cert",
    "arn:aws:acm:r:1:certificate/a,arn:aws:acm:r:1:certificate/b",
);
const BA: (&str, &str) = (
    "ssl-cert",
    "arn:aws:acm:r:1:certificate/b,arn:aws:acm:r:1:certificate/a",
);
const AC: (&str, &str) = (
    "ssl-cert",
    "arn:aws:acm:r:1:certificate/a,arn:aws:acm:r:1:certificate/c",
);

const STICKY: (&str, &str) = ("target-group-attributes", "stickiness.enabled=true");
const IDLE: (&str, &str) = ("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=600");

const CHANGES: &[Row] = &[
    (
        "an attribute of the listener",
        &[],
        &[IDLE],
        &["RemoveTags", "ModifyListenerAttributes", "AddTags"],
    ),
    (
        "AWS's default again",
        &[IDLE],
        &[],
        &["RemoveTags", "ModifyListenerAttributes", "AddTags"],
    ),
    (
        "no rules for AWS PrivateLink",
        &[],
        &[("inbound-sg-rules-on-private-link-traffic", "off")],
        &["RemoveTags", "SetSecurityGroups", "AddTags"],
    ),
    (
        "TLS has no attributes",
        &[IDLE],
        &[A],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "TCP begins with AWS's defaults",
        &[A],
        &[IDLE],
        &[
            "RemoveTags",
            "ModifyListener",
            "ModifyListenerAttributes",
            "AddTags",
        ],
    ),
    (
        "TLS",
        &[],
        &[A],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "TLS for two hosts",
        &[],
        &[AB],
        &[
            "RemoveTags",
            "ModifyListener",
            "AddListenerCertificates",
            "AddTags",
        ],
    ),
    (
        "TCP again",
        &[AB],
        &[],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "sticky connections end before TLS",
        &[STICKY],
        &[STICKY, A],
        &[
            "RemoveTags",
            "ModifyTargetGroupAttributes",
            "ModifyListener",
            "AddTags",
        ],
    ),
    (
        "sticky connections after TLS",
        &[STICKY, A],
        &[STICKY],
        &[
            "RemoveTags",
            "ModifyListener",
            "ModifyTargetGroupAttributes",
            "AddTags",
        ],
    ),
    (
        "another default certificate",
        &[A],
        &[B],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "two certificates change places",
        &[AB],
        &[BA],
        &[
            "RemoveTags",
            "AddListenerCertificates",
            "ModifyListener",
            "AddTags",
        ],
    ),
    (
        "a certificate less",
        &[AB],
        &[A],
        &["RemoveTags", "RemoveListenerCertificates", "AddTags"],
    ),
    (
        "the second certificate alone",
        &[AB],
        &[B],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "another certificate alone",
        &[AB],
        &[C],
        &[
            "RemoveTags",
            "ModifyListener",
            "RemoveListenerCertificates",
            "AddTags",
        ],
    ),
    (
        "another second certificate",
        &[AB],
        &[AC],
        &[
            "RemoveTags",
            "AddListenerCertificates",
            "RemoveListenerCertificates",
            "AddTags",
        ],
    ),
    (
        "another policy",
        &[A],
        &[A, ("ssl-negotiation-policy", "ELBSecurityPolicy-2016-08")],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "another ALPN policy",
        &[A],
        &[A, ("alpn-policy", "HTTP2Only")],
        &["RemoveTags", "ModifyListener", "AddTags"],
    ),
    (
        "TLS to the targets",
        &[A],
        &[A, ("backend-protocol", "ssl")],
        &[
            "CreateTargetGroup",
            "RegisterTargets",
            "ModifyListener",
            "AddTags",
            "DeleteTargetGroup",
        ],
    ),
    (
        "TCP to the listener and the targets",
        &[A, ("backend-protocol", "ssl")],
        &[],
        &[
            "CreateTargetGroup",
            "RegisterTargets",
            "ModifyListener",
            "AddTags",
            "DeleteTargetGroup",
        ],
    ),
];

#[test]
fn each_change_takes_few_calls() {
    for (what, before, after, expected) in CHANGES {
        let (mut cloud, before) = applied(before);
        let after = desired(&service(&[WEB]), after);
        assert_eq!(cloud.apply(&after, &with(2)), *expected, "{what}");
        for (wanted, way) in [(&after, ""), (&before, "back from ")] {
            cloud.apply(wanted, &with(2));
            let rest = plan(wanted, &with(2), &cloud.now);
            assert_eq!(rest, Plan::default(), "{way}{what}");
            assert!(is_finished(wanted, &cloud.now), "{way}{what}");
        }
    }
}

#[test]
fn a_new_listener_gets_all_its_certificates() {
    let mut cloud = Cloud::default();
    let ports = [WEB, (Protocol::Tcp, 443, 30_443)];
    let wanted = desired(&service(&ports), &[AB, ("ssl-ports", "443")]);
    let calls = cloud.apply(&wanted, &with(2));
    let listeners: Vec<_> = (calls.iter())
        .filter(|call| call.contains("Listener"))
        .collect();
    assert_eq!(
        listeners,
        [
            &"CreateListener",
            &"CreateListener",
            &"AddListenerCertificates"
        ]
    );
    for one in cloud.now.load_balancers.values() {
        let has = |port: u16| {
            (
                one.listeners[&port].tls.is_some(),
                one.listeners[&port].sni.len(),
            )
        };
        assert_eq!((has(80), has(443)), ((false, 0), (true, 1)));
    }
    assert_eq!(plan(&wanted, &with(2), &cloud.now), Plan::default());
}

/// Somebody else's changes are taken back. A default certificate that is in the list, too, is none.
#[test]
fn drift_is_repaired() {
    type Edit = (
        &'static str,
        fn(&mut crate::observed::ObservedListener),
        &'static [&'static str],
    );
    let edits: [Edit; 5] = [
        (
            "a certificate removed",
            |it| it.sni.clear(),
            &["AddListenerCertificates"],
        ),
        (
            "a certificate added",
            |it| {
                it.sni.insert(C.1.into());
            },
            &["RemoveListenerCertificates"],
        ),
        (
            "the default one added",
            |it| {
                it.sni.insert(A.1.into());
            },
            &[],
        ),
        (
            "another policy",
            |it| it.tls.as_mut().unwrap().policy.push('x'),
            &["ModifyListener"],
        ),
        (
            "TCP",
            |it| {
                it.tls = None;
                it.sni.clear();
            },
            &["ModifyListener", "AddListenerCertificates"],
        ),
    ];
    for (what, edit, expected) in edits {
        let (mut cloud, wanted) = applied(&[AB]);
        for one in cloud.now.load_balancers.values_mut() {
            one.listeners.values_mut().for_each(edit);
        }
        let mut calls = cloud.apply(&wanted, &with(2));
        calls.retain(|call| call.contains("Listener"));
        assert_eq!(calls, expected, "{what}");
        assert_eq!(
            plan(&wanted, &with(2), &cloud.now),
            Plan::default(),
            "{what}"
        );
    }
}

/// However many there are: whoever makes the calls finds out if AWS has no room for both.
#[test]
fn new_certificates_come_before_old_ones_go() {
    let list = |letter: &str, number: usize| {
        let all = (0..number).map(|at| format!("arn:aws:acm:r:1:certificate/{letter}{at}"));
        all.collect::<Vec<_>>().join(",")
    };
    // The default one is not in the list.
    for number in [2, 26] {
        let mut cloud = Cloud::default();
        let of = |letter| desired(&service(&[WEB]), &[("ssl-cert", &list(letter, number))]);
        cloud.apply(&of("a"), &with(2));
        let after = of("b");
        let calls = cloud.apply(&after, &with(2));
        assert_eq!(calls[1], "AddListenerCertificates", "{number}: {calls:?}");
        let end = calls[calls.len() - 2];
        assert_eq!(end, "RemoveListenerCertificates", "{number}: {calls:?}");
        assert_eq!(calls.len(), 2 * (number - 1) + 3, "{calls:?}");
        assert_eq!(plan(&after, &with(2), &cloud.now), Plan::default());
    }
}
