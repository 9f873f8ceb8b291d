//! The instruments on the segment and its faults: what the tests of the announcer rely on. A
//! kernel answers here, and addresses are moved by hand, so every result is known.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::segment::judge::{holders, overlap, reachability};
use ballast_e2e::segment::{Capture, Kind, Moment, SERVER_PORT, Visitor, Way};
use ballast_e2e::{Faults, Host, Lab, LabOptions, eventually};

use crate::common::SOON;
use crate::common::judges::{arping, judged};

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 89, 0, 200));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd89, 0, 0, 0, 0, 0, 0, 0x200));
const CLIENT: Host = Host::Client;
/// The first holder of the addresses.
const FIRST: Host = Host::Guest(1);
/// The second one.
const SECOND: Host = Host::Guest(2);
/// A client that knows nobody.
const NEWCOMER: Host = Host::Guest(3);

#[tokio::test(flavor = "multi_thread")]
async fn what_the_judges_see_is_what_happens() -> Result<()> {
    let lab = Lab::start(LabOptions {
        name: "t-segment".to_owned(),
        nodes: 0,
        progress: false,
        ..LabOptions::default()
    })
    .await?;
    let result = lab.explain(all(&lab).await).await;
    let down = lab.down().await;
    result.and(down)
}

async fn all(lab: &Lab) -> Result<()> {
    for (number, guest) in [FIRST, SECOND, NEWCOMER].into_iter().enumerate() {
        lab.add_guest(u8::try_from(number)? + 1).await?;
        lab.serve(guest, Some(&guest.name())).await?;
    }
    holds(lab, FIRST, "add").await?;
    let capture = lab.capture(&[CLIENT, FIRST, SECOND, NEWCOMER]).await?;
    answers_are_seen(lab, &capture).await?;
    a_move_is_measured(lab, &capture).await?;
    two_that_answer_are_seen(lab, &capture).await?;
    holds(lab, FIRST, "del").await?;
    one_way_is_one_way(lab, &capture).await?;
    a_split_has_two_sides(lab).await?;
    some_frames_are_lost(lab).await?;
    a_frozen_host_is_silent(lab).await?;
    a_host_without_power_is_silent(lab).await
}

/// Gives the addresses to a host, or takes them from it.
async fn holds(lab: &Lab, host: Host, verb: &str) -> Result<()> {
    for address in ["10.89.0.200/32", "fd89::200/128"] {
        let argv = ["ip", "address", verb, address, "dev", "eth0"];
        lab.exec(host, argv).await?.ok()?;
    }
    Ok(())
}

async fn answers_are_seen(lab: &Lab, capture: &Capture<'_>) -> Result<()> {
    let (since, mac) = (Moment::now(), lab.mac(FIRST).await?);
    for address in [V4, V6] {
        eventually(SOON, || async {
            let answers = judged(lab, CLIENT, address).await?;
            ensure!(answers.iter().eq([&mac]), "{address}: {answers:?}");
            Ok(())
        })
        .await?;
    }
    let frames = capture.frames().await?;
    for address in [V4, V6] {
        let seen = holders(&frames, address, since, Moment::now());
        let macs: Vec<&str> = seen.iter().map(|it| it.mac.as_str()).collect();
        ensure!(macs == [mac.as_str()], "{address}: {seen:?}");
        let asked = frames.iter().any(|it| {
            let (asks, by) = (it.said.kind == Kind::Request, it.host == CLIENT.name());
            asks && by && it.way == Way::Sent && it.said.address == address
        });
        ensure!(asked, "{address} was not asked for");
    }
    Ok(())
}

