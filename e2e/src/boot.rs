//! How a lab comes up, and how nodes come and go.
//!
//! Order: folder and certificates, supervisor, hub, then the control plane's chain (etcd, API
//! server, managers) and each node's chain (containerd, images, kubelet, kube-proxy) beside
//! one another. Until the end the lab dies with whoever starts it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::net::UnixStream;

use crate::binaries::{self, Cache};
use crate::components::{Component, Setup, node_mounts};
use crate::control::{Control, Exit, HUB, ProcessSpec, Request};
use crate::eventually::eventually;
use crate::lab::Lab;
use crate::net::{self, Host, MAX_NODES};
use crate::nodes::{node_processes, nodes_ready};
use crate::options::LabOptions;
use crate::progress::Progress;
use crate::state::{Found, Place, Record, start_time};
use crate::{Families, objects, supervisor};

/// Hosts beside the nodes.
const OTHERS: [Host; 4] = [
    Host::ControlPlane,
    Host::Cloud,
    Host::Client,
    Host::FarClient,
];

const API_TIME: Duration = Duration::from_secs(90);

/// See [`Lab::start`].
pub(crate) async fn start(options: LabOptions) -> Result<Lab> {
    if options.nodes > MAX_NODES {
        bail!("a lab has at most {MAX_NODES} nodes");
    }
    binaries::check_tools()?;
    let progress = Progress::new(options.progress);
    let cache = tokio::task::spawn_blocking(move || Cache::ensure(progress)).await??;
    let progress = Progress::new(options.progress);
    let place = Place::new(&options.name)?;
    let prepared = place.clone();
    // Held until the lab is up: nobody else may start or end it meanwhile.
    let _lock = tokio::task::spawn_blocking(move || prepare(&prepared)).await??;

    let mut lab = launch(&options, place, cache).await?;
    if let Err(error) = bring_up(&lab, &options, progress).await {
        let logs = lab.dir().join("logs");
        lab.fell_over()?;
        return Err(error.context(format!(
            "the lab did not come up; its logs stay in {} until the next try",
            logs.display()
        )));
    }
    lab.record.ready = true;
    lab.place.write(&lab.record)?;
    if !options.die_with_owner {
        lab.control.call::<()>(&Request::Detach).await?;
        lab.owner = None;
    }
    Ok(lab)
}

async fn bring_up(lab: &Lab, options: &LabOptions, progress: Progress) -> Result<()> {
    control_plane(lab, options, progress).await?;
    for host in OTHERS {
        if host != Host::ControlPlane {
            add_host(lab, host).await?;
        }
    }
    let numbers: Vec<u8> = (1..=options.nodes).collect();
    lab.lock_nodes().clone_from(&numbers);
    let nodes = async {
        futures::future::try_join_all(numbers.iter().map(|&node| node_processes(lab, node)))
            .await?;
        progress.say("images are imported, kubelets run");
        anyhow::Ok(())
    };
    let managers = async {
        api_ready(lab).await?;
        progress.say("the API server is ready");
        spawn(&lab.control, lab.setup.controller_manager()).await?;
        spawn(&lab.control, lab.setup.scheduler()).await?;
        objects::apply(&lab.client, &objects::dns(lab.setup.families)).await
    };
    tokio::try_join!(nodes, managers)?;
    nodes_ready(lab, &numbers).await?;
    progress.say(format!("{} nodes are ready", numbers.len()));
    if options.wait_dns {
        dns_ready(lab).await?;
        progress.say("kube-dns is ready");
    }
    Ok(())
}

fn prepare(place: &Place) -> Result<std::fs::File> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces and runs containers: run it as root");
    }
    let lock = place.lock()?;
    if let Found::Running(_) = place.find()? {
        bail!(
            "lab {0} runs already; end it with `lab down --name {0}`, or choose another --name",
            place.name()
        );
    }
    place.destroy()?;
    std::fs::create_dir_all(place.dir().join("logs"))?;
    Ok(lock)
}

