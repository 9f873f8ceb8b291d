//! Nodes of a simulated cluster: loopback addresses with a node port that says which node
//! answers, and with kube-proxy's health port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use ballast_provider::{Target, TargetSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Nodes that all have the same ports, as in a cluster.
pub struct Nodes {
    pub node_port: u16,
    pub health_port: u16,
    pub list: Vec<Node>,
    tasks: JoinSet<()>,
}

pub struct Node {
    pub name: String,
    pub ip: IpAddr,
    /// The answer of `/healthz`.
    pub healthy: Arc<AtomicBool>,
}

/// A port that is free on these addresses.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 25).unwrap();
    // Below the ephemeral range, so that no client socket takes it, and above the reserved ones.
    12_000 + process * 800 + NEXT.fetch_add(1, Ordering::Relaxed) % 800
}

impl Nodes {
    /// Starts nodes `n1`, `n2`, …, each on its own address.
    pub async fn start(count: u8, with_health: bool) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let group = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
        let process = std::process::id() % 50;
        let mut nodes = Self {
            node_port: port(),
            health_port: port(),
            list: Vec::new(),
            tasks: JoinSet::new(),
        };
        for number in 1..=count {
            let ip: IpAddr = format!("127.{}.{group}.{number}", 10 + process)
                .parse()
                .unwrap();
            nodes.add(&format!("n{number}"), ip, with_health).await;
        }
        nodes
    }

    async fn add(&mut self, name: &str, ip: IpAddr, with_health: bool) {
        let healthy = Arc::new(AtomicBool::new(true));
        self.serve(name, ip, self.node_port).await;
        if with_health {
            let listener = TcpListener::bind((ip, self.health_port)).await.unwrap();
            self.tasks.spawn(healthz(listener, Arc::clone(&healthy)));
        }
        self.list.push(Node {
            name: name.into(),
            ip,
            healthy,
        });
    }

    /// Opens one more node port, TCP and UDP, on an address.
    pub async fn serve(&mut self, name: &str, ip: IpAddr, port: u16) {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let name = name.to_owned();
        self.tasks.spawn(tcp(listener, name.clone()));
        let socket = UdpSocket::bind((ip, port)).await.unwrap();
        self.tasks.spawn(udp(socket, name));
    }

    pub fn targets(&self, names: &[&str]) -> TargetSet {
        let wanted = self
            .list
            .iter()
            .filter(|node| names.contains(&node.name.as_str()));
        let target = |node: &Node| Target {
            name: node.name.clone(),
            provider_id: None,
            labels: std::sync::Arc::default(),
            addresses: vec![node.ip],
        };
        TargetSet::of_nodes(wanted.map(target).collect())
    }

    pub fn set_healthy(&self, name: &str, healthy: bool) {
        let node = self.list.iter().find(|node| node.name == name).unwrap();
        node.healthy.store(healthy, Ordering::SeqCst);
    }
}

/// Sends its name, then echoes. After the client's end it sends the number of bytes.
async fn tcp(listener: TcpListener, name: String) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let name = name.clone();
        tokio::spawn(async move {
            let mut total = 0;
            let mut buffer = vec![0; 64 * 1024];
            stream.write_all(format!("{name}\n").as_bytes()).await?;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    length => {
                        total += length;
                        stream.write_all(&buffer[..length]).await?;
                    }
                }
            }
            stream.write_all(format!("end {total}\n").as_bytes()).await
        });
    }
}

/// Answers each datagram with its name and the datagram.
async fn udp(socket: UdpSocket, name: String) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let mut answer = format!("{name} ").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, from).await;
    }
}

async fn healthz(listener: TcpListener, healthy: Arc<AtomicBool>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let status = if healthy.load(Ordering::SeqCst) {
            "200 OK"
        } else {
            "503 Service Unavailable"
        };
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap_or(0);
        assert!(request[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// A connection through the load balancer, and the name of the node that answered.
pub struct Connection {
    pub stream: TcpStream,
    pub node: String,
}

impl Connection {
    /// Returns `None` if the connection was reset or refused.
    pub async fn open(address: SocketAddr, from: Option<IpAddr>) -> Option<Self> {
        let socket = if address.is_ipv6() {
            tokio::net::TcpSocket::new_v6().unwrap()
        } else {
            tokio::net::TcpSocket::new_v4().unwrap()
        };
        if let Some(from) = from {
            socket.bind((from, 0).into()).unwrap();
        }
        let mut stream = socket.connect(address).await.ok()?;
        let node = line(&mut stream).await?;
        Some(Self { stream, node })
    }

    /// Whether it still carries bytes in both directions.
    pub async fn works(&mut self) -> bool {
        if self.stream.write_all(b"ping\n").await.is_err() {
            return false;
        }
        line(&mut self.stream).await.as_deref() == Some("ping")
    }
}

pub async fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte => line.push(byte),
        }
    }
}

/// Sends one datagram and waits a short time for its answer.
pub async fn ask(socket: &UdpSocket, text: &str) -> Option<String> {
    // The ICMP error of an earlier datagram appears here; it counts as no answer.
    socket.send(text.as_bytes()).await.ok()?;
    let mut buffer = [0; 2048];
    let wait = std::time::Duration::from_millis(500);
    let length = tokio::time::timeout(wait, socket.recv(&mut buffer))
        .await
        .ok()?
        .ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
