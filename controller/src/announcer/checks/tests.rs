use std::collections::BTreeMap;

use ballast_announce::Mac;
use ballast_announce::view::{Detection, NodeFacts, Policy, Rebalance, Wanted};
use tempfile::TempDir;

use super::*;

const FINE: Sysctls = Sysctls {
    rp_filter: Some(2),
    send_redirects: Some(0),
    arp_ignore: Some(0),
    arp_announce: Some(0),
};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn facts() -> Facts {
    Facts {
        interfaces: [("eth0".into(), FINE), ("eth1".into(), FINE)].into(),
        all: Sysctls::default(),
        names: names(&["lo", "eth0", "eth1"]),
        wireless: BTreeMap::new(),
        default_routes: names(&["eth0"]),
        kube_proxy: Some(true),
        unreachable: vec![],
    }
}

fn set(facts: &mut Facts, interface: &str, change: impl Fn(&mut Sysctls)) {
    change(facts.interfaces.get_mut(interface).unwrap());
}

/// What is set, how, and the conditions that follow.
type Row = (&'static str, fn(&mut Facts), &'static [&'static str]);

fn rows() -> [Row; 17] {
    [
        ("fine", |_| {}, &[]),
        (
            "IPVS",
            |it| {
                it.names.insert(IPVS.to_owned());
            },
            &["ArpNotStrict"],
        ),
        (
            "IPVS with strictARP",
            |it| {
                it.names.insert(IPVS.to_owned());
                (it.all.arp_ignore, it.all.arp_announce) = (Some(1), Some(2));
            },
            &[],
        ),
        (
            "IPVS, one of two settings",
            |it| {
                it.names.insert(IPVS.to_owned());
                (it.all.arp_ignore, it.all.arp_announce) = (Some(1), Some(1));
            },
            &["ArpNotStrict"],
        ),
        (
            "IPVS, strict on one of two interfaces",
            |it| {
                it.names.insert(IPVS.to_owned());
                set(it, "eth0", |eth0| {
                    (eth0.arp_ignore, eth0.arp_announce) = (Some(1), Some(2));
                });
            },
            &["ArpNotStrict"],
        ),
        (
            "strict, and the default route is elsewhere",
            |it| set(it, "eth1", |eth1| eth1.rp_filter = Some(1)),
            &["ReversePathFiltered"],
        ),
        (
            "strict for all, and loose on each interface",
            |it| it.all.rp_filter = Some(1),
            &[],
        ),
        (
            "strict where the default route is",
            |it| set(it, "eth0", |eth0| eth0.rp_filter = Some(1)),
            &[],
        ),
        (
            "strict without a default route",
            |it| {
                it.default_routes.clear();
                set(it, "eth1", |eth1| eth1.rp_filter = Some(1));
            },
            &[],
        ),
        (
            "redirects of all interfaces",
            |it| it.all.send_redirects = Some(1),
            &["RedirectsSent"],
        ),
        (
            "redirects of one interface",
            |it| set(it, "eth1", |eth1| eth1.send_redirects = Some(1)),
            &["RedirectsSent"],
        ),
        (
            "another subnet",
            |it| it.unreachable = vec![[192, 0, 2, 7].into()],
            &["NoInterface"],
        ),
        (
            "Wi-Fi that saves power",
            |it| it.wireless = wireless("eth1", Some(true)),
            &["Wireless"],
        ),
        (
            "Wi-Fi that does not say",
            |it| it.wireless = wireless("eth1", None),
            &["Wireless"],
        ),
        (
            "Wi-Fi that saves no power",
            |it| it.wireless = wireless("eth1", Some(false)),
            &[],
        ),
        (
            "Wi-Fi that announces nothing",
            |it| it.wireless = wireless("wlan0", Some(true)),
            &[],
        ),
        (
            "no kube-proxy",
            |it| it.kube_proxy = Some(false),
            &["KubeProxyMissing"],
        ),
    ]
}

#[test]
fn each_setting_has_its_finding() {
    for (what, change, expected) in rows() {
        let mut facts = facts();
        change(&mut facts);
        let found = judge(&facts);
        let kinds: Vec<_> = found.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, expected, "{what}");
        let conditions = conditions(&found);
        assert_eq!(conditions.len(), KINDS.len());
        let bad: Vec<_> = conditions.iter().filter(|it| it.status == "True").collect();
        let bad: Vec<_> = bad.iter().map(|it| it.type_.as_str()).collect();
        assert_eq!(bad, expected, "{what}");
    }
    // What cannot be read is no finding.
    assert_eq!(judge(&Facts::default()), []);
}

#[test]
fn each_message_names_the_fix() {
    let mut facts = facts();
    facts.names.insert(IPVS.to_owned());
    set(&mut facts, "eth1", |eth1| eth1.rp_filter = Some(1));
    facts.all.send_redirects = Some(1);
    facts.unreachable = (0..9).map(|n| [192, 0, 2, n].into()).collect();
    facts.wireless = wireless("eth1", Some(true));
    facts.kube_proxy = Some(false);
    let messages: Vec<_> = judge(&facts).into_iter().map(|it| it.message).collect();
    insta::assert_yaml_snapshot!(messages);
}

fn wireless(name: &str, saves: Option<bool>) -> BTreeMap<String, Option<bool>> {
    [(name.to_owned(), saves)].into()
}

fn interface(name: &str) -> ReportedInterface {
    ReportedInterface {
        index: 2,
        name: name.into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        nets: vec!["192.0.2.11/24".parse().unwrap()],
        usable: true,
    }
}

#[test]
fn the_files_are_read() {
    let folder = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "thread-self/net/dev",
        "Inter-|   Receive                            \n face |bytes    packets\n    lo:     123       1    0\n  eth0: 99 1\nkube-ipvs0:       0       0\n",
    );
    write(
        "thread-self/net/wireless",
        "Inter-| sta-|   Quality        |   Discarded packets\n face | tus | link level noise |  nwid\n wlan0: 0000   70.  -39.  -256        0\n",
    );
    write(
        "thread-self/net/route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
         eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
         eth1\t00000000\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n\
         eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    );
    write("sys/net/ipv4/conf/all/rp_filter", "1\n");
    write("sys/net/ipv4/conf/eth0/send_redirects", "1\n");
    write("sys/net/ipv4/conf/eth0/arp_ignore", "nonsense\n");
    let facts = Proc(folder.path().to_owned()).read(&[interface("eth0")]);
    let eth0 = Sysctls {
        send_redirects: Some(1),
        ..Sysctls::default()
    };
    let all = Sysctls {
        rp_filter: Some(1),
        ..Sysctls::default()
    };
    let expected = Facts {
        interfaces: [("eth0".into(), eth0)].into(),
        all,
        names: names(&["lo", "eth0", IPVS]),
        wireless: wireless("wlan0", None),
        default_routes: names(&["eth0"]),
        kube_proxy: None,
        unreachable: vec![],
    };
    assert_eq!(facts, expected);
    // Nothing is there.
    let empty = TempDir::new().unwrap();
    let facts = Proc(empty.path().to_owned()).read(&[]);
    assert_eq!(facts, Facts::default());
}

