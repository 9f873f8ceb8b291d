//! A Docker host of our own: dockerd under a supervisor, like the programs of a lab. Its
//! network namespace has no uplink, so traffic of tests cannot leave the machine. It has its
//! own `/run`, so several can run at once. Everything ends with the supervisor.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::UnixStream;

use super::programs::Programs;
use super::root::cp;
use crate::control::{Control, HUB, Output, ProcessSpec, Request};
use crate::eventually::eventually;
use crate::launch::{ended, spawn, supervise};
use crate::net::Families;
use crate::options::ProxyMode;
use crate::state::{Found, Place, Record};

/// The name of the process and of its log.
const DOCKERD: &str = "dockerd";
const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(20);
/// A path in the supervisor's own `/run`.
const SOCKET: &str = "unix:///run/docker.sock";
/// A name server that refuses at once: a query must fail, not time out.
const NO_NAME_SERVER: &str = "192.0.2.53";

/// The Debian packages of the required programs.
const TOOLS: [(&str, &str); 4] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("mmdebstrap", "mmdebstrap"),
];

/// A running Docker host.
#[derive(Debug)]
pub(super) struct DockerHost {
    place: Place,
    record: Record,
    control: Control,
    /// The connection whose end stops the host.
    owner: Option<UnixStream>,
}

impl DockerHost {
    /// Starts a host on a copy of a data folder with images, or on an empty one.
    pub(super) async fn start(
        name: &str,
        programs: &Programs,
        images: Option<&Path>,
    ) -> Result<Self> {
        check_tools()?;
        let place = Place::docker_host(name)?;
        let prepared = (place.clone(), images.map(Path::to_owned));
        let _lock =
            tokio::task::spawn_blocking(move || prepare(&prepared.0, prepared.1.as_deref()))
                .await??;
        let dir = place.dir();
        std::fs::write(dir.join("daemon.json"), settings(&place, programs)?)?;
        let record = Record {
            families: Families::Dual,
            proxy: ProxyMode::Iptables,
            cache: programs.dir().to_owned(),
            owned: true,
            ..Record::default()
        };
        // The port has no target until a cluster's API server uses it.
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 6443));
        let (mut record, control, owner) = supervise(&place, target, record).await?;
        record.ready = true;
        place.write(&record)?;
        let own = Self {
            place,
            record,
            control,
            owner: Some(owner),
        };
        own.start_docker().await?;
        Ok(own)
    }

    /// The running host of that name.
    pub(super) fn attach(name: &str) -> Result<Option<Self>> {
        let place = Place::docker_host(name)?;
        let Found::Running(record) = place.find()? else {
            return Ok(None);
        };
        let control = Control::new(&place.dir());
        Ok(Some(Self {
            place,
            record,
            control,
            owner: None,
        }))
    }

    async fn start_docker(&self) -> Result<()> {
        self.control
            .exec(HUB, &["ip", "link", "set", "lo", "up"], START_TIME)
            .await?
            .ok()?;
        let config = self.place.dir().join("daemon.json");
        let config = config.to_string_lossy();
        self.spawn(DOCKERD, &[DOCKERD, "--config-file", &config])
            .await?;
        eventually(START_TIME, || async {
            if let Ok(exit) = self.wait(DOCKERD, Duration::ZERO).await {
                return Ok(Err(exit));
            }
            self.control
                .exec(HUB, &["docker", "info"], START_TIME)
                .await?
                .ok()?;
            Ok(Ok(()))
        })
        .await?
        .map_err(|exit: crate::Exit| {
            let log = std::fs::read_to_string(self.log(DOCKERD)).unwrap_or_default();
            ended(DOCKERD, exit, &log)
        })
    }

    async fn wait(&self, name: &str, time: Duration) -> Result<crate::Exit> {
        let wait = Request::Wait {
            name: name.to_owned(),
            timeout_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        };
        self.control.call(&wait).await
    }

    /// Stops dockerd in an orderly way, so that its data folder can be kept.
    pub(super) async fn stop_docker(&self) -> Result<()> {
        self.stop_process(DOCKERD).await
    }

    /// Starts a process that ends with the host.
    pub(super) async fn spawn(&self, name: &str, argv: &[&str]) -> Result<()> {
        let spec = ProcessSpec {
            name: name.to_owned(),
            host: HUB.to_owned(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: std::collections::BTreeMap::new(),
        };
        spawn(&self.control, spec).await
    }

    /// Stops a process that [`DockerHost::spawn`] started.
    pub(super) async fn stop_process(&self, name: &str) -> Result<()> {
        self.control
            .call::<()>(&Request::Kill {
                name: name.to_owned(),
                signal: nix::sys::signal::Signal::SIGTERM as i32,
            })
            .await?;
        self.wait(name, STOP_TIME).await.map(drop)
    }

    /// Runs a command and returns its output.
    pub(super) async fn exec(&self, argv: &[&str], stdin: &str, time: Duration) -> Result<Output> {
        self.control.exec_with(HUB, argv, stdin, time).await
    }

    /// Its state folder.
    pub(super) fn dir(&self) -> PathBuf {
        self.place.dir()
    }

    /// Its folder of images and containers.
    pub(super) fn data(&self) -> PathBuf {
        data(&self.place)
    }

    /// The path of a process's log.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{name}.log"))
    }

    /// Arguments of `nsenter` that enter the host.
    pub(super) fn enter(&self) -> Result<Vec<String>> {
        crate::enter(self.record.pid, HUB)
            .with_context(|| format!("the Docker host {} has ended", self.place.name()))
    }

    /// Lets it continue after this process.
    pub(super) async fn detach(&mut self) -> Result<()> {
        self.control.call::<()>(&Request::Detach).await?;
        self.owner = None;
        Ok(())
    }

    /// Stops it and removes everything that it left.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.owner = None;
        let place = self.place.clone();
        tokio::task::spawn_blocking(move || remove(&place).map(drop)).await?
    }
}