/// Starts the supervisor, takes the lab, and lays the hub.
async fn launch(options: &LabOptions, place: Place, cache: Cache) -> Result<Lab> {
    let dir = place.dir();
    std::fs::write(dir.join("resolv.conf"), "")?;
    std::fs::write(
        dir.join("hosts"),
        hosts_file(options.families, &(1..=options.nodes).collect::<Vec<_>>()),
    )?;
    let target = SocketAddr::from((Host::ControlPlane.v4(), 6443));
    let record = Record {
        families: options.families,
        proxy: options.proxy,
        cache: cache.dir().to_owned(),
        owned: options.die_with_owner,
        ..Record::default()
    };
    let (record, control, owner) = supervise(&place, target, record).await?;
    let port = record.port;
    let setup = setup(&place, &record);
    tokio::task::spawn_blocking({
        let setup = setup.clone();
        move || setup.control_plane_files(port)
    })
    .await??;
    for (key, value) in net::sysctls(true) {
        let argv = ["sh", "-c", "echo \"$1\" >\"/proc/sys/$0\"", &key, &value];
        control
            .exec(HUB, &argv, Duration::from_secs(5))
            .await?
            .ok()?;
    }
    let lines = net::hub_setup(options.families).join("\n") + "\n";
    control
        .exec_with(HUB, &["ip", "-batch", "-"], &lines, Duration::from_secs(5))
        .await?
        .ok()?;
    let client = client(&place).await?;
    Ok(Lab {
        place,
        record,
        setup,
        control,
        client,
        nodes: Mutex::default(),
        artifacts: options.artifacts.clone(),
        owner: Some(owner),
    })
}

/// Starts a supervisor and takes it; fills in the record what is known only then. Its folder
/// must hold `hosts`, `resolv.conf` and `logs`.
pub(crate) async fn supervise(
    place: &Place,
    target: SocketAddr,
    record: Record,
) -> Result<(Record, Control, UnixStream)> {
    let dir = place.dir();
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on the loopback")?;
    let port = listener.local_addr()?.port();
    let child = supervisor::launch(&program()?, &dir, listener, target)?;
    let pid = child.id().cast_signed();
    reap(child);
    let record = Record {
        pid,
        started: start_time(pid)
            .context("the supervisor ended at once; see logs/supervisor.log in the state folder")?,
        port,
        ..record
    };
    place.write(&record)?;
    let control = Control::new(&dir);
    let owner = eventually(Duration::from_secs(10), || control.own())
        .await
        .with_context(|| {
            let log = std::fs::read_to_string(dir.join("logs/supervisor.log")).unwrap_or_default();
            format!("the supervisor does not answer; it said: {log}")
        })?;
    Ok((record, control, owner))
}

/// A lab that runs already, as a value.
pub(crate) async fn assemble(place: Place, record: Record) -> Result<Lab> {
    let control = Control::new(&place.dir());
    let status: crate::Status = control.call(&Request::Status).await?;
    let number = |name: &String| match Host::named(name) {
        Some(Host::Node(number)) => Some(number),
        _ => None,
    };
    let mut nodes: Vec<u8> = status.hosts.iter().filter_map(number).collect();
    nodes.sort_unstable();
    let client = client(&place).await?;
    let setup = setup(&place, &record);
    Ok(Lab {
        place,
        record,
        setup,
        control,
        client,
        nodes: Mutex::new(nodes),
        artifacts: None,
        owner: None,
    })
}

fn setup(place: &Place, record: &Record) -> Setup {
    Setup {
        dir: place.dir(),
        cgroup: place.cgroup(),
        cache: Cache::at(record.cache.clone()),
        families: record.families,
        proxy: record.proxy,
    }
}

