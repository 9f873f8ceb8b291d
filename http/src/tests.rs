use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::*;

const LIMITS: Limits = Limits {
    connections: 4,
    header_size: 8_192,
    header_time: Duration::from_millis(300),
    stall_time: Duration::from_millis(300),
};

/// Far more than a connection buffers.
const LARGE: usize = 64 * 1024 * 1024;

struct Site {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    /// Has a permit for each request that arrived at `/slow`.
    slow: Arc<Semaphore>,
    /// Every task of a connection without a request holds one reference.
    connections: Arc<Connections>,
}

async fn site(limits: Limits) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = Arc::new(Semaphore::new(0));
    let arrived = Arc::clone(&slow);
    let router = Router::new()
        .route("/", get(|| async { "here\n" }))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route(
            "/slow",
            get(async move || {
                arrived.add_permits(1);
                std::future::pending::<&'static str>().await
            }),
        );
    let shutdown = CancellationToken::new();
    let connections = Arc::new(Connections::new(limits));
    let (stop, open) = (shutdown.clone(), Arc::clone(&connections));
    let task = tokio::spawn(async move { accept(listener, router, limits, stop, &open).await });
    Site {
        address,
        shutdown,
        task,
        slow,
        connections,
    }
}

impl Site {
    async fn send(&self, text: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have closed it already; reading shows that.
        let _ = stream.write_all(text).await;
        stream
    }

    async fn answers(&self) -> bool {
        let mut stream = self.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.is_ok() && answer == *b"HTTP/1.1 200 OK"
    }
}

/// Reads until the other side closes the connection. Returns the number of bytes.
async fn drained(mut stream: TcpStream) -> usize {
    let (mut all, mut buffer) = (0, vec![0; 65_536]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        all += count;
    }
    all
}

#[tokio::test]
async fn a_head_that_is_not_finished_ends_the_connection() {
    let site = site(LIMITS).await;
    let begun = Instant::now();
    let stream = site.send(b"GET / HTTP/1.1\r\nhost:").await;
    assert_eq!(drained(stream).await, 0);
    assert!(begun.elapsed() >= LIMITS.header_time);
    assert!(site.answers().await);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let site = site(LIMITS).await;
    let head = format!("GET /?{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(64_000));
    let mut stream = site.send(head.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let site = site(LIMITS).await;
    let stream = site.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(LIMITS.stall_time * 3).await;
    assert!(drained(stream).await < LARGE);
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let patient = Limits {
        header_time: Duration::from_mins(5),
        ..LIMITS
    };
    let site = site(patient).await;
    let mut idle = Vec::new();
    for _ in 0..3 * LIMITS.connections {
        idle.push(site.send(b"GET / HTTP/1.1\r\n").await);
    }
    assert!(site.answers().await, "idle clients keep others out");
    let oldest = idle.remove(0);
    assert_eq!(drained(oldest).await, 0);

    // As many requests in progress as the limit allows: the next connection is closed.
    let mut slow = Vec::new();
    for _ in 0..LIMITS.connections {
        slow.push(site.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await);
        // A connection counts as busy only when the router has its request.
        site.slow.acquire().await.unwrap().forget();
    }
    assert!(!site.answers().await);
    slow.pop();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !site.answers().await {}
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections() {
    let site = site(Limits {
        header_time: Duration::from_mins(5),
        ..LIMITS
    })
    .await;
    let mut stream = site.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    site.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), site.task)
        .await
        .unwrap()
        .unwrap();
}

/// Opens more connections than the limit allows. Those that are idle are closed again.
async fn crowd(site: &Site, limits: Limits) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..3 * limits.connections {
        crowd.push(site.send(b"GET / HTTP/1.1\r\n").await);
    }
    assert!(site.answers().await);
    crowd
}

#[tokio::test]
async fn an_answer_in_progress_is_not_cut_off() {
    let patient = Limits {
        header_time: Duration::from_mins(5),
        stall_time: Duration::from_mins(5),
        ..LIMITS
    };
    let site = site(patient).await;
    let mut reader = site.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // The head is here, so the router has answered.
    reader.read_exact(&mut [0; 64]).await.unwrap();
    let crowd = crowd(&site, patient).await;
    assert!(
        tokio::time::timeout(Duration::from_mins(1), async {
            let mut left = LARGE;
            let mut buffer = vec![0; 65_536];
            while left > 0 {
                match reader.read(&mut buffer).await {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    _ => return false,
                }
            }
            true
        })
        .await
        .unwrap()
    );
    drop(crowd);
}

#[tokio::test]
async fn a_slow_reader_makes_room_when_no_connection_is_idle() {
    let limits = Limits {
        header_time: Duration::from_mins(5),
        ..LIMITS
    };
    let site = site(limits).await;
    let mut reader = site.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    reader.read_exact(&mut [0; 64]).await.unwrap();
    let mut slow = Vec::new();
    for _ in 1..limits.connections {
        slow.push(site.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await);
        site.slow.acquire().await.unwrap().forget();
    }
    // It reads enough not to be disconnected for its own sake.
    let trickle = tokio::spawn(async move {
        let (mut all, mut buffer) = (0, vec![0; 262_144]);
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            all += count;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        all
    });
    let read = tokio::time::timeout(Duration::from_mins(1), async {
        while !site.answers().await {}
        trickle.await.unwrap()
    });
    assert!(read.await.unwrap() < LARGE, "it kept its connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_make_room_end() {
    let limits = Limits {
        header_time: Duration::from_mins(5),
        ..LIMITS
    };
    let site = site(limits).await;
    // The site and the task that accepts hold two.
    let tasks = || Arc::strong_count(&site.connections) - 2;
    let mut idle = Vec::new();
    let mut most = 0;
    for _ in 0..40 * limits.connections {
        idle.push(site.send(b"GET / HTTP/1.1\r\n").await);
        most = most.max(tasks());
    }
    assert!(site.answers().await);
    assert!(most > 1);
    assert!(most <= limits.connections + 1, "{most} connections");
}
