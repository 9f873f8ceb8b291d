//! Tests of the lab itself: what tests of Ballast rely on. Needs root and the packages that
//! `lab up` names; everything else is built.
//!
//! Most checks share one lab, because its start takes most of the time.

mod build;
mod cleanup;
mod traces;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{
    CLOUD_RANGE_V4, Component, DNS_V4, DNS_V6, Families, Host, Lab, LabOptions, ProxyMode, Reach,
    Signal, eventually,
};

use self::traces::{namespaces, processes, processes_of_all, traces};

const WEB: &str = include_str!("web.yaml");
const SOON: Duration = Duration::from_mins(1);

fn options(name: &str) -> LabOptions {
    LabOptions {
        name: name.to_owned(),
        ..LabOptions::default()
    }
}

async fn hostname(lab: &Lab, from: Host, at: &str) -> Result<String> {
    let url = format!("http://{at}/hostname");
    let argv = ["curl", "-sSg", "--max-time", "2", &url];
    lab.exec(from, argv)
        .await?
        .ok()
        .with_context(|| format!("{url} from {}", from.name()))
}

async fn web(lab: &Lab) -> Result<()> {
    lab.apply(WEB).await?;
    rolled_out(lab).await
}

/// After an outage of the API server, controllers and scheduler retry at growing intervals, up
/// to a minute (client-go's reflector: 30 s and jitter).
async fn rolled_out(lab: &Lab) -> Result<()> {
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=140s"])
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_is_a_cluster() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(LabOptions {
        wait_dns: true,
        ..options("t-main")
    })
    .await?;
    eprintln!(
        "two nodes and kube-dns are ready after {:.1} s",
        start.elapsed().as_secs_f32()
    );

    let from_start = lab.audit()?.len();
    web(&lab).await?;
    services_answer(&lab).await?;
    names_resolve(&lab).await?;
    writes_are_counted(&lab, from_start)?;
    users_have_their_own_rights(&lab).await?;
    the_cloud_has_its_range(&lab).await?;
    processes_are_kept(&lab).await?;
    components_restart(&lab).await?;
    cables_are_cut(&lab).await?;
    nodes_come_and_go(&lab).await?;
    logs_are_collected(&lab).await?;

    let name = lab.name().to_owned();
    // The supervisor's threads are in the hosts' namespaces, pods have their own; one is the
    // machine's.
    let mut ours = namespaces(&processes(&name));
    ours.remove(&std::fs::read_link("/proc/self/ns/net")?);
    ensure!(ours.len() >= 9, "{ours:?}");
    lab.down().await?;
    assert_eq!(traces(&name), BTreeSet::new());
    let left: Vec<_> = namespaces(&processes_of_all())
        .intersection(&ours)
        .cloned()
        .collect();
    ensure!(left.is_empty(), "network namespaces are left: {left:?}");
    Ok(())
}

async fn services_answer(lab: &Lab) -> Result<()> {
    for from in [Host::Client, Host::FarClient, Host::Cloud] {
        for at in [
            "10.89.0.11:30080",
            "10.89.0.12:30080",
            "[fd89::11]:30080",
            "[fd89::12]:30080",
            "node2:30080",
        ] {
            eventually(SOON, || hostname(lab, from, at)).await?;
        }
    }
    // With the policy Local, the client's address is preserved, even for a client behind the
    // router.
    for (at, client) in [
        ("10.89.0.11:30081", "192.0.2.2"),
        ("[fd89::11]:30081", "2001:db8:2::2"),
    ] {
        let url = format!("http://{at}/clientip");
        let seen = eventually(SOON, || async {
            lab.exec(Host::FarClient, ["curl", "-sSg", "-m2", &url])
                .await?
                .ok()
        })
        .await?;
        ensure!(seen.contains(client), "the pod saw {seen}, not {client}");
    }
    Ok(())
}

async fn names_resolve(lab: &Lab) -> Result<()> {
    let lookup = |server: &'static str| async move {
        let query = [
            "exec",
            "deployment/web",
            "--",
            "nslookup",
            "web.default.svc.cluster.local",
            server,
        ];
        lab.kubectl(&query).await
    };
    for server in [DNS_V4, DNS_V6] {
        let said = eventually(SOON, || lookup(server)).await?;
        ensure!(said.contains("10.96.") && said.contains("fd96:"), "{said}");
    }
    let page = lab
        .kubectl(&[
            "exec",
            "deployment/web",
            "--",
            "wget",
            "-qO-",
            "http://web/hostname",
        ])
        .await?;
    ensure!(page.starts_with("web-"), "{page}");
    let page = lab
        .kubectl(&[
            "exec",
            "deployment/web",
            "--",
            "curl",
            "-sS",
            "http://web.default/hostname",
        ])
        .await?;
    ensure!(page.starts_with("web-"), "{page}");
    Ok(())
}

