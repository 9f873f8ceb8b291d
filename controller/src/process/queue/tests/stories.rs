//! Single scenarios, in virtual time.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    process::backoff::Backoff,
    process::queue::{Queue, Work},
};

/// Numbers from 1,000 are another group.
impl crate::process::queue::Key for u32 {
    type Group = bool;

    fn group(&self) -> bool {
        *self >= 1_000
    }
}

fn queue() -> Queue<u32> {
    Queue::with_rng(Backoff::default(), SmallRng::seed_from_u64(1))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The next key, if one is due now.
async fn now<K: crate::process::queue::Key>(queue: &Queue<K>) -> Option<Work<K>> {
    timeout(Duration::ZERO, queue.next()).await.ok().flatten()
}

/// The keys in order, with their times in seconds.
async fn arrivals(queue: &Queue<u32>, count: usize) -> Vec<(u32, u64)> {
    let start = Instant::now();
    let mut arrivals = Vec::new();
    for _ in 0..count {
        let work = queue.next().await.unwrap();
        arrivals.push((*work.key(), start.elapsed().as_secs()));
    }
    arrivals
}

#[tokio::test(start_paused = true)]
async fn first_in_first_out_and_each_once() {
    let queue = queue();
    for key in [3, 1, 2, 1, 3] {
        queue.add(key);
    }
    assert_eq!(queue.depth(), 3);
    assert_eq!(arrivals(&queue, 3).await, [(3, 0), (1, 0), (2, 0)]);
    assert!(now(&queue).await.is_none());
}

/// Without workers a key would only age, and its age signals that work has stopped.
#[tokio::test(start_paused = true)]
async fn an_idle_queue_takes_nothing_until_it_is_opened() {
    let queue = Queue::idle(Backoff::default());
    queue.add(1);
    queue.add_after(2, secs(1));
    queue.add_backoff(3);
    sleep(secs(3_600)).await;
    assert_eq!(
        (queue.depth(), queue.delayed(), queue.oldest_age()),
        (0, 0, None)
    );
    assert_eq!(queue.retries(&3), 0);
    queue.open();
    queue.add(4);
    assert_eq!(arrivals(&queue, 1).await, [(4, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_worked_on_comes_again_afterwards() {
    let queue = queue();
    queue.add(1);
    let work = queue.next().await.unwrap();
    queue.add(1);
    queue.add(1);
    assert_eq!((queue.depth(), queue.in_flight()), (0, 1));
    assert!(now(&queue).await.is_none());
    drop(work);
    assert_eq!((queue.depth(), queue.in_flight()), (1, 0));
    drop(queue.next().await);
    assert!(now(&queue).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_time_wins() {
    let queue = queue();
    queue.add_after(1, secs(10));
    queue.add_after(1, secs(5));
    queue.add_after(1, secs(20));
    queue.add_after(2, secs(7));
    queue.add(2);
    queue.add_after(3, Duration::MAX);
    assert_eq!((queue.depth(), queue.delayed()), (1, 2));
    assert_eq!(arrivals(&queue, 2).await, [(2, 0), (1, 5)]);
    sleep(secs(3600)).await;
    assert_eq!((queue.depth(), queue.delayed()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_delay_asked_for_during_the_work_counts_from_the_asking() {
    let queue = queue();
    queue.add(1);
    let work = queue.next().await.unwrap();
    queue.add_after(1, secs(10));
    sleep(secs(4)).await;
    drop(work);
    assert_eq!(arrivals(&queue, 1).await, [(1, 6)]);

    // The delay ends before the work does: the key comes right afterwards, not before.
    queue.add(1);
    let work = queue.next().await.unwrap();
    queue.add_after(1, secs(1));
    sleep(secs(4)).await;
    assert!(now(&queue).await.is_none());
    drop(work);
    assert_eq!(arrivals(&queue, 1).await, [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_are_forgotten() {
    let queue = queue();
    queue.add(1);
    for attempt in 0..12 {
        let start = Instant::now();
        let work = queue.next().await.unwrap();
        assert_eq!(queue.retries(&1), attempt);
        let delay = queue.add_backoff(*work.key());
        let from = secs(1 << attempt.min(8)).min(secs(150));
        assert!(from <= delay && delay <= (from * 2).min(secs(300)));
        if attempt > 0 {
            assert!(start.elapsed() > Duration::ZERO);
        }
    }
    // An edit need not wait for the backoff, and does not reset it.
    queue.add(1);
    drop(now(&queue).await.unwrap());
    assert_eq!(queue.retries(&1), 12);
    queue.forget(&1);
    assert_eq!(queue.retries(&1), 0);
    assert_eq!(queue.shared.with(|core, _| core.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn age_of_the_oldest() {
    let queue = queue();
    assert_eq!(queue.oldest_age(), None);
    queue.add_after(1, secs(5));
    sleep(secs(3)).await;
    assert_eq!(queue.oldest_age(), None);
    queue.add(2);
    sleep(secs(4)).await;
    assert_eq!(queue.oldest_age(), Some(secs(4)));
    let two = queue.next().await.unwrap();
    assert_eq!(*two, 2);
    // Since it was due, although no worker asked then.
    assert_eq!(queue.oldest_age(), Some(secs(2)));
    queue.add(2);
    drop(queue.next().await);
    assert_eq!(queue.oldest_age(), None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_cancellation_give_the_key_back() {
    let queue = queue();
    queue.add(1);
    let worker = queue.clone();
    let panicked = tokio::spawn(async move {
        let _work = worker.next().await;
        worker.add(1);
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!((queue.depth(), queue.in_flight()), (1, 0));

    let (worker, begun) = (queue.clone(), Arc::new(Notify::new()));
    let beginning = Arc::clone(&begun);
    let cancelled = tokio::spawn(async move {
        let _work = worker.next().await;
        beginning.notify_one();
        std::future::pending::<()>().await;
    });
    begun.notified().await;
    assert_eq!(queue.in_flight(), 1);
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    assert_eq!(queue.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_timekeeper_may_be_cancelled() {
    let queue = queue();
    // Both workers wait; the first is the timekeeper.
    let mut workers = Vec::new();
    for _ in 0..2 {
        let worker = queue.clone();
        workers.push(tokio::spawn(async move {
            worker.next().await.map(|work| *work.key())
        }));
        tokio::task::yield_now().await;
    }
    queue.add_after(1, secs(5));
    tokio::task::yield_now().await;
    workers.remove(0).abort();
    let start = Instant::now();
    assert_eq!(workers.remove(0).await.unwrap(), Some(1));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn keys_due_at_one_instant_wake_as_many_workers() {
    let (queue, seen) = (queue(), Arc::new(Seen::default()));
    let mut workers = JoinSet::new();
    for _ in 0..64 {
        workers.spawn(work(queue.clone(), Arc::clone(&seen)));
    }
    for key in 0..64 {
        queue.add_after(key, secs(5));
    }
    sleep(secs(5) + Duration::from_millis(5)).await;
    assert_eq!(queue.in_flight(), 64);
    queue.close();
    workers.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_earlier_delay_moves_the_alarm() {
    let queue = queue();
    queue.add_after(1, secs(100));
    let worker = queue.clone();
    let waiting = tokio::spawn(async move { arrivals(&worker, 2).await });
    sleep(secs(1)).await;
    queue.add_after(2, secs(1));
    assert_eq!(waiting.await.unwrap(), [(2, 2), (1, 100)]);
}

#[tokio::test(start_paused = true)]
async fn close_hands_out_nothing_more_and_drains() {
    let queue = queue();
    for key in 0..3 {
        queue.add(key);
    }
    queue.add_after(9, secs(1));
    let work = queue.next().await.unwrap();
    queue.add(*work.key());
    let waiting = {
        let idle = queue.clone();
        tokio::spawn(async move {
            drop((idle.next().await, idle.next().await));
            idle.next().await.is_none()
        })
    };
    tokio::task::yield_now().await;
    queue.close();
    queue.add(5);
    queue.add_backoff(6);
    assert!(waiting.await.unwrap());
    assert!(queue.next().await.is_none());
    assert!(timeout(secs(60), queue.drained()).await.is_err());
    drop(work);
    queue.drained().await;
    assert_eq!(queue.shared.with(|core, _| core.len()), 0);
    queue.close();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_drain_is_told() {
    let queue = queue();
    queue.add(1);
    let work = queue.next().await.unwrap();
    let drained = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.drained().await })
    };
    tokio::task::yield_now().await;
    queue.close();
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    drop(work);
    drained.await.unwrap();
}

/// The keys that the workers of a test got.
#[derive(Default)]
struct Seen {
    working: Mutex<HashSet<u32>>,
    done: AtomicUsize,
}

async fn work(queue: Queue<u32>, seen: Arc<Seen>) {
    while let Some(work) = queue.next().await {
        assert!(seen.working.lock().unwrap().insert(*work), "twice at once");
        sleep(Duration::from_millis(10)).await;
        assert!(seen.working.lock().unwrap().remove(&work));
        seen.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// 5,000 keys, due at once or over a minute, with 64 waiting workers.
async fn five_thousand(delay: fn(u32) -> Duration) -> Duration {
    let (queue, seen) = (queue(), Arc::new(Seen::default()));
    let mut workers = JoinSet::new();
    for _ in 0..64 {
        workers.spawn(work(queue.clone(), Arc::clone(&seen)));
    }
    tokio::task::yield_now().await;
    let start = Instant::now();
    for key in 0..5_000 {
        queue.add_after(key, delay(key));
    }
    while seen.done.load(Ordering::SeqCst) < 5_000 {
        sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    queue.close();
    workers.join_all().await;
    assert_eq!(seen.done.load(Ordering::SeqCst), 5_000);
    took
}

#[tokio::test(start_paused = true)]
async fn five_thousand_at_once_keep_every_worker_busy() {
    // 5,000 keys of 10 ms with 64 workers.
    let took = five_thousand(|_| Duration::ZERO).await;
    assert!(
        took <= Duration::from_millis(10 * (5_000 / 64 + 2)),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn five_thousand_delayed_come_on_time() {
    let took = five_thousand(|key| Duration::from_millis(u64::from(key) * 12)).await;
    assert!(took <= secs(60) + Duration::from_millis(20), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_threads_lose_no_wake_and_share_no_key() {
    let (queue, seen) = (queue(), Arc::new(Seen::default()));
    let mut workers = JoinSet::new();
    for _ in 0..16 {
        workers.spawn(work(queue.clone(), Arc::clone(&seen)));
    }
    let mut adders = JoinSet::new();
    for adder in 0..4 {
        let queue = queue.clone();
        adders.spawn(async move {
            for key in 0..500 {
                queue.add_after(key, Duration::from_micros(u64::from(key % 7) * adder));
                tokio::task::yield_now().await;
            }
        });
    }
    adders.join_all().await;
    let empty = async {
        while queue.depth() + queue.delayed() + queue.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(secs(60), empty).await.unwrap();
    queue.close();
    queue.drained().await;
    workers.join_all().await;
    assert!(seen.done.load(Ordering::SeqCst) >= 500);
}

#[tokio::test(start_paused = true)]
async fn a_group_with_many_keys_does_not_hold_up_the_others() {
    let queue = queue();
    for key in 0..100 {
        queue.add(key);
    }
    queue.add(1_000);
    queue.add(1_001);
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(*queue.next().await.unwrap());
    }
    assert_eq!(order, [0, 1_000, 1, 1_001, 2]);
}
