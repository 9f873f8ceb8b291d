//! How a lab starts, and how a program finds a running one.
//!
//! This is the top of the lab's modules, each of which uses only those after it: `boot`,
//! [`crate::nodes`], [`crate::hosts`], [`crate::lab`], [`crate::launch`].
//!
//! Order: folder and certificates, supervisor, hub, then in parallel the control plane's chain
//! (etcd, API server, managers) and each node's chain (containerd, images, kubelet,
//! kube-proxy). Until the start is complete, the lab ends with the process that starts it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::binaries::{self, Binaries};
use crate::components::Setup;
use crate::control::{Control, HUB, Request};
use crate::eventually::eventually;
use crate::hosts::{OTHERS, add_host, api_ready, hosts_file};
use crate::lab::{Lab, Reach};
use crate::launch::{spawn, supervise};
use crate::net::{self, Host, MAX_NODES};
use crate::nodes::{node_processes, nodes_ready};
use crate::objects;
use crate::options::LabOptions;
use crate::pki::Credential;
use crate::progress::Progress;
use crate::state::{Found, Place, Record};

impl Lab {
    /// Starts a lab and returns when all nodes are Ready. A dead lab of that name is replaced;
    /// a running one is an error.
    pub async fn start(options: LabOptions) -> Result<Self> {
        if options.nodes > MAX_NODES {
            bail!("a lab has at most {MAX_NODES} nodes");
        }
        binaries::check_tools()?;
        // A build takes minutes, so it is always reported. It prints nothing if it has nothing to do.
        let building = Progress::new(true);
        let cache = tokio::task::spawn_blocking(move || Binaries::ensure(building)).await??;
        let progress = Progress::new(options.progress);
        let place = Place::new(&options.name)?;
        let prepared = place.clone();
        // Held until the lab is up, so that no other process starts or ends it in the meantime.
        let _lock = tokio::task::spawn_blocking(move || prepare(&prepared)).await??;

        let mut lab = launch(&options, place, cache).await?;
        let doing = || format!("booting the lab {}", lab.name());
        let up = bring_up(&lab, &options, progress);
        if let Err(error) = progress.while_waiting(doing, up).await {
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

    /// The running lab of that name.
    pub async fn attach(name: &str) -> Result<Self> {
        let place = Place::new(name)?;
        let Found::Running(record) = place.find()? else {
            bail!("no lab {name} runs; start it with `lab up --name {name}`")
        };
        assemble(place, record).await
    }

    /// A client with a token of its own, such as one that was taken from a pod.
    pub async fn kube_with_token(&self, token: &str) -> Result<Client> {
        let token = Credential::Token(token);
        client(&self.write_kubeconfig("token", Reach::Machine, &token)?).await
    }
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

/// Starts the supervisor, takes ownership of the lab, and creates the hub.
async fn launch(options: &LabOptions, place: Place, cache: Binaries) -> Result<Lab> {
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
    let client = client(&place.dir().join("pki/admin.kubeconfig")).await?;
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

/// A value for a running lab.
async fn assemble(place: Place, record: Record) -> Result<Lab> {
    let control = Control::new(&place.dir());
    let status: crate::Status = control.call(&Request::Status).await?;
    let number = |name: &String| match Host::named(name) {
        Some(Host::Node(number)) => Some(number),
        _ => None,
    };
    let mut nodes: Vec<u8> = status.hosts.iter().filter_map(number).collect();
    nodes.sort_unstable();
    let client = client(&place.dir().join("pki/admin.kubeconfig")).await?;
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
        cache: Binaries::at(record.cache.clone()),
        families: record.families,
        proxy: record.proxy,
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    // A waiting caller polls, and needs the last error.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
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