async fn client(place: &Place) -> Result<Client> {
    let config = Kubeconfig::read_from(place.dir().join("pki/admin.kubeconfig"))?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    // Who waits does so by looking again, and wants to know what was wrong.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// The program that can be a supervisor: this one, if it is `lab`, or `lab` beside it.
fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("BALLAST_LAB_PROGRAM") {
        return Ok(program.into());
    }
    let me = std::env::current_exe()?;
    if me.file_name().is_some_and(|name| name == "lab") {
        return Ok(me);
    }
    let folders = me.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("lab")).find(|lab| lab.is_file()).ok_or_else(|| {
        anyhow!("the program `lab` is not beside {}; build it with `cargo build -p ballast-e2e --bin lab`", me.display())
    })
}

/// Takes note of the child's end, so that it does not stay a zombie while this process lives.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || child.wait());
}

pub(crate) fn hosts_file(families: Families, nodes: &[u8]) -> String {
    let mut lines = vec!["127.0.0.1 localhost".to_owned(), "::1 localhost".to_owned()];
    for host in OTHERS
        .into_iter()
        .chain(nodes.iter().map(|&node| Host::Node(node)))
    {
        lines.extend(
            host.addresses(families)
                .iter()
                .map(|address| format!("{address} {}", host.name())),
        );
    }
    lines.join("\n") + "\n"
}

pub(crate) async fn spawn(control: &Control, spec: ProcessSpec) -> Result<()> {
    control.call::<u32>(&Request::Spawn(spec)).await.map(drop)
}

pub(crate) async fn add_host(lab: &Lab, host: Host) -> Result<()> {
    let mut spec = net::host_spec(host, lab.setup.families, &lab.nodes());
    if let Host::Node(node) = host {
        (spec.binds, spec.scratch) = node_mounts(&lab.setup.node_dir(node));
        spec.cgroup = lab.setup.node_cgroup(node);
    }
    lab.control
        .call(&Request::AddHost(spec))
        .await
        .with_context(|| format!("cannot make the host {}", host.name()))
}

async fn control_plane(lab: &Lab, options: &LabOptions, progress: Progress) -> Result<()> {
    add_host(lab, Host::ControlPlane).await?;
    spawn(&lab.control, lab.setup.etcd()).await?;
    spawn(
        &lab.control,
        lab.setup
            .api_server(options.audit, &options.api_server_flags),
    )
    .await?;
    progress.say("etcd and the API server are starting");
    Ok(())
}

/// Waits until the API server says it is ready, or has ended.
pub(crate) async fn api_ready(lab: &Lab) -> Result<()> {
    let ready = eventually(API_TIME, || async {
        if let Some(dead) = dead(lab, &[Component::Etcd, Component::ApiServer]).await? {
            return Ok(Err(dead));
        }
        let request = http::Request::get("/readyz").body(vec![])?;
        lab.client.request_text(request).await?;
        Ok(Ok(()))
    });
    ready
        .await
        .context("the API server does not get ready; see `lab logs kube-apiserver`")?
}

/// Why it is pointless to wait: one of these has ended. Its last lines are what matters.
pub(crate) async fn dead(lab: &Lab, needed: &[Component]) -> Result<Option<anyhow::Error>> {
    let status = lab.status().await?;
    let names: Vec<String> = needed.iter().map(|component| component.name()).collect();
    let mut needed = status
        .processes
        .iter()
        .filter(|process| names.contains(&process.spec.name));
    let found = needed.find_map(|process| Some((&process.spec.name, process.exit?)));
    Ok(found.map(|(name, exit)| ended(name, exit, &lab.log(name).unwrap_or_default())))
}

/// That a process has ended, and what it said last.
pub(crate) fn ended(name: &str, exit: Exit, log: &str) -> anyhow::Error {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    anyhow!("{name} ended with {exit}; its last lines:\n{tail}")
}

async fn dns_ready(lab: &Lab) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(lab.kube(), "kube-system");
    eventually(Duration::from_mins(1), || async {
        let status = deployments.get("coredns").await?.status.unwrap_or_default();
        if status.ready_replicas.unwrap_or(0) > 0 {
            Ok(())
        } else {
            bail!("no replica is ready")
        }
    })
    .await
    .context("CoreDNS does not get ready; see `kubectl -n kube-system describe pods`")
}
