//! What the controller reads of an Announcer object, and what it keeps of it. Parsing never
//! fails; a part that is invalid is left out. Everything is bounded: the announcer of a node writes
//! the object, and a node can be compromised.

use std::net::IpAddr;
use std::sync::Arc;

use ballast_crds::Announcer;
use ballast_l2::announced::{Holding, Report};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::announcer::object::{MOST_HOLDINGS, MOST_PROBLEMS};
use crate::cluster::texts;
use crate::process::text;

/// The longest name of an interface, and the longest cause.
const LONGEST_NAME: usize = 64;
/// The longest name of a node.
const LONGEST_NODE: usize = 253;

/// An Announcer without its interfaces, MAC addresses and successors.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = Announcer)]
pub struct WatchedAnnouncer {
    /// Names and versions.
    pub metadata: ObjectMeta,
    /// `status`
    #[serde(default)]
    pub status: Option<Status>,
}

/// `status` of an Announcer. An entry that has another form is left out, and does not make the
/// object unreadable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    holdings: Vec<Value>,
    problems: Problems,
}

/// `problems`, as [`ballast_crds::AnnouncerProblems`] describes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Problems {
    conflicts: Vec<Value>,
    idle: Vec<Value>,
    cut_off: Vec<Value>,
    untrusted: Vec<Value>,
}

#[derive(Deserialize)]
struct WatchedHolding {
    address: IpAddr,
    epoch: u64,
    interface: Option<String>,
    cause: Option<String>,
    previous: Option<String>,
}

/// What the announcer of a node reports.
pub fn report(node: &Arc<str>, object: &WatchedAnnouncer) -> Report {
    let nothing = Status::default();
    let status = object.status.as_ref().unwrap_or(&nothing);
    let holdings = status.holdings.iter().take(MOST_HOLDINGS);
    let mut holdings: Vec<Holding> = holdings.filter_map(holding).collect();
    holdings.shrink_to_fit();
    let problems = &status.problems;
    Report {
        node: Arc::clone(node),
        holdings,
        conflicts: listed(&problems.conflicts, conflict),
        idle: listed(&problems.idle, address),
        cut_off: listed(&problems.cut_off, interface),
        untrusted: listed(&problems.untrusted, |it| short(it.as_str()?, LONGEST_NODE)),
    }
}

/// The valid entries of a list of problems.
fn listed<T>(list: &[Value], read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    list.iter().take(MOST_PROBLEMS).filter_map(read).collect()
}

