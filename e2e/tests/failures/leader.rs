//! The leader is killed, stopped, or suspended.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::installation::USER;
use ballast_e2e::{Host, Reach, Signal, eventually};
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use crate::common::crowd::{LOCAL, QUICK, Witness, names};
use crate::common::{Plan, SOON, Site};

const LEASE: &str = "ballast-controller";
/// A replica that has written nothing for this long has no write on its way.
const QUIET: Duration = Duration::from_millis(500);
const REPLICAS: [&str; 2] = ["ballast-1", "ballast-2"];
/// A slow cloud, so that a killed leader is in the middle of its work.
const SLOW: &[&str] = &[
    "--provisioning-latency",
    "800ms",
    "--deletion-latency",
    "800ms",
];

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_in_the_middle() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: SLOW,
        controller: QUICK,
        controllers: 2,
        ..Plan::new("t-fail-leader")
    }
    .run(async |site| {
        let witness = Witness::of(site);
        let kept = killed_while_one_is_made_and_deleted(site).await?;
        killed_between_any_two_effects(site, kept).await?;
        stopped_hands_over(site).await?;
        witness.is_content()?;
        Ok(())
    })
    .await
}

/// The simplest case: one Service, and the leader is killed while the cloud works on it.
async fn killed_while_one_is_made_and_deleted(site: &Site<'_>) -> Result<usize> {
    site.create("one", LOCAL).await?;
    in_state(site, "one", "provisioning").await?;
    let leader = replace_leader(site).await?;
    site.converges(1).await?;
    site.lab.start_again(leader).await?;
    site.delete_all(&["one".to_owned()]).await?;
    in_state(site, "one", "deleting").await?;
    let leader = replace_leader(site).await?;
    site.converges(0).await?;
    site.lab.start_again(leader).await?;
    Ok(0)
}

async fn in_state(site: &Site<'_>, name: &str, state: &str) -> Result<()> {
    eventually(SOON, || async {
        let now = site.in_cloud(name).await?;
        let now = now.as_ref().map(|now| &now["state"]);
        ensure!(now.is_some_and(|now| now == state), "it is {now:?}");
        Ok(())
    })
    .await
}