/// The files of this machine have the form that the fixtures have.
#[test]
fn this_machine_can_be_read() {
    let facts = Proc::default().read(&[interface("lo")]);
    assert!(facts.names.contains("lo"), "{facts:?}");
    let lo = facts.interfaces["lo"];
    for setting in [
        lo.rp_filter,
        lo.send_redirects,
        lo.arp_ignore,
        lo.arp_announce,
    ] {
        assert!(setting.is_some(), "{lo:?}");
    }
}

#[test]
fn an_address_outside_of_all_subnets_is_found() {
    let me = NodeName::new("a");
    let wanted = |nodes: Option<&str>, interfaces: Option<&str>| {
        Arc::new(Wanted {
            policy: Policy::Cluster,
            detection: Detection::Fast,
            nodes: nodes.map(|node| [NodeName::new(node)].into()),
            preferred: None,
            rebalance: Rebalance::default(),
            interfaces: interfaces.map(|name| [name.into()].into()),
            endpoints: BTreeSet::new(),
            refresh: None,
        })
    };
    let mut view = View::default();
    for (address, entry) in [
        ("192.0.2.7", wanted(None, None)),
        ("198.51.100.1", wanted(None, None)),
        ("198.51.100.2", wanted(Some("b"), None)),
        ("198.51.100.3", wanted(Some("a"), None)),
        ("192.0.2.8", wanted(None, Some("eth1"))),
        ("192.0.2.9", wanted(None, Some("eth0"))),
        ("203.0.113.1", wanted(None, None)),
        ("203.0.113.2", wanted(Some("a"), None)),
    ] {
        view.wanted.insert(address.parse().unwrap(), entry);
    }
    // The other node is in another network, and serves what belongs there.
    let other = NodeFacts {
        interfaces: vec![Interface {
            nets: vec!["203.0.113.9/24".parse().unwrap()],
            ..Interface::from(&interface("eth0"))
        }],
        ..NodeFacts::default()
    };
    view.nodes.insert(NodeName::new("b"), other);
    let found = unreachable(&me, &[interface("eth0")], &view);
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["192.0.2.8", "198.51.100.1", "198.51.100.3", "203.0.113.2"]
    );
}

/// The former process of the node waits at most 3 s for the object, which waits for the first check.
#[tokio::test(start_paused = true)]
async fn the_first_check_is_made_soon_after_the_report() {
    let (report, reports) = watch::channel(None);
    let (_view, views) = watch::channel(None);
    let (findings, mut found) = watch::channel(None);
    let checks = Checks {
        proc: Proc::default(),
        me: NodeName::new("a"),
        reports,
        views,
        findings,
    };
    let task = tokio::spawn(checks.run());
    sleep(Duration::from_millis(10)).await;
    assert!(found.borrow().is_none(), "nothing is known");
    report.send_replace(Some(Arc::new(Report::default())));
    let reported = tokio::time::Instant::now();
    found.changed().await.unwrap();
    // The clock is stopped, so ports that nobody answers may take their whole time.
    let late = reported.elapsed();
    assert!(late <= MOMENT + PATIENCE, "{late:?}");
    task.abort();
}

#[tokio::test]
async fn kube_proxy_may_listen_on_an_address_of_the_node_alone() {
    let node: IpAddr = Ipv4Addr::new(127, 7, 7, 7).into();
    let kube_proxy = tokio::net::TcpListener::bind((node, 0)).await.unwrap();
    let port = kube_proxy.local_addr().unwrap().port();
    assert_eq!(kube_proxy_runs(Some(&[node]), port).await, Some(true));
    assert_eq!(kube_proxy_runs(None, port).await, None, "not known yet");
    drop(kube_proxy);
    assert_eq!(kube_proxy_runs(Some(&[node]), port).await, Some(false));
}
