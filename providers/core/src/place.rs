//! Where the addresses of a Service are announced, as the condition `ballast.dev/Announced` says
//! it, and the text of the event when one moves. Pure.
//!
//! The condition's message is the record: [`moves`] compares the new places with those that the
//! message named before. So a controller that restarts reports each move once, and nothing that
//! was there before.
//!
//! ```text
//! 192.0.2.10 by node-2 on eth0; No node announces 2001:db8::1 (last: node-1)
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::text::{one_line, shortened};

/// The longest name of a node in a message, in characters. With longer ones the message of a
/// dual-stack Service would not fit into a condition.
const NAME: usize = 64;
/// Separates the parts of a message.
const SEPARATOR: &str = "; ";
/// Begins the part of an address that no node announces.
const NOBODY: &str = "No node announces ";

/// Where one address is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address of the Service.
    pub address: IpAddr,
    /// The node that announces it; `None`: no node does.
    pub spot: Option<Spot>,
    /// What the owner of the Service should know about it; the same on every retry.
    pub remark: Option<String>,
}

/// A node that announces an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The name of the node.
    pub node: String,
    /// The name of its interface.
    pub interface: String,
    /// Why this node announces it, if that is known.
    pub why: Option<Why>,
    /// The node that announced it before, if that is known.
    pub previous: Option<String>,
}

/// Why an address moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// For people, as the end of a sentence: `the host did not answer`.
    pub text: String,
    /// Something failed; otherwise it was planned.
    pub is_failure: bool,
}

/// Addresses that moved, for an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moved {
    /// What moved, from which node to which, and why.
    pub note: String,
    /// Something failed; otherwise all of it was planned.
    pub is_failure: bool,
}

/// The message of the condition. `before` is its present message: the message of an address that
/// no node announces names the last node that did.
pub fn message(places: &[Place], before: &str) -> String {
    let before = read(before);
    let part = |place: &Place| match (&place.spot, before.get(&place.address)) {
        (Some(spot), _) => format!(
            "{} by {} on {}",
            place.address,
            shown(&spot.node),
            shown(&spot.interface)
        ),
        (None, Some(last)) => format!("{NOBODY}{} (last: {last})", place.address),
        (None, None) => format!("{NOBODY}{}", place.address),
    };
    let mut parts: Vec<String> = places.iter().map(part).collect();
    for remark in places.iter().filter_map(|place| place.remark.as_ref()) {
        let remark = one_line(remark);
        if !parts.contains(&remark) {
            parts.push(remark);
        }
    }
    parts.join(SEPARATOR)
}

/// What moved since the condition had this message; `None` if nothing did.
pub fn moves(places: &[Place], before: &str) -> Option<Moved> {
    let before = read(before);
    // Addresses that moved together for the same reason are named together.
    let mut all: Vec<(Vec<String>, String)> = Vec::new();
    let mut is_failure = false;
    for place in places {
        let (Some(spot), Some(from)) = (&place.spot, before.get(&place.address)) else {
            continue;
        };
        if *from == shown(&spot.node) {
            continue;
        }
        let mut rest = format!("moved from {from} to {}", shown(&spot.node));
        let via = spot.previous.as_deref().map(shown);
        if let Some(via) = via.filter(|via| via != from && *via != shown(&spot.node)) {
            rest.extend([" (after ", &via, ")"]);
        }
        if let Some(why) = &spot.why {
            rest.extend([": ", &why.text]);
            is_failure |= why.is_failure;
        }
        let address = place.address.to_string();
        match all.iter_mut().find(|(_, other)| *other == rest) {
            Some((addresses, _)) => addresses.push(address),
            None => all.push((vec![address], rest)),
        }
    }
    let told: Vec<String> = all
        .into_iter()
        .map(|(addresses, rest)| format!("{} {rest}", addresses.join(" and ")))
        .collect();
    (!told.is_empty()).then(|| Moved {
        note: told.join(SEPARATOR),
        is_failure,
    })
}

/// The node that a message names for each address: the one that announces it, or the last one
/// that did.
fn read(message: &str) -> BTreeMap<IpAddr, String> {
    let named = message.split(SEPARATOR).filter_map(|part| {
        let (address, node) = if let Some(rest) = part.strip_prefix(NOBODY) {
            let (address, last) = rest.split_once(" (last: ")?;
            (address, last.strip_suffix(')')?)
        } else {
            let (address, rest) = part.split_once(" by ")?;
            (address, rest.split_once(" on ")?.0)
        };
        Some((address.parse().ok()?, node.to_owned()))
    });
    named.collect()
}