/// The first holder's cable is cut for longer than the second one needs.
async fn a_move_is_measured(lab: &Lab, capture: &Capture<'_>) -> Result<()> {
    let pause = Duration::from_millis(700);
    let at = |address| SocketAddr::new(address, SERVER_PORT);
    let since = Moment::now();
    let regular = lab.visit(CLIENT, at(V4), Visitor::Regular).await?;
    let newcomers = [
        lab.visit(NEWCOMER, at(V4), Visitor::Newcomer).await?,
        lab.visit(NEWCOMER, at(V6), Visitor::Newcomer).await?,
    ];
    let quiet = Moment::now();
    // Everybody was answered before something happens.
    for visits in [&regular, &newcomers[0], &newcomers[1]] {
        let before = visits.until(quiet + Duration::from_millis(300)).await?;
        let seen = reachability(&before, quiet, quiet + Duration::from_millis(300));
        ensure!(seen.attempts > seen.failed && seen.moves == 0, "{seen:?}");
    }
    lab.cut(FIRST).await?;
    let cut = Moment::now();
    tokio::time::sleep(pause).await;
    holds(lab, SECOND, "add").await?;
    let v4 = V4.to_string();
    let announce = ["arping", "-U", "-S", &v4, "-c", "1", "-i", "eth0", &v4];
    lab.exec(SECOND, announce).await?;
    let moved = Moment::now();
    let until = moved + Duration::from_secs(2);
    for visits in [&regular, &newcomers[0], &newcomers[1]] {
        let attempts = visits.until(until).await?;
        let seen = reachability(&attempts, quiet, until);
        println!("{visits:?}: {seen:?}");
        ensure!(seen.outage >= pause, "{seen:?}");
        // Twice the time of the fault: the rest is the machine's.
        ensure!(
            seen.outage < 2 * moved.since(cut) + 5 * seen.blind,
            "{seen:?}"
        );
        ensure!(seen.moves == 1 && seen.failed > 0, "{seen:?}");
    }
    let frames = capture.frames().await?;
    let (first, second) = (lab.mac(FIRST).await?, lab.mac(SECOND).await?);
    for address in [V4, V6] {
        let seen = holders(&frames, address, since, Moment::now());
        let macs: Vec<&str> = seen.iter().map(|it| it.mac.as_str()).collect();
        ensure!(macs == [&first, &second], "{address}: {seen:?}");
        ensure!(overlap(&seen).is_zero(), "{address}: {seen:?}");
    }
    for visits in newcomers {
        visits.stop().await?;
    }
    regular.stop().await.map(drop)
}

/// Both hosts have the addresses now.
async fn two_that_answer_are_seen(lab: &Lab, capture: &Capture<'_>) -> Result<()> {
    let since = Moment::now();
    lab.restore(FIRST).await?;
    eventually(SOON, || async {
        for address in [V4, V6] {
            let _ = judged(lab, NEWCOMER, address).await?;
        }
        let frames = capture.frames().await?;
        for address in [V4, V6] {
            let seen = holders(&frames, address, since, Moment::now());
            ensure!(seen.len() == 2, "{address}: {seen:?}");
            ensure!(!overlap(&seen).is_zero(), "{address}: {seen:?}");
        }
        Ok(())
    })
    .await
}

async fn one_way_is_one_way(lab: &Lab, capture: &Capture<'_>) -> Result<()> {
    lab.set_faults(&Faults::none().one_way(FIRST, SECOND))
        .await?;
    let since = Moment::now();
    for (from, to) in [(FIRST, SECOND), (SECOND, FIRST)] {
        let answers = arping(lab, from, to.v4().into(), 2).await?;
        ensure!(answers.is_empty(), "{}: {answers:?}", from.name());
    }
    let frames = capture.frames().await?;
    for (from, to, passes) in [(FIRST, SECOND, false), (SECOND, FIRST, true)] {
        let delivered = frames.iter().any(|it| {
            let asks = it.at > since && it.said.asker == IpAddr::V4(from.v4());
            asks && it.way == Way::Delivered && it.host == to.name()
        });
        ensure!(delivered == passes, "{} to {}", from.name(), to.name());
    }
    lab.set_faults(&Faults::none()).await?;
    reaches(lab, FIRST, SECOND, true).await
}

/// Whether a host answers another one's ARP. A busy one may miss a request.
async fn reaches(lab: &Lab, from: Host, to: Host, expected: bool) -> Result<()> {
    let look = || async {
        let answers = arping(lab, from, to.v4().into(), 2).await?;
        let seen = !answers.is_empty();
        let (from, to) = (from.name(), to.name());
        ensure!(seen == expected, "{from} reaches {to}: {seen}");
        Ok(())
    };
    if expected {
        eventually(SOON, look).await
    } else {
        look().await
    }
}

