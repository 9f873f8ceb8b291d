//! The supervisor's control socket, its forwarded port, and the implementation of each request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify};

use super::hosts::Host;
use super::processes::{Processes, exec};
use crate::control::{ExecSpec, HUB, HostSpec, Reply, Request, Status};

/// A lab without an owner after this time was left behind by a `lab up` that died.
const ORPHAN_AFTER: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Supervisor {
    /// Each host with the cgroup that contains its containers, if any.
    hosts: Mutex<BTreeMap<String, (Host, String)>>,
    processes: Processes,
    owned: AtomicBool,
    detached: AtomicBool,
    end: Notify,
}

pub(super) async fn run(
    dir: PathBuf,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> Result<()> {
    let hub = Host::hub()?;
    let supervisor = Arc::new(Supervisor {
        hosts: Mutex::new(BTreeMap::from([(HUB.to_owned(), (hub, String::new()))])),
        processes: Processes::new(&dir),
        owned: AtomicBool::new(false),
        detached: AtomicBool::new(false),
        end: Notify::new(),
    });
    listener.set_nonblocking(true)?;
    tokio::spawn(forward(TcpListener::from_std(listener)?, target));
    let socket = UnixListener::bind(dir.join("ctl.sock"))?;
    let orphan = tokio::time::sleep(ORPHAN_AFTER);
    tokio::pin!(orphan);
    loop {
        tokio::select! {
            connection = socket.accept() => {
                let (stream, _) = connection?;
                tokio::spawn(serve(Arc::clone(&supervisor), stream));
            }
            () = supervisor.end.notified() => return Ok(()),
            () = &mut orphan, if !supervisor.owned.load(Ordering::Relaxed) => bail!("no process took ownership of this lab"),
        }
    }
}

/// Forwards connections from the machine's loopback to the API server.
async fn forward(listener: TcpListener, target: SocketAddr) {
    loop {
        let Ok((mut outside, _)) = listener.accept().await else {
            // Probably out of file descriptors: other connections must close first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::spawn(async move {
            if let Ok(mut inside) = TcpStream::connect(target).await {
                let _ = outside.set_nodelay(true);
                let _ = inside.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}

async fn serve(supervisor: Arc<Supervisor>, mut stream: UnixStream) {
    let mut line = String::new();
    if BufReader::new(&mut stream)
        .read_line(&mut line)
        .await
        .is_err()
    {
        return;
    }
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => return answer(&mut stream, Err(anyhow!("unknown request: {error}"))).await,
    };
    if matches!(request, Request::Own) {
        supervisor.owned.store(true, Ordering::Relaxed);
        answer(&mut stream, Ok(Value::Null)).await;
        // The owner sends nothing more; the end of the stream is its end.
        let _ = stream.read_u8().await;
        if !supervisor.detached.load(Ordering::Relaxed) {
            println!("the owner is gone");
            supervisor.end.notify_one();
        }
        return;
    }
    let result = supervisor.perform(request).await;
    answer(&mut stream, result).await;
}

async fn answer(stream: &mut UnixStream, result: Result<Value>) {
    let reply = match result {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(format!("{error:#}")),
    };
    if let Ok(mut line) = serde_json::to_vec(&reply) {
        line.push(b'\n');
        let _ = stream.write_all(&line).await;
    }
}

impl Supervisor {
    async fn perform(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Own => Value::Null,
            Request::Detach => {
                self.detached.store(true, Ordering::Relaxed);
                Value::Null
            }
            Request::AddHost(spec) => json!(self.add_host(spec).await?),
            Request::RemoveHost { host } => json!(self.remove_host(&host).await?),
            Request::SignalHost { host, signal } => {
                json!(self.signal_host(&host, Signal::try_from(signal)?).await?)
            }
            Request::Spawn(spec) => json!(
                self.processes
                    .spawn(&self.host(&spec.host).await?, spec)
                    .await?
            ),
            Request::Start { name } => {
                let spec = self.processes.spec(&name)?;
                json!(
                    self.processes
                        .spawn(&self.host(&spec.host).await?, spec)
                        .await?
                )
            }
            Request::Kill { name, signal } => json!(self.processes.kill(&name, signal)?),
            Request::Wait { name, timeout_ms } => {
                json!(
                    self.processes
                        .wait(&name, Duration::from_millis(timeout_ms))
                        .await?
                )
            }
            Request::Exec(spec) => json!(exec(&self.host(&spec.host).await?, &spec).await?),
            Request::Status => json!(Status {
                hosts: self.hosts.lock().await.keys().cloned().collect(),
                processes: self.processes.status(),
            }),
            Request::Shutdown => {
                self.end.notify_one();
                Value::Null
            }
        })
    }

    async fn host(&self, name: &str) -> Result<Host> {
        let hosts = self.hosts.lock().await;
        hosts
            .get(name)
            .map(|(host, _)| host.clone())
            .ok_or_else(|| {
                let names: Vec<&str> = hosts.keys().map(String::as_str).collect();
                anyhow!("no host is called {name}; there are: {}", names.join(", "))
            })
    }

    async fn add_host(&self, spec: HostSpec) -> Result<()> {
        if self.hosts.lock().await.contains_key(&spec.name) {
            bail!("{} is there already", spec.name);
        }
        let (host, hub) = (Host::create(&spec).await?, self.host(HUB).await?);
        let me = std::process::id().to_string();
        let links: Vec<String> = spec
            .links
            .iter()
            .map(|line| line.replace("{hub}", &me))
            .collect();
        ip_batch(&host, &links)
            .await
            .with_context(|| format!("the links of {}", spec.name))?;
        ip_batch(&hub, &spec.hub_links)
            .await
            .with_context(|| format!("the hub's side of {}", spec.name))?;
        ip_batch(&host, &spec.routes)
            .await
            .with_context(|| format!("the routes of {}", spec.name))?;
        self.hosts
            .lock()
            .await
            .insert(spec.name, (host, spec.cgroup));
        Ok(())
    }

    async fn remove_host(&self, name: &str) -> Result<()> {
        self.signal_host(name, Signal::SIGKILL).await?;
        self.hosts.lock().await.remove(name);
        self.processes.forget_host(name);
        Ok(())
    }

    /// Signals every process of a host, those that start in the meantime too.
    async fn signal_host(&self, name: &str, signal: Signal) -> Result<()> {
        if name == HUB {
            bail!("the supervisor itself runs on the hub");
        }
        let host = self.host(name).await?;
        let namespace = host
            .run(|| std::fs::metadata("/proc/thread-self/ns/mnt").map(|file| file.ino()))
            .await??;
        let cgroup = self.hosts.lock().await.get(name).map(|it| it.1.clone());
        let cgroup = cgroup.unwrap_or_default();
        let mut signalled = BTreeSet::new();
        // No process twice in a row: the second look finds processes that were just being
        // started. A killed process is in the list until it is dead.
        let mut quiet = 0;
        while quiet < 2 {
            let mut found = false;
            for pid in processes_of(namespace, &cgroup)? {
                let new = signalled.insert(pid);
                if new || signal == Signal::SIGKILL {
                    found = true;
                    let _ = kill(pid, signal);
                }
            }
            quiet = if found { 0 } else { quiet + 1 };
            if signal == Signal::SIGKILL {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// The live processes in a mount namespace (except this one's own threads) or in a cgroup.
fn processes_of(namespace: u64, cgroup: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let dir = entry.path();
        let inside =
            std::fs::metadata(dir.join("ns/mnt")).is_ok_and(|file| file.ino() == namespace);
        let below = !cgroup.is_empty()
            && std::fs::read_to_string(dir.join("cgroup")).is_ok_and(|text| {
                text.lines()
                    .any(|line| line.contains(&format!(":{cgroup}/")))
            });
        let dead =
            std::fs::read_to_string(dir.join("stat")).map_or(true, |stat| stat.contains(") Z "));
        if (inside || below) && !dead && pid > 1 {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

async fn ip_batch(host: &Host, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let argv = ["ip", "-batch", "-"].map(str::to_owned).to_vec();
    let spec = ExecSpec {
        host: String::new(),
        argv,
        stdin: lines.join("\n") + "\n",
        timeout_ms: 10_000,
    };
    exec(host, &spec)
        .await?
        .ok()
        .with_context(|| format!("ip -batch:\n{}", lines.join("\n")))?;
    Ok(())
}
