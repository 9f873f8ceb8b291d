//! Single scenarios of the driver, in virtual time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::fake::{Faults, Link, Server};
use crate::process::lease::{Config, Election, Ended, Fence, Leadership, Loss, Timing};

/// A running candidate.
struct Running {
    leadership: watch::Receiver<Leadership>,
    fence: Fence,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Ended>,
}

fn run(name: &str, link: Link) -> Running {
    let config = Config::with_identity(name.to_owned(), Timing::default()).unwrap();
    start(Election::new(link, config))
}

fn start(election: Election<Link>) -> Running {
    let (stop, stopped) = oneshot::channel();
    Running {
        leadership: election.leadership(),
        fence: election.fence(),
        stop: Some(stop),
        task: tokio::spawn(election.run(async {
            // It ends only on a stop, not when the test drops the sender.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        })),
    }
}

impl Running {
    async fn until(&mut self, wanted: &Leadership, within: Duration) -> Duration {
        let start = Instant::now();
        timeout(within, self.leadership.wait_for(|now| now == wanted))
            .await
            .unwrap_or_else(|_| panic!("not {wanted:?} within {within:?}"))
            .unwrap();
        start.elapsed()
    }

    async fn leads(&mut self, epoch: u32, within: Duration) -> Duration {
        self.until(&Leadership::Leading { epoch }, within).await
    }

    async fn stop(mut self) -> Ended {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap()
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec(server: &Server) -> LeaseSpec {
    server.lease().unwrap().spec.unwrap()
}

/// `Instant` stops while a machine is suspended, and another candidate can lead in the
/// meantime.
#[tokio::test(start_paused = true)]
async fn a_suspended_machine_does_not_lead_when_it_resumes() {
    static SUSPENDED: AtomicU64 = AtomicU64::new(1_000);
    let server = Server::default();
    let config = Config::with_identity("a".to_owned(), Timing::default()).unwrap();
    let election = Election::new(server.link(1), config);
    let clock = || Duration::from_secs(SUSPENDED.load(Ordering::Relaxed));
    let mut a = start(election.with_suspended(clock));
    a.leads(0, secs(1)).await;
    assert_eq!(
        a.fence.epoch(),
        Some(0),
        "suspensions before the term do not count"
    );
    SUSPENDED.fetch_add(9, Ordering::Relaxed);
    sleep(secs(5)).await;
    assert_eq!(a.fence.epoch(), Some(0), "renewed since");
    SUSPENDED.fetch_add(60, Ordering::Relaxed);
    assert_eq!(a.fence.epoch(), None);
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_at_once_and_keeps_leading() {
    let server = Server::default();
    let mut a = run("a", server.link(1));
    assert!(a.leads(0, secs(1)).await < Duration::from_millis(100));
    let mut b = run("b", server.link(2));
    let holder = Some("a".to_owned());
    b.until(&Leadership::Standby { holder }, secs(1)).await;
    sleep(secs(600)).await;
    assert_eq!(a.fence.epoch(), Some(0));
    assert_eq!(b.fence.epoch(), None);
    // One write per retry period from the leader, none from the other.
    assert!(
        (290..=302).contains(&server.writes()),
        "{}",
        server.writes()
    );
}

#[tokio::test(start_paused = true)]
async fn a_release_hands_over_within_a_retry_period() {
    let server = Server::default();
    let mut a = run("a", server.link(1));
    a.leads(0, secs(1)).await;
    let mut b = run("b", server.link(2));
    sleep(secs(30)).await;
    let mut leadership = a.leadership.clone();
    assert_eq!(a.stop().await, Ended::Stopped);
    assert_eq!(
        *leadership.borrow_and_update(),
        Leadership::Standby { holder: None }
    );
    assert!(b.leads(1, secs(3)).await <= Duration::from_millis(2_100));
}

#[tokio::test(start_paused = true)]
async fn a_release_says_so_and_keeps_the_rest() {
    let server = Server::default();
    server.edit(|lease| {
        let mut labelled = Lease::default();
        labelled.metadata.labels = Some([("team".to_owned(), "net".to_owned())].into());
        *lease = Some(labelled);
    });
    let mut a = run("a", server.link(1));
    a.leads(1, secs(1)).await;
    let held = spec(&server);
    assert_eq!(held.holder_identity.as_deref(), Some("a"));
    assert_eq!(held.lease_duration_seconds, Some(15));
    assert!(held.acquire_time.is_some() && held.renew_time.is_some());
    a.stop().await;
    let released = spec(&server);
    assert_eq!(released.holder_identity.as_deref(), Some(""));
    assert_eq!(released.lease_duration_seconds, Some(1));
    assert_eq!(released.lease_transitions, Some(1));
    assert!(server.lease().unwrap().metadata.labels.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cut_leader_is_lost_before_another_leads() {
    let server = Server::default();
    let link = server.link(1);
    let mut a = run("a", link.clone());
    a.leads(0, secs(1)).await;
    let mut b = run("b", server.link(2));
    sleep(secs(30)).await;
    link.set(Faults {
        cut: true,
        ..Faults::default()
    });
    let lost = a.until(&Leadership::Lost, secs(11)).await;
    assert_eq!(a.fence.epoch(), None);
    assert_eq!(a.task.await.unwrap(), Ended::Lost(Loss::Deadline));
    let led = b.leads(1, secs(11)).await;
    assert!(lost <= secs(10) && led >= secs(4), "{lost:?} {led:?}");
    assert!(lost + led <= secs(15 + 2 * 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_ends_with_the_deadline_whatever_hangs() {
    for phase in 0..20 {
        let server = Server::default();
        let link = server.link(1);
        let mut a = run("a", link.clone());
        a.leads(0, secs(1)).await;
        sleep(secs(30) + Duration::from_millis(phase * 100)).await;
        link.set(Faults {
            cut: true,
            ..Faults::default()
        });
        while a.fence.epoch().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        // The fence closes by the clock, the task by a timer that rounds up to a millisecond.
        sleep(Duration::from_millis(2)).await;
        assert_eq!(*a.leadership.borrow(), Leadership::Lost, "phase {phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_survives_an_outage_shorter_than_its_deadline() {
    let server = Server::default();
    let link = server.link(1);
    let mut a = run("a", link.clone());
    a.leads(0, secs(1)).await;
    for fault in 0..3 {
        link.set(Faults {
            cut: fault == 0,
            fail: if fault == 1 { 1.0 } else { 0.0 },
            lose_answer: if fault == 2 { 1.0 } else { 0.0 },
            ..Faults::default()
        });
        sleep(secs(4)).await;
        link.set(Faults::default());
        sleep(secs(20)).await;
        assert_eq!(a.fence.epoch(), Some(0), "fault {fault}");
    }
    assert!(!a.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_take_over_costs_a_call_and_no_term() {
    let server = Server::default();
    let link = server.link(1).with_faults(Faults {
        lose_answer: 1.0,
        ..Faults::default()
    });
    let mut a = run("a", link.clone());
    // Reads must succeed, so that it gets as far as a write.
    while server.lease().is_none() {
        link.set(Faults::default());
        sleep(Duration::from_millis(5)).await;
        link.set(Faults {
            lose_answer: 1.0,
            ..Faults::default()
        });
        sleep(Duration::from_millis(20)).await;
    }
    link.set(Faults::default());
    a.leads(0, secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_or_deleted_is_lost() {
    for deleted in [false, true] {
        let server = Server::default();
        let mut a = run("a", server.link(1));
        a.leads(0, secs(1)).await;
        server.edit(|lease| {
            if deleted {
                *lease = None;
            } else if let Some(spec) = lease.as_mut().and_then(|l| l.spec.as_mut()) {
                spec.holder_identity = Some("x".to_owned());
            }
        });
        a.until(&Leadership::Lost, secs(3)).await;
        let loss = if deleted {
            Loss::Deleted
        } else {
            let by = Some("x".to_owned());
            Loss::Taken { by }
        };
        assert_eq!(a.task.await.unwrap(), Ended::Lost(loss));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_election_does_not_leave_leading_behind() {
    let server = Server::default();
    let mut a = run("a", server.link(1));
    a.leads(0, secs(1)).await;
    a.task.abort();
    a.until(&Leadership::Lost, secs(1)).await;
    assert_eq!(a.fence.epoch(), None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_server_ends() {
    let server = Server::default();
    let link = server.link(1);
    let mut a = run("a", link.clone());
    a.leads(0, secs(1)).await;
    link.set(Faults {
        cut: true,
        ..Faults::default()
    });
    let start = Instant::now();
    assert_eq!(a.stop().await, Ended::Stopped);
    assert!(start.elapsed() <= secs(10 + 4));
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_renewal_releases() {
    let server = Server::default();
    let slow = Faults {
        latency: 400..800,
        ..Faults::default()
    };
    let mut a = run("a", server.link(1).with_faults(slow));
    a.leads(0, secs(5)).await;
    let writes = server.writes();
    while server.writes() == writes {
        sleep(Duration::from_millis(10)).await;
    }
    // Carried out, but the answer is still on the way.
    a.stop().await;
    assert_eq!(spec(&server).holder_identity.as_deref(), Some(""));
}