async fn a_split_has_two_sides(lab: &Lab) -> Result<()> {
    let split = Faults::none().split(&[CLIENT, FIRST], &[SECOND, NEWCOMER]);
    lab.set_faults(&split).await?;
    for (from, to, expected) in [
        (CLIENT, FIRST, true),
        (CLIENT, SECOND, false),
        (NEWCOMER, SECOND, true),
        (NEWCOMER, FIRST, false),
        (Host::Hub, FIRST, true),
        (Host::Hub, SECOND, true),
    ] {
        reaches(lab, from, to, expected).await?;
    }
    lab.set_faults(&split.split(&[Host::Hub], &[SECOND]))
        .await?;
    reaches(lab, Host::Hub, SECOND, false).await?;
    reaches(lab, Host::Hub, FIRST, true).await?;
    lab.set_faults(&Faults::none()).await?;
    reaches(lab, Host::Hub, SECOND, true).await
}

async fn some_frames_are_lost(lab: &Lab) -> Result<()> {
    let faults = Faults::none().loss(CLIENT, 300).loss(FIRST, 300);
    lab.set_faults(&faults).await?;
    let answers = arping(lab, CLIENT, FIRST.v4().into(), 40).await?.len();
    println!("{answers} of 40 answers with 30 % loss in both directions");
    ensure!((1..40).contains(&answers), "{answers} of 40");
    lab.set_faults(&Faults::none()).await
}

async fn a_frozen_host_is_silent(lab: &Lab) -> Result<()> {
    let at = SocketAddr::new(V4, SERVER_PORT);
    let visits = lab.visit(CLIENT, at, Visitor::Regular).await?;
    let start = Moment::now();
    lab.freeze(SECOND).await?;
    let frozen = Moment::now();
    reaches(lab, CLIENT, SECOND, false).await?;
    let states = states(lab, SECOND).await?;
    ensure!(states.iter().all(|it| it == "T"), "{states:?}");
    let thaw = Moment::now();
    lab.thaw(SECOND).await?;
    let until = Moment::now() + Duration::from_secs(1);
    let seen = reachability(&visits.until(until).await?, start, until);
    println!("frozen for {:?}: {seen:?}", thaw.since(frozen));
    ensure!(seen.outage >= thaw.since(frozen), "{seen:?}");
    reaches(lab, CLIENT, SECOND, true).await?;
    visits.stop().await.map(drop)
}

/// The states of a guest's processes (proc(5)).
async fn states(lab: &Lab, host: Host) -> Result<Vec<String>> {
    let status = lab.status().await?;
    let mine = status.processes.iter();
    let mine = mine.filter(|it| it.spec.host == host.name() && it.exit.is_none());
    let files: Vec<String> = mine.map(|it| format!("/proc/{}/stat", it.pid)).collect();
    ensure!(!files.is_empty(), "nothing runs on {}", host.name());
    let argv = ["cat".to_owned()].into_iter().chain(files);
    let text = lab.exec(Host::Hub, argv).await?.ok()?;
    let state = |line: &str| Some(line.rsplit_once(") ")?.1.split(' ').next()?.to_owned());
    text.lines()
        .map(|line| state(line).with_context(|| line.to_owned()))
        .collect()
}

async fn a_host_without_power_is_silent(lab: &Lab) -> Result<()> {
    lab.power_off(SECOND).await?;
    reaches(lab, CLIENT, SECOND, false).await?;
    let status = lab.status().await?;
    let mut mine = status
        .processes
        .iter()
        .filter(|it| it.spec.host == SECOND.name());
    ensure!(mine.all(|it| it.exit.is_some()), "a process lives");
    // Neighbours of a host that lost power see no carrier change on a switch.
    let argv = ["cat", "/sys/class/net/eth0/carrier"];
    ensure!(lab.exec(SECOND, argv).await?.ok()?.trim() == "1");
    // The switch says that it lives.
    lab.answer_for(&[SECOND], true).await?;
    reaches(lab, CLIENT, SECOND, true).await?;
    lab.answer_for(&[SECOND], false).await?;
    reaches(lab, CLIENT, SECOND, false).await?;
    lab.set_faults(&Faults::none()).await?;
    reaches(lab, CLIENT, SECOND, true).await
}