fn writes_are_counted(lab: &Lab, from: usize) -> Result<()> {
    let events = lab.audit()?.split_off(from);
    let applied: Vec<_> = events
        .iter()
        .filter(|event| event.resource == "services" && event.name == "web")
        .collect();
    ensure!(applied.len() == 1, "{applied:?}");
    let event = applied[0];
    ensure!(
        event.verb == "patch"
            && event.user == "admin"
            && event.code == 201
            && event.namespace == "default",
        "{event:?}"
    );
    ensure!(
        events
            .iter()
            .all(|event| event.verb != "get" && event.verb != "list"),
        "reads are no writes"
    );
    Ok(())
}

async fn users_have_their_own_rights(lab: &Lab) -> Result<()> {
    let try_as = |config: PathBuf| async move {
        let path = config.to_string_lossy().into_owned();
        lab.kubectl(&["--kubeconfig", &path, "get", "services"])
            .await
    };
    let stranger = lab.kubeconfig_for_user("stranger", &["nobodies"], Reach::Machine)?;
    let refused = try_as(stranger).await.unwrap_err().to_string();
    ensure!(
        refused.contains("stranger") && refused.contains("cannot list"),
        "{refused}"
    );
    lab.kubectl(&[
        "create",
        "clusterrolebinding",
        "readers",
        "--clusterrole=view",
        "--group=readers",
    ])
    .await?;
    let reader = lab.kubeconfig_for_user("reader", &["readers"], Reach::Machine)?;
    eventually(SOON, || try_as(reader.clone())).await?;
    lab.kubectl(&["create", "serviceaccount", "robot"]).await?;
    let robot = lab
        .kubeconfig_for_service_account("default", "robot", Reach::Machine)
        .await?;
    let refused = try_as(robot).await.unwrap_err().to_string();
    ensure!(
        refused.contains("system:serviceaccount:default:robot"),
        "{refused}"
    );
    Ok(())
}

async fn the_cloud_has_its_range(lab: &Lab) -> Result<()> {
    assert_eq!(CLOUD_RANGE_V4, "10.89.200.0/24");
    let agnhost = lab.program("agnhost").to_string_lossy().into_owned();
    lab.spawn(
        "cloud-web",
        Host::Cloud,
        [agnhost.as_str(), "netexec", "--http-port=8099"],
        &[],
    )
    .await?;
    for from in [
        Host::Client,
        Host::FarClient,
        Host::Node(1),
        Host::ControlPlane,
    ] {
        for at in ["10.89.200.77:8099", "[fd89:0:0:200::77]:8099"] {
            let said = eventually(SOON, || hostname(lab, from, at)).await?;
            ensure!(said == "cloud", "{said}");
        }
    }
    lab.stop("cloud-web").await.map(drop)
}

async fn processes_are_kept(lab: &Lab) -> Result<()> {
    let argv = [
        "sh",
        "-c",
        "echo \"hello from $(hostname), $WHO\"; exec sleep 1000",
    ];
    lab.spawn("sleeper", Host::ControlPlane, argv, &[("WHO", "test")])
        .await?;
    let again = lab
        .spawn("sleeper", Host::ControlPlane, argv, &[])
        .await
        .unwrap_err()
        .to_string();
    ensure!(again.contains("runs already"), "{again}");
    eventually(SOON, || async {
        let log = lab.log("sleeper")?;
        if log == "hello from control-plane, test\n" {
            Ok(())
        } else {
            bail!("log: {log}")
        }
    })
    .await?;
    lab.kill("sleeper", Signal::SIGKILL).await?;
    let exit = lab.wait_exit("sleeper", SOON).await?;
    ensure!(exit.signal == Some(9), "{exit}");
    lab.restart("sleeper").await?;
    ensure!(lab.stop("sleeper").await?.signal == Some(15));
    let output = lab
        .exec_for(Host::Client, ["sleep", "60"], Duration::from_millis(200))
        .await?;
    ensure!(output.timed_out && !output.success(), "{output:?}");
    let unknown = lab
        .kill("nobody", Signal::SIGTERM)
        .await
        .unwrap_err()
        .to_string();
    ensure!(
        unknown.contains("kube-apiserver"),
        "says what there is: {unknown}"
    );
    Ok(())
}

