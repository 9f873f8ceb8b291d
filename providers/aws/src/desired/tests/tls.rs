//! TLS: on which ports, and with what.

use super::*;

#[test]
fn names_of_protocols_can_be_read_back() {
    for (transport, tls, name) in [
        (Transport::Tcp, false, "TCP"),
        (Transport::Tcp, true, "TLS"),
        (Transport::Udp, false, "UDP"),
        (Transport::TcpUdp, false, "TCP_UDP"),
    ] {
        assert_eq!(transport.protocol(tls), name);
        assert_eq!(Transport::of_protocol(name), Some((transport, tls)));
    }
    assert_eq!(Transport::of_protocol("QUIC"), None);
}

/// Ports, the value of `ssl-ports`, and the ports with TLS or a part of the message.
type TlsRow<'a> = (
    &'a [(Protocol, u16, u16)],
    Option<&'a str>,
    Result<&'a [u16], &'a str>,
);

#[test]
fn tls_is_on_all_tcp_ports_or_those_that_are_named() {
    use Protocol::{Tcp, Udp};
    let two = [(Tcp, 80, 30_080), (Tcp, 443, 30_443)];
    let dns = [(Tcp, 443, 30_443), (Udp, 53, 30_053)];
    let both = [(Tcp, 443, 30_443), (Udp, 443, 30_443), (Tcp, 80, 30_080)];
    let table: [TlsRow<'_>; 11] = [
        (&two, None, Ok(&[80, 443])),
        (&two, Some("*"), Ok(&[80, 443])),
        (&two, Some("443"), Ok(&[443])),
        (&two, Some("p443"), Ok(&[443])),
        (&two, Some("80, p443"), Ok(&[80, 443])),
        (
            &two,
            Some("81"),
            Err("ssl-ports: the Service has no port 81"),
        ),
        (
            &two,
            Some("https"),
            Err("ssl-ports: the Service has no port \"https\""),
        ),
        (&dns, None, Ok(&[443])),
        (&dns, Some("53"), Err("ssl-ports: port 53 is UDP")),
        (&both, None, Err("port 443 is TCP and UDP")),
        (&both, Some("80"), Ok(&[80])),
    ];
    for (ports, named, expected) in table {
        let mut all = vec![("ssl-cert", CERTIFICATES)];
        all.extend(named.map(|named| ("ssl-ports", named)));
        let service = service(ports);
        let outcome = of(&service, &all);
        let early = check_alone(&service, &settings(&all));
        match (expected, outcome) {
            (Ok(expected), Ok(outcome)) => {
                let listeners = outcome.desired.listeners.iter();
                let tls = listeners.filter(|(_, one)| one.tls.is_some());
                let tls: Vec<u16> = tls.map(|(port, _)| *port).collect();
                assert_eq!((tls.as_slice(), early), (expected, Ok(())), "{all:?}");
            }
            (Err(part), Err(refusal)) => {
                assert!(refusal.message.contains(part), "{refusal}");
                assert_eq!(early, Err(refusal), "before anything is looked up");
            }
            (_, outcome) => panic!("{all:?}: {outcome:?}"),
        }
    }
    let udp = of(
        &service(&[(Udp, 53, 30_053)]),
        &[("ssl-cert", CERTIFICATES)],
    );
    let remarks = udp.expect("accepted").remarks;
    assert!(remarks[0].contains("ssl-cert has no effect"), "{remarks:?}");
}

#[test]
fn the_first_certificate_is_the_default_one() {
    let plain = desired(&service(&[WEB]), &[("ssl-cert", CERTIFICATES)]);
    let listener = &plain.listeners[&80];
    let tls = listener.tls.as_ref().expect("TLS");
    assert_eq!(tls.certificate, "arn:aws:acm:r:1:certificate/a");
    assert_eq!(tls.policy, crate::settings::tls::POLICY);
    assert_eq!(tls.alpn, Alpn::None);
    let others = ["arn:aws:iam::1:server-certificate/b".to_owned()];
    assert_eq!(listener.sni, BTreeSet::from(others));
    assert!(!group(&plain, 80).tls);
    let set = desired(
        &service(&[WEB]),
        &[
            ("ssl-cert", CERTIFICATES),
            ("ssl-negotiation-policy", "ELBSecurityPolicy-2016-08"),
            ("alpn-policy", "HTTP2Only"),
            ("backend-protocol", "ssl"),
        ],
    );
    let tls = set.listeners[&80].tls.as_ref().expect("TLS");
    assert_eq!(tls.policy, "ELBSecurityPolicy-2016-08");
    assert_eq!(tls.alpn, Alpn::Http2Only);
    assert!(group(&set, 80).tls);
}

#[test]
fn tls_has_no_sticky_connections() {
    let sticky = LoadBalancer {
        affinity: Affinity::ClientIp {
            timeout_seconds: 10_800,
        },
        ..service(&[WEB, (Protocol::Tcp, 443, 30_443)])
    };
    let all = [("ssl-cert", CERTIFICATES), ("ssl-ports", "443")];
    let outcome = of(&sticky, &all).expect("accepted");
    let has = |port| {
        let attributes = &group(&outcome.desired, port).attributes;
        attributes.contains_key(attributes::STICKINESS)
    };
    assert_eq!((has(80), has(443)), (true, false));
    let [remark] = &outcome.remarks[..] else {
        panic!("{:?}", outcome.remarks);
    };
    assert!(remark.contains("no effect on port 443"), "{remark}");
}