impl Drop for DockerHost {
    fn drop(&mut self) {
        if self.owner.is_some()
            && let Err(error) = self.place.destroy()
        {
            eprintln!(
                "the Docker host {} could not be removed: {error:#}",
                self.place.name()
            );
        }
    }
}

/// Stops the Docker host at this place, if any, and removes what is left.
pub(super) fn remove(place: &Place) -> Result<bool> {
    let _lock = place.lock()?;
    place.destroy()
}

/// The error if another host of this name is running.
pub(super) fn runs_already(place: &Place) -> String {
    format!(
        "the Docker host {0} runs already; end it with `kind host stop {0}`",
        place.name()
    )
}

fn data(place: &Place) -> PathBuf {
    place.dir().join("docker")
}

fn prepare(place: &Place, images: Option<&Path>) -> Result<std::fs::File> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a Docker host makes network namespaces and runs containers: run it as root");
    }
    let lock = place.lock()?;
    if let Found::Running(_) = place.find()? {
        bail!(runs_already(place));
    }
    place.destroy()?;
    let dir = place.dir();
    std::fs::create_dir_all(dir.join("logs"))?;
    std::fs::write(dir.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    std::fs::write(
        dir.join("resolv.conf"),
        format!("nameserver {NO_NAME_SERVER}\n"),
    )?;
    match images {
        Some(images) => copy(images, &data(place))?,
        None => std::fs::create_dir_all(data(place))?,
    }
    Ok(lock)
}

/// Layers of images never change, so hard links are enough for their files. Files that dockerd
/// writes to are copied.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let link = entry.file_name() == "overlay2" && cp(&["-al"], &path, &target).is_ok();
        if !link {
            // Probably another file system.
            let _ = std::fs::remove_dir_all(&target);
            cp(&["-a"], &path, &target)?;
        }
    }
    Ok(())
}

fn settings(place: &Place, programs: &Programs) -> Result<String> {
    let settings = serde_json::json!({
        "data-root": data(place),
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "hosts": [SOCKET],
        "storage-driver": "overlay2",
        "cgroup-parent": place.cgroup(),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "default-runtime": "bounded",
        "runtimes": {"bounded": {"path": programs.program("runc")}},
        "dns": [NO_NAME_SERVER],
        "shutdown-timeout": 5,
    });
    Ok(serde_json::to_string_pretty(&settings)?)
}

fn check_tools() -> Result<()> {
    let mut missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !crate::binaries::on_path(tool))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if !missing.is_empty() {
        bail!(
            "kind needs programs that are not installed: apt-get install {}",
            missing.join(" ")
        );
    }
    Ok(())
}