async fn components_restart(lab: &Lab) -> Result<()> {
    lab.stop_component(Component::ApiServer).await?;
    ensure!(
        lab.kubectl(&["get", "nodes", "--request-timeout=1s"])
            .await
            .is_err(),
        "the API server still answers"
    );
    eventually(SOON, || hostname(lab, Host::Client, "10.89.0.11:30080"))
        .await
        .context("without an API server")?;
    lab.start_component(Component::ApiServer).await?;
    lab.kubectl(&["get", "nodes"]).await?;
    lab.restart_component(Component::Kubelet(1)).await?;
    lab.restart_component(Component::Proxy(1)).await?;
    lab.restart_component(Component::Containerd(1)).await?;
    eventually(SOON, || hostname(lab, Host::Client, "10.89.0.11:30080"))
        .await
        .context("after restarts")?;
    Ok(())
}

async fn cables_are_cut(lab: &Lab) -> Result<()> {
    lab.cut(Host::Node(2)).await?;
    ensure!(
        hostname(lab, Host::Client, "10.89.0.12:30080")
            .await
            .is_err(),
        "node2 answers without a cable"
    );
    lab.restore(Host::Node(2)).await?;
    for at in ["10.89.0.12:30080", "[fd89::12]:30080"] {
        eventually(SOON, || hostname(lab, Host::Client, at))
            .await
            .context("after the cable is back")?;
    }
    Ok(())
}

async fn nodes_come_and_go(lab: &Lab) -> Result<()> {
    let node = lab.add_node().await?;
    assert_eq!((node, lab.nodes()), (Host::Node(3), vec![1, 2, 3]));
    for at in ["10.89.0.13:30080", "[fd89::13]:30080"] {
        eventually(SOON, || hostname(lab, Host::FarClient, at)).await?;
    }
    lab.kubectl(&["scale", "deployment/web", "--replicas=3"])
        .await?;
    rolled_out(lab).await?;
    lab.remove_node(node).await?;
    assert_eq!(lab.nodes(), [1, 2]);
    ensure!(
        hostname(lab, Host::Client, "10.89.0.13:30080")
            .await
            .is_err()
    );
    let status = lab.status().await?;
    ensure!(
        !status
            .processes
            .iter()
            .any(|process| process.spec.host == "node3"),
        "{status:?}"
    );
    let cgroup = ":/ballast-lab/t-main/node3/";
    let left = processes(lab.name()).into_iter().filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.contains(cgroup))
    });
    assert_eq!(left.count(), 0, "pods of node3 are left");
    ensure!(!lab.kubectl(&["get", "nodes"]).await?.contains("node3"));
    Ok(())
}

async fn logs_are_collected(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir()?;
    lab.collect_logs(dir.path()).await?;
    for file in [
        "logs/kube-apiserver.log",
        "audit.log",
        "objects.yaml",
        "network/node1/nftables",
        "network/client/routes",
    ] {
        let size = std::fs::metadata(dir.path().join(file))
            .with_context(|| file.to_owned())?
            .len();
        ensure!(size > 0, "{file} is empty");
    }
    let rules = std::fs::read_to_string(dir.path().join("network/node1/nftables"))?;
    ensure!(rules.contains("kube-proxy"), "{rules}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lab_beside_with_iptables_and_one_family() -> Result<()> {
    let artifacts = tempfile::tempdir()?;
    let options = LabOptions {
        nodes: 1,
        families: Families::Ipv4,
        proxy: ProxyMode::Iptables,
        artifacts: Some(artifacts.path().to_owned()),
        ..options("t-beside")
    };
    let lab = Lab::start(options.clone()).await?;
    web(&lab).await?;
    eventually(SOON, || hostname(&lab, Host::FarClient, "10.89.0.11:30080")).await?;
    let rules = lab
        .exec(Host::Node(1), ["iptables-save", "-t", "nat"])
        .await?
        .ok()?;
    ensure!(
        rules.contains("KUBE-SERVICES") && rules.contains("30080"),
        "{rules}"
    );
    ensure!(lab.addresses(Host::Node(1)).len() == 1);
    let twice = Lab::start(options).await.unwrap_err().to_string();
    ensure!(twice.contains("runs already"), "{twice}");

    // A test that panics leaves the data for its analysis, and nothing else.
    let held = async move {
        let _lab = lab;
        panic!("on purpose");
    };
    ensure!(tokio::spawn(held).await.is_err());
    ensure!(
        artifacts
            .path()
            .join("t-beside/logs/kubelet-1.log")
            .exists()
    );
    assert_eq!(traces("t-beside"), BTreeSet::new());
    Ok(())
}