/// Kills the leader, waits until the other one leads, and returns the killed one.
async fn replace_leader(site: &Site<'_>) -> Result<&'static str> {
    let leader = site.ballast.leader(&REPLICAS).await?;
    site.ballast.kill(leader).await?;
    let killed = Instant::now();
    let other: Vec<&str> = REPLICAS.into_iter().filter(|it| *it != leader).collect();
    site.held_by(LEASE, &other).await?;
    println!(
        "{} took over from the killed {leader} after {:.1} s",
        other[0],
        killed.elapsed().as_secs_f32()
    );
    Ok(leader)
}

/// Many Services are created and deleted, and the leader is killed at moments when some of them
/// wait for the finalizer, some for the cloud's answer, some for the status.
async fn killed_between_any_two_effects(site: &Site<'_>, before: usize) -> Result<()> {
    let mut there: Vec<String> = Vec::new();
    for (round, moment) in [0, 15, 40, 80, 150, 300].into_iter().enumerate() {
        let come = names(&format!("round{round}"), 12);
        let go: Vec<String> = there.drain(..there.len().min(8)).collect();
        let leader = site.ballast.leader(&REPLICAS).await?;
        let kill = async {
            // This is not a wait for a condition: it is the moment of the fault.
            tokio::time::sleep(Duration::from_millis(moment)).await;
            site.ballast.kill(leader).await
        };
        tokio::try_join!(site.create_all(&come), site.delete_all(&go), kill)?;
        // A killed process cannot write any more; waiting for the end of its term adds nothing.
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(site.lab.kube(), "ballast-system");
        leases.delete(LEASE, &DeleteParams::default()).await?;
        site.lab.start_again(leader).await?;
        there.extend(come);
        site.converges(before + there.len()).await?;
        site.ballast.controller_ready(leader).await?;
    }
    site.delete_all(&there).await?;
    site.converges(before).await
}

/// A leader that is asked to stop hands over without delay: it gives up its Lease before it ends.
/// A killed leader would still hold it.
async fn stopped_hands_over(site: &Site<'_>) -> Result<()> {
    let leader = site.ballast.leader(&REPLICAS).await?;
    let other: Vec<&str> = REPLICAS.into_iter().filter(|it| *it != leader).collect();
    let crowd = names("handed-over", 12);
    site.create_all(&crowd).await?;
    let asked = Instant::now();
    site.lab.kill(leader, Signal::SIGTERM).await?;
    let exit = site.lab.wait_exit(leader, SOON).await?;
    let (ended, holder) = (asked.elapsed(), site.holder(LEASE).await?);
    ensure!(exit.success(), "{leader} ended with {exit}");
    ensure!(holder != leader, "{leader} has ended and holds the Lease");
    site.held_by(LEASE, &other).await?;
    let handed = asked.elapsed();
    println!("asked to stop: ended after {ended:.1?}, handed over after {handed:.1?}");
    site.converges(crowd.len()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_its_lease_writes_nothing() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &["--provisioning-latency", "3s"],
        controllers: 0,
        ..Plan::new("t-fail-fence")
    }
    .run(async |site| {
        let witness = Witness::of(site);
        stopped_for_longer_than_its_term(site).await?;
        stopped_in_a_wave_of_nodes(site).await?;
        cut_from_the_api_server(site).await?;
        witness.is_content()?;
        Ok(())
    })
    .await
}

/// Starts a replica with its own user name in the audit log.
async fn start_as(site: &Site<'_>, replica: &str, host: Host) -> Result<()> {
    let config = site
        .lab
        .kubeconfig_for_user(replica, &["system:masters"], Reach::Inside)?;
    let config = config.display().to_string();
    site.ballast
        .spawn_controller_as(replica, host, &config, QUICK)
        .await
}

async fn stopped_for_longer_than_its_term(site: &Site<'_>) -> Result<()> {
    start_as(site, "ballast-1", Host::ControlPlane).await?;
    site.ballast.leader(&["ballast-1"]).await?;
    site.ballast.start_controller("ballast-2", QUICK).await?;
    let crowd = names("frozen", 20);
    site.create_all(&crowd).await?;
    waits_for_the_cloud_only(site, "ballast-1", crowd.len()).await?;
    site.lab.kill("ballast-1", Signal::SIGSTOP).await?;
    site.held_by(LEASE, &["ballast-2"]).await?;
    site.converges(crowd.len()).await?;
    // When it resumes, another replica leads; here is work that it must not touch.
    let (since, all) = (site.audited()?, site.lab.audit_with_reads()?.len());
    site.delete_all(&crowd[..10]).await?;
    site.lab.kill("ballast-1", Signal::SIGCONT).await?;
    let exit = site.lab.wait_exit("ballast-1", SOON).await?;
    ensure!(exit.code == Some(3), "ballast-1 ended with {exit}");
    site.converges(crowd.len() - 10).await?;
    let written = writes_of(site, since, "ballast-1")?;
    ensure!(written.is_empty(), "without a lease: {written:?}");
    ensure!(
        !site.writes_since(since, USER)?.is_empty() && site.lab.audit_with_reads()?.len() > all,
        "the audit log says nothing at all"
    );
    Ok(())
}

/// Waits until a replica is in the middle of its work, and no request of it is on its way: it has
/// asked the cloud for every load balancer, none is ready, and it has written what it has to say
/// so far. A request that is on its way when the process stops may arrive after it goes on (see
/// `cluster/writer.rs`); that gap is known, and this test asks for what comes after it.
async fn waits_for_the_cloud_only(site: &Site<'_>, user: &str, count: usize) -> Result<()> {
    let written = Mutex::new((Instant::now(), 0));
    eventually(SOON, || async {
        let all = site.ballast.load_balancers().await?;
        let asked = all.iter().filter(|one| one["state"] == "provisioning");
        ensure!(asked.count() == count, "{} load balancers", all.len());
        let now = site.writes_since(0, user)?.len();
        let mut last = written.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1 != now {
            *last = (Instant::now(), now);
        }
        ensure!(last.0.elapsed() > QUIET, "{user} has just written");
        Ok(())
    })
    .await
}

/// The writes of a user, including its tries to renew the Lease. Refused requests do not count,
/// such as a renewal that the suspension interrupted.
fn writes_of(site: &Site<'_>, since: usize, user: &str) -> Result<Vec<String>> {
    let events = site.lab.audit()?.split_off(since);
    let own = events
        .iter()
        .filter(|event| event.user == user && event.code < 400);
    Ok(own.map(|event| format!("{event:?}")).collect())
}

/// A wave of node changes ends 0.3 s after the last one: a leader that is suspended before
/// resumes with targets that are long outdated.
async fn stopped_in_a_wave_of_nodes(site: &Site<'_>) -> Result<()> {
    site.apply("{apiVersion: v1, kind: Node, metadata: {name: paper}}")
        .await?;
    let address = r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.89.0.120"}]}}"#;
    let status = ["patch", "node", "paper", "--subresource=status", "-p"];
    site.lab
        .kubectl(&[&status[..], &[address]].concat())
        .await?;
    has_targets(site, 2).await?;
    site.ballast.start_controller("ballast-4", QUICK).await?;
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
    let label = ["label", "node", "paper"];
    let exclude = format!("{excluded}=");
    site.lab
        .kubectl(&[&label[..], &[&exclude]].concat())
        .await?;
    eventually(SOON, || async {
        let seen = site.count("ballast-2", "ballast_targets").await?;
        ensure!(seen == 1, "it has not seen the node yet");
        Ok(())
    })
    .await?;
    site.lab.kill("ballast-2", Signal::SIGSTOP).await?;
    site.held_by(LEASE, &["ballast-4"]).await?;
    let include = format!("{excluded}-");
    has_targets(site, 1).await?;
    site.lab
        .kubectl(&[&label[..], &[&include]].concat())
        .await?;
    has_targets(site, 2).await?;
    let before = site.ballast.calls().await?.total;
    site.lab.kill("ballast-2", Signal::SIGCONT).await?;
    let exit = site.lab.wait_exit("ballast-2", SOON).await?;
    ensure!(exit.code == Some(3), "ballast-2 ended with {exit}");
    let calls = site.cloud_calls(before).await?;
    ensure!(calls.is_empty(), "without a lease: {calls:?}");
    has_targets(site, 2).await
}

/// Waits until the class's only target set has this size.
async fn has_targets(site: &Site<'_>, count: usize) -> Result<()> {
    eventually(SOON, || async {
        let all = site.ballast.load_balancers().await?;
        let set = all.first().map(|one| one["desired"]["targetSet"].clone());
        let set = set
            .as_ref()
            .and_then(|set| set.as_str())
            .unwrap_or_default();
        let path = format!("/v1/target-sets/{set}");
        let set: serde_json::Value = serde_json::from_str(&site.ballast.cloud(&path).await?)?;
        let now = set["targets"].as_array().map_or(0, Vec::len);
        ensure!(now == count, "{now} targets, not {count}");
        Ok(())
    })
    .await
}

async fn cut_from_the_api_server(site: &Site<'_>) -> Result<()> {
    // The replica on the client's host must lead, so the others stop first.
    site.ballast.stop("ballast-4").await?;
    start_as(site, "ballast-3", Host::Client).await?;
    site.held_by(LEASE, &["ballast-3"]).await?;
    site.ballast.start_controller("ballast-2", QUICK).await?;
    let before = site.services().list(&ListParams::default()).await?;
    let count = before.items.len() - 1;
    site.lab.cut(Host::Client).await?;
    let cut = Instant::now();
    let more = names("behind", 5);
    site.create_all(&more).await?;
    let exit = site.lab.wait_exit("ballast-3", SOON).await?;
    println!(
        "cut from the API server: exit after {:.1?}, lease of 8 s",
        cut.elapsed()
    );
    // The cable is still cut, so it has noticed by itself. How fast, with an exact clock, is a
    // unit test of the election.
    ensure!(exit.code == Some(3), "ballast-3 ended with {exit}");
    site.lab.restore(Host::Client).await?;
    site.converges(count + more.len()).await
}
