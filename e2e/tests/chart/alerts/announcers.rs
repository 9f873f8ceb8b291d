//! The alerts about announcers and failovers.

use super::{Case, counter, series};

/// Two announcers, as whoever scrapes them names them.
const NODE_1: &str = "job=\"announcers\", instance=\"node-1:8112\"";
const NODE_2: &str = "job=\"announcers\", instance=\"node-2:8112\"";

pub(super) fn of_announcers() -> Vec<Case> {
    let up = |labels: &str, values: &str| series("up", &[labels], values);
    let connected =
        |labels: &str, values: &str| series("ballast_announcer_api_connected", &[labels], values);
    let other = "job=\"web\", instance=\"node-3:80\"";
    let age = |values: &str| {
        vec![series(
            "ballast_announcer_lease_age_seconds",
            &[NODE_1],
            values,
        )]
    };
    let conflicts = |condition: &str, values: &str| {
        let condition = format!("condition=\"{condition}\"");
        series("ballast_announcer_problems", &[NODE_1, &condition], values)
    };
    let found = |condition: &str, values: &str| {
        let condition = format!("condition=\"{condition}\"");
        series("ballast_announcer_findings", &[NODE_1, &condition], values)
    };
    let untrusted = |labels: &str, values: &str| {
        series("ballast_announcer_untrusted_objects", &[labels], values)
    };
    vec![
        Case {
            alert: "BallastAnnouncerDown",
            interval: 60,
            until: 60,
            fires: vec![
                up(NODE_1, "1x10 0x50"),
                connected(NODE_1, "1x10 _x50"),
                up(NODE_2, "1x60"),
                connected(NODE_2, "1x60"),
            ],
            // One is updated, one was removed with its node, and something else is down.
            quiet: vec![
                up(NODE_1, "1x10 0x2 1x46"),
                connected(NODE_1, "1x10 _x2 1x46"),
                up(NODE_2, "1x10 _x50"),
                connected(NODE_2, "1x10 _x50"),
                up(other, "0x60"),
            ],
        },
        Case {
            alert: "BallastAnnouncerLeaseOld",
            interval: 30,
            until: 30,
            fires: age("3x10 15+30x50"),
            // The API server restarts.
            quiet: age("4x10 20 50 3x50"),
        },
        Case {
            alert: "BallastAddressConflict",
            interval: 30,
            until: 30,
            fires: vec![conflicts("AddressConflict", "0x10 2x50")],
            // Another problem; and a host that asks whether an address is free.
            quiet: vec![
                conflicts("NoEndpoints", "2x60"),
                conflicts("AddressConflict", "0x10 1x2 0x48"),
            ],
        },
        Case {
            alert: "BallastAnnouncerNetwork",
            interval: 60,
            until: 60,
            fires: vec![
                conflicts("CutOff", "0x10 1x50"),
                found("NoInterface", "0x60"),
            ],
            // Short ones, and hints.
            quiet: vec![
                conflicts("CutOff", "0x10 1x5 0x45"),
                conflicts("NoEndpoints", "1x60"),
                found("RedirectsSent", "1x60"),
            ],
        },
        Case {
            alert: "BallastAnnouncerNetwork",
            interval: 60,
            until: 60,
            fires: vec![found("NoInterface", "0x10 1x50")],
            quiet: vec![found("NoInterface", "0x60")],
        },
        Case {
            alert: "BallastAnnouncerUntrusted",
            interval: 30,
            until: 30,
            // One write, which was corrected after two seconds.
            fires: vec![
                untrusted(NODE_1, "0x10 1x10 0x40"),
                untrusted(NODE_2, "0x10 1x10 0x40"),
            ],
            quiet: vec![untrusted(NODE_1, "0x60"), untrusted(NODE_2, "0x60")],
        },
    ]
}

pub(super) fn of_failovers() -> Vec<Case> {
    let messages = |result: &str, values: String| {
        let result = format!("result=\"{result}\"");
        series(
            "ballast_announcer_messages_total",
            &[NODE_1, &result],
            values,
        )
    };
    let late = |values: String| {
        vec![series(
            "ballast_announcer_late_ticks_total",
            &[NODE_1],
            values,
        )]
    };
    // Of the addresses that two nodes took over, those within 2.5 s.
    let took = |cause: &str, fast: [&str; 2], all: [&str; 2]| {
        let labels = [NODE_1, NODE_2];
        let cause = format!("cause=\"{cause}\"");
        let nodes = (0..2).flat_map(|node| {
            let bucket = |le: &str, values: &str| {
                let name = "ballast_announcer_failover_seconds_bucket";
                series(
                    name,
                    &[labels[node], &cause, &format!("le=\"{le}\"")],
                    values,
                )
            };
            let name = "ballast_announcer_failover_seconds_count";
            vec![
                bucket("0.75", fast[node]),
                bucket("2.5", fast[node]),
                bucket("5.0", all[node]),
                bucket("+Inf", all[node]),
                series(name, &[labels[node], &cause], all[node]),
            ]
        });
        nodes.collect::<Vec<_>>()
    };
    vec![
        Case {
            alert: "BallastAnnouncerMessagesNotOpened",
            interval: 30,
            until: 60,
            fires: vec![messages("not_opened", counter(121, |at| at % 4 == 0))],
            // A key is replaced in one step; everything else is fine.
            quiet: vec![
                messages("not_opened", counter(121, |at| (20..28).contains(&at))),
                messages("received", counter(121, |_| true)),
            ],
        },
        Case {
            alert: "BallastAnnouncerLateTicks",
            interval: 30,
            until: 60,
            fires: late(
                (0..121)
                    .map(|at| (3 * at).to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
            // The machine is suspended ten times.
            quiet: late(counter(121, |at| at % 12 == 0)),
        },
        Case {
            alert: "BallastSlowFailover",
            interval: 30,
            until: 90,
            fires: took(
                "HostDown",
                ["0x200", "0x20 3x180"],
                ["0x20 1x180", "0x20 3x180"],
            ),
            // Many fast ones, and one that waited for the Lease.
            quiet: [
                took("HostDown", ["0+1x200", "0x200"], ["0+1x200", "0x200"]),
                took("LeaseExpired", ["0x200", "0x200"], ["0x20 1x180", "0x200"]),
            ]
            .concat(),
        },
    ]
}