/// A name as messages have it.
fn shown(name: &str) -> String {
    shortened(&one_line(name), NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, node: &str) -> Place {
        Place {
            address: address.parse().unwrap(),
            spot: Some(Spot {
                node: node.to_owned(),
                interface: "eth0".to_owned(),
                why: None,
                previous: None,
            }),
            remark: None,
        }
    }

    fn nowhere(address: &str) -> Place {
        Place {
            spot: None,
            ..at(address, "")
        }
    }

    fn because(place: Place, text: &str, is_failure: bool, previous: &str) -> Place {
        let why = Why {
            text: text.to_owned(),
            is_failure,
        };
        let spot = place.spot.map(|spot| Spot {
            why: Some(why),
            previous: Some(previous.to_owned()),
            ..spot
        });
        Place { spot, ..place }
    }

    #[test]
    fn a_message_names_node_and_interface_or_the_last_node() {
        let (v4, v6) = ("192.0.2.10", "2001:db8::1");
        let both = [at(v4, "node-2"), at(v6, "node-1")];
        let first = message(&both, "");
        assert_eq!(
            first,
            "192.0.2.10 by node-2 on eth0; 2001:db8::1 by node-1 on eth0"
        );
        let lost = [at(v4, "node-2"), nowhere(v6)];
        let second = message(&lost, &first);
        assert_eq!(
            second,
            "192.0.2.10 by node-2 on eth0; No node announces 2001:db8::1 (last: node-1)"
        );
        assert_eq!(message(&lost, &second), second, "the same on every retry");
        assert_eq!(message(&[nowhere(v6)], ""), "No node announces 2001:db8::1");
    }

    #[test]
    fn equal_remarks_are_said_once() {
        let remark = Some("no announcer\nruns".to_owned());
        let places = ["192.0.2.10", "2001:db8::1"].map(|address| Place {
            remark: remark.clone(),
            ..nowhere(address)
        });
        assert_eq!(
            message(&places, ""),
            "No node announces 192.0.2.10; No node announces 2001:db8::1; no announcer runs"
        );
    }

    #[test]
    fn a_move_is_a_change_of_the_node() {
        let v4 = "192.0.2.10";
        let on = |node: &str| message(&[at(v4, node)], "");
        let lost = |node: &str| message(&[nowhere(v4)], &on(node));
        let failed = |place| because(place, "the host did not answer", true, "node-1");
        let planned = |place| because(place, "it was cordoned", false, "node-1");
        for (what, before, now, expected) in [
            ("nothing was known", String::new(), at(v4, "node-2"), None),
            (
                "never announced",
                message(&[nowhere(v4)], ""),
                failed(at(v4, "node-2")),
                None,
            ),
            (
                "the same node",
                on("node-2"),
                failed(at(v4, "node-2")),
                None,
            ),
            (
                "the same node again",
                lost("node-2"),
                failed(at(v4, "node-2")),
                None,
            ),
            ("it is lost", on("node-2"), nowhere(v4), None),
            (
                "another address",
                on("node-1"),
                at("192.0.2.11", "node-2"),
                None,
            ),
            (
                "failed",
                on("node-1"),
                failed(at(v4, "node-2")),
                Some((
                    "192.0.2.10 moved from node-1 to node-2: the host did not answer",
                    true,
                )),
            ),
            (
                "planned",
                on("node-1"),
                planned(at(v4, "node-2")),
                Some((
                    "192.0.2.10 moved from node-1 to node-2: it was cordoned",
                    false,
                )),
            ),
            (
                "after it was lost",
                lost("node-1"),
                failed(at(v4, "node-2")),
                Some((
                    "192.0.2.10 moved from node-1 to node-2: the host did not answer",
                    true,
                )),
            ),
            (
                "twice at once",
                on("node-0"),
                failed(at(v4, "node-2")),
                Some((
                    "192.0.2.10 moved from node-0 to node-2 (after node-1): the host did not answer",
                    true,
                )),
            ),
            (
                "why is not known",
                on("node-1"),
                at(v4, "node-2"),
                Some(("192.0.2.10 moved from node-1 to node-2", false)),
            ),
        ] {
            let expected = expected.map(|(note, is_failure)| Moved {
                note: note.to_owned(),
                is_failure,
            });
            assert_eq!(moves(&[now], &before), expected, "{what}");
        }
    }

    #[test]
    fn addresses_that_move_together_are_one_note() {
        let pair = |node: &str| ["192.0.2.10", "2001:db8::1"].map(|address| at(address, node));
        let before = message(&pair("node-1"), "");
        let note = |places: &[Place]| moves(places, &before).unwrap().note;
        assert_eq!(
            note(&pair("node-2")),
            "192.0.2.10 and 2001:db8::1 moved from node-1 to node-2"
        );
        assert_eq!(
            note(&[at("192.0.2.10", "node-2"), at("2001:db8::1", "node-3")]),
            "192.0.2.10 moved from node-1 to node-2; 2001:db8::1 moved from node-1 to node-3"
        );
    }

    /// Names are as long as a node's may be.
    #[test]
    fn a_message_of_both_families_fits_into_a_condition() {
        let name = "n".repeat(253);
        let both = [
            at("192.0.2.10", &name),
            at("2001:db8:1111:2222:3333:4444:5555:6666", &name),
        ];
        let first = message(&both, "");
        assert!(first.chars().count() <= 320, "{}", first.len());
        assert_eq!(moves(&both, &first), None);
        let lost = both.map(|place| Place {
            spot: None,
            ..place
        });
        let lost = message(&lost, &first);
        assert!(lost.chars().count() <= 320, "{}", lost.len());
    }
}