fn short(text: &str, limit: usize) -> Option<Arc<str>> {
    let fits = !text.is_empty() && text.len() <= limit;
    fits.then(|| texts::shared(text))
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn conflict(value: &Value) -> Option<(IpAddr, Arc<str>)> {
    let mac = value["mac"].as_str().filter(|mac| is_mac(mac))?;
    Some((address(&value["address"])?, texts::shared(mac)))
}

fn interface(value: &Value) -> Option<Arc<str>> {
    short(&text::value(value.as_str()?), LONGEST_NAME)
}

fn holding(value: &Value) -> Option<Holding> {
    let read = WatchedHolding::deserialize(value).ok()?;
    let short = |text: Option<String>, limit| short(&text?, limit);
    Some(Holding {
        address: read.address,
        epoch: read.epoch,
        interface: short(read.interface, LONGEST_NAME),
        cause: short(read.cause, LONGEST_NAME),
        previous: short(read.previous, LONGEST_NODE),
    })
}

fn is_mac(word: &str) -> bool {
    let octets = word.split(':');
    let valid = |octet: &str| octet.len() == 2 && octet.bytes().all(|it| it.is_ascii_hexdigit());
    word.len() == 17 && octets.into_iter().all(valid)
}

#[cfg(test)]
mod tests {
    use ballast_l2::announced::cause;
    use serde_json::json;

    use super::*;
    use crate::announcer::object;

    fn read(status: &Value) -> Report {
        let object = json!({"metadata": {"name": "node-1"}, "status": status});
        let object: WatchedAnnouncer = serde_json::from_value(object).unwrap();
        report(&"node-1".into(), &object)
    }

    /// Announcers write the causes, the controller reads them, and the CRD explains them.
    #[test]
    fn every_cause_has_words_and_is_in_the_crd() {
        let crd = include_str!("../../../crds/crds.yaml");
        for origin in ballast_announce::holding::Origin::ALL {
            let cause = origin.as_str();
            assert_ne!(cause::words(cause), cause);
            assert!(crd.contains(&format!("`{cause}`: ")), "{cause}");
            let failed = !["New", "NotEligible", "EndpointsMoved", "Rebalanced"].contains(&cause);
            assert_eq!(cause::is_failure(cause), failed, "{cause}");
        }
    }

    #[test]
    fn what_is_invalid_is_left_out() {
        let good = json!({
            "address": "192.0.2.10", "epoch": 3, "revision": 1, "interface": "eth0",
            "mac": "02:00:00:00:00:01", "successors": ["node-2"], "since": "2026-03-01T12:00:00Z",
            "cause": "HostDown", "previous": "node-2", "later": {"a": 1},
        });
        let older = json!({"address": "2001:db8::1", "epoch": 1});
        let with = |field: &str, value: Value| {
            let mut holding = good.clone();
            holding[field] = value;
            holding
        };
        let all = json!([
            good,
            older,
            with("address", json!("here")),
            with("epoch", json!(-1)),
            with("interface", json!(7)),
            7,
            with("cause", json!("x".repeat(65))),
        ]);
        let report = read(&json!({"holdings": all, "problems": {
            "cutOff": [7, "", "eth0"], "idle": ["here", "192.0.2.9"],
            "conflicts": [{"address": "192.0.2.9"}, {"address": "192.0.2.9", "mac": "here"}],
        }}));
        let expected = Holding {
            address: "192.0.2.10".parse().unwrap(),
            epoch: 3,
            interface: Some("eth0".into()),
            cause: Some("HostDown".into()),
            previous: Some("node-2".into()),
        };
        let older = Holding {
            address: "2001:db8::1".parse().unwrap(),
            epoch: 1,
            interface: None,
            cause: None,
            previous: None,
        };
        let long = Holding {
            cause: None,
            ..expected.clone()
        };
        assert_eq!(report.holdings, [expected, older, long]);
        assert_eq!(report.cut_off, ["eth0".into()]);
        assert_eq!(report.idle, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(report.conflicts, []);
        assert_eq!(read(&Value::Null).holdings, []);
        assert_eq!(read(&json!({})).holdings, []);
    }

    /// The announcer writes the problems, so its own code makes those of this test.
    #[test]
    fn problems_name_what_they_concern() {
        use ballast_agent::{Report as Reported, ReportedInterface};
        use ballast_announce::io::Problem;
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let interface = |index, name: &str| ReportedInterface {
            index,
            name: name.into(),
            mac: ballast_announce::Mac([2, 0, 0, 0, 0, 1]),
            nets: Vec::new(),
            usable: true,
        };
        let mac = ballast_announce::Mac([2, 0, 0, 0, 0, 9]);
        let conflict = |address: &str| Problem::AddressConflict {
            address: ip(address),
            mac,
            node: Some(ballast_announce::NodeName::new("b")),
        };
        let idle = |address: &str| Problem::NoEndpoints {
            address: ip(address),
        };
        let reported = Reported {
            interfaces: vec![interface(1, "eth0"), interface(2, "eth1")],
            problems: [
                conflict("192.0.2.10"),
                conflict("2001:db8::1"),
                idle("192.0.2.11"),
                idle("2001:db8::2"),
                Problem::CutOff { interface: 1 },
                Problem::CutOff { interface: 2 },
            ]
            .into(),
            ..Reported::default()
        };
        let untrusted = [("node-2".into(), crate::announcer::trust::Refusal::NoSeal)];
        let status = object::status(
            &reported,
            &[],
            &untrusted,
            &ballast_crds::AnnouncerStatus::default(),
            None,
            "1",
            jiff::Timestamp::UNIX_EPOCH,
        );
        let report = read(&json!(status));
        let mac: Arc<str> = "02:00:00:00:00:09".into();
        assert_eq!(
            report.conflicts,
            [
                (ip("192.0.2.10"), Arc::clone(&mac)),
                (ip("2001:db8::1"), mac)
            ]
        );
        assert_eq!(report.idle, [ip("192.0.2.11"), ip("2001:db8::2")]);
        assert_eq!(report.cut_off, ["eth0".into(), "eth1".into()]);
        assert_eq!(report.untrusted, ["node-2".into()]);
        let well = object::status(
            &Reported {
                problems: std::collections::BTreeSet::new(),
                ..reported
            },
            &[],
            &[],
            &status,
            None,
            "1",
            jiff::Timestamp::UNIX_EPOCH,
        );
        let report = read(&json!(well));
        assert!(report.conflicts.is_empty() && report.idle.is_empty());
        assert!(report.cut_off.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let address = |number: u32| std::net::Ipv4Addr::from(number).to_string();
        let holding = |number: u32| json!({"address": address(number), "epoch": 1});
        let named: Vec<String> = (0..10_000).map(address).collect();
        let holdings: Vec<Value> = (0..20_000).map(holding).collect();
        let report = read(&json!({"holdings": holdings, "problems": {"idle": named}}));
        assert_eq!(report.holdings.len(), MOST_HOLDINGS);
        assert_eq!(report.idle.len(), MOST_PROBLEMS);
    }
}
