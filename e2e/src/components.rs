//! The flags and files of every Kubernetes component. Pure, except that it writes files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use crate::binaries::{Binaries, CNI_PLUGINS};
use crate::control::ProcessSpec;
use crate::images;
use crate::net::{self, Families, Host};
use crate::options::ProxyMode;
use crate::pki::{Credential, LOOPBACK, Pki, inside};

/// A part of the cluster that can be stopped and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// etcd.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// containerd of a node. Its containers outlive it.
    Containerd(u8),
    /// kubelet of a node.
    Kubelet(u8),
    /// kube-proxy of a node. Its rules outlive it.
    Proxy(u8),
}

/// The settings that flags depend on.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) cache: Binaries,
    pub(crate) families: Families,
    pub(crate) proxy: ProxyMode,
}

/// The audit policy: all writes, and reads of Ballast's own users, so that unused rights are
/// found.
const POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],
"rules":[{"level":"Metadata","verbs":["create","update","patch","delete","deletecollection"]},
{"level":"Metadata","userGroups":["system:serviceaccounts:ballast-system"]},{"level":"None"}]}"#;

impl Component {
    /// The name of its process and log.
    pub fn name(self) -> String {
        match self {
            Self::Etcd => "etcd".to_owned(),
            Self::ApiServer => "kube-apiserver".to_owned(),
            Self::ControllerManager => "kube-controller-manager".to_owned(),
            Self::Scheduler => "kube-scheduler".to_owned(),
            Self::Containerd(node) => format!("containerd-{node}"),
            Self::Kubelet(node) => format!("kubelet-{node}"),
            Self::Proxy(node) => format!("kube-proxy-{node}"),
        }
    }

    /// Its host.
    pub fn host(self) -> Host {
        match self {
            Self::Containerd(node) | Self::Kubelet(node) | Self::Proxy(node) => Host::Node(node),
            _ => Host::ControlPlane,
        }
    }
}

impl Setup {
    pub(crate) fn pki(&self) -> Pki {
        Pki::new(self.dir.join("pki"))
    }

    /// A node's folder on the machine.
    pub(crate) fn node_dir(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    /// A node's cgroup, which contains those of its pods.
    pub(crate) fn node_cgroup(&self, node: u8) -> String {
        format!("{}/node{node}", self.cgroup)
    }

    fn process(component: Component, program: &Path, flags: Vec<String>) -> ProcessSpec {
        let mut argv = vec![program.to_string_lossy().into_owned()];
        argv.extend(flags);
        ProcessSpec {
            name: component.name(),
            host: component.host().name(),
            argv,
            env: std::collections::BTreeMap::new(),
        }
    }

    /// Certificates and kubeconfigs of the control plane and the administrator.
    pub(crate) fn control_plane_files(&self, port: u16) -> Result<()> {
        let pki = self.pki();
        pki.create()?;
        let address = IpAddr::V4(Host::ControlPlane.v4());
        let mut addresses = Host::ControlPlane.addresses(self.families);
        addresses.extend([LOOPBACK, IpAddr::V4(net::API_SERVICE)]);
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "control-plane",
        ];
        pki.issue("apiserver", "kube-apiserver", &[], &addresses, &names)?;
        for (name, user, groups) in [
            ("admin", "admin", vec!["system:masters"]),
            (
                "controller-manager",
                "system:kube-controller-manager",
                vec![],
            ),
            ("scheduler", "system:kube-scheduler", vec![]),
            ("proxy", "system:kube-proxy", vec![]),
        ] {
            pki.issue(name, user, &groups, &[], &[])?;
            pki.kubeconfig(
                &format!("{name}-inside.kubeconfig"),
                &inside(address),
                &Credential::Certificate(name),
            )?;
        }
        let server = format!("https://127.0.0.1:{port}");
        pki.kubeconfig(
            "admin.kubeconfig",
            &server,
            &Credential::Certificate("admin"),
        )?;
        std::fs::write(self.dir.join("audit-policy.json"), POLICY)?;
        Ok(())
    }

    pub(crate) fn etcd(&self) -> ProcessSpec {
        let flags = vec![
            format!("--data-dir={}", self.dir.join("etcd").display()),
            "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            // A lab's data need not survive a crash of the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        Self::process(Component::Etcd, &self.cache.program("etcd"), flags)
    }

    pub(crate) fn api_server(&self, audit: bool, more: &[String]) -> ProcessSpec {
        let pki = self.pki();
        let mut flags = vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--secure-port=6443".to_owned(),
            format!(
                "--bind-address={}",
                if self.families.both() {
                    "::"
                } else {
                    "0.0.0.0"
                }
            ),
            format!("--advertise-address={}", Host::ControlPlane.v4()),
            format!("--cert-dir={}", self.dir.join("apiserver").display()),
            format!("--tls-cert-file={}", pki.path("apiserver.crt")),
            format!("--tls-private-key-file={}", pki.path("apiserver.key")),
            format!("--client-ca-file={}", pki.path("ca.crt")),
            format!("--kubelet-certificate-authority={}", pki.path("ca.crt")),
            format!("--kubelet-client-certificate={}", pki.path("admin.crt")),
            format!("--kubelet-client-key={}", pki.path("admin.key")),
            // Names of nodes do not resolve.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki.path("sa.pub")),
            format!("--service-account-signing-key-file={}", pki.path("sa.key")),
            format!(
                "--service-cluster-ip-range={}",
                self.families.list(net::SERVICES_V4, net::SERVICES_V6)
            ),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Mass tests must reach the controller's limits, not the server's.
            "--max-requests-inflight=2000".to_owned(),
            "--max-mutating-requests-inflight=1000".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        if audit {
            flags.push(format!(
                "--audit-log-path={}",
                self.dir.join("audit.log").display()
            ));
            flags.push(format!(
                "--audit-policy-file={}",
                self.dir.join("audit-policy.json").display()
            ));
        }
        flags.extend_from_slice(more);
        Self::process(
            Component::ApiServer,
            &self.cache.program("kube-apiserver"),
            flags,
        )
    }

    pub(crate) fn controller_manager(&self) -> ProcessSpec {
        let pki = self.pki();
        let flags = vec![
            format!(
                "--kubeconfig={}",
                pki.path("controller-manager-inside.kubeconfig")
            ),
            format!("--service-account-private-key-file={}", pki.path("sa.key")),
            format!("--root-ca-file={}", pki.path("ca.crt")),
            format!(
                "--cluster-cidr={}",
                self.families.list(net::PODS_V4, net::PODS_V6)
            ),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            "--node-monitor-grace-period=20s".to_owned(),
            // A new node keeps its not-ready taint until the next check: 5 s by default.
            "--node-monitor-period=1s".to_owned(),
            // The defaults limit mass tests to 20 Services a second.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            "--concurrent-service-endpoint-syncs=10".to_owned(),
        ];
        Self::process(
            Component::ControllerManager,
            &self.cache.program("kube-controller-manager"),
            flags,
        )
    }

    pub(crate) fn scheduler(&self) -> ProcessSpec {
        let config = self.pki().path("scheduler-inside.kubeconfig");
        let flags = vec![
            format!("--kubeconfig={config}"),
            "--leader-elect=false".to_owned(),
        ];
        Self::process(
            Component::Scheduler,
            &self.cache.program("kube-scheduler"),
            flags,
        )
    }

    /// All files of a node: certificate, kubeconfig, and the configurations of containerd, CNI
    /// and kubelet.
    pub(crate) fn node_files(&self, node: u8) -> Result<()> {
        let (host, dir, pki) = (Host::Node(node), self.node_dir(node), self.pki());
        let name = host.name();
        let user = format!("system:node:{name}");
        pki.issue(
            &name,
            &user,
            &["system:nodes"],
            &host.addresses(self.families),
            &[&name],
        )?;
        let server = inside(IpAddr::V4(Host::ControlPlane.v4()));
        pki.kubeconfig(
            &format!("{name}.kubeconfig"),
            &server,
            &Credential::Certificate(&name),
        )?;
        std::fs::create_dir_all(dir.join("cni"))?;
        std::fs::write(dir.join("cni/10-lab.conflist"), self.cni(node).to_string())?;
        std::fs::write(dir.join("containerd.toml"), containerd_toml(&dir))?;
        std::fs::write(
            dir.join("kubelet.json"),
            self.kubelet_config(node).to_string(),
        )?;
        Ok(())
    }

    /// Point-to-point links, as in kind: traffic between pods of one node is routed, so
    /// Services work without the bridge's netfilter hooks.
    fn cni(&self, node: u8) -> serde_json::Value {
        let ranges: Vec<_> = net::pod_subnets(node, self.families)
            .into_iter()
            .zip(net::pod_gateways(node, self.families))
            .map(|(subnet, gateway)| json!([{ "subnet": subnet, "gateway": gateway }]))
            .collect();
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if self.families.both() {
            routes.push(json!({"dst": "::/0"}));
        }
        let ipam = json!({"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges, "routes": routes});
        json!({
            "cniVersion": "1.0.0",
            "name": "lab",
            "plugins": [
                {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": ipam},
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet_config(&self, node: u8) -> serde_json::Value {
        let pki = self.pki();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": if self.families.both() { "::" } else { "0.0.0.0" },
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.path("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.path(&format!("node{node}.crt")),
            "tlsPrivateKeyFile": pki.path(&format!("node{node}.key")),
            // Works with cgroup v1 and v2, and without delegation from a service manager.
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": true,
            "cgroupRoot": self.node_cgroup(node),
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "resolvConf": "",
            "clusterDomain": "cluster.local",
            "clusterDNS": [net::DNS_V4],
            "nodeStatusUpdateFrequency": "4s",
            "maxPods": 200,
            // The lab does not watch the machine's disk.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        })
    }

    pub(crate) fn containerd(&self, node: u8) -> ProcessSpec {
        let config = self.node_dir(node).join("containerd.toml");
        let flags = vec!["--config".to_owned(), config.to_string_lossy().into_owned()];
        Self::process(Component::Containerd(node), Path::new("containerd"), flags)
    }

    pub(crate) fn kubelet(&self, node: u8) -> ProcessSpec {
        let host = Host::Node(node);
        let flags = vec![
            format!(
                "--kubeconfig={}",
                self.pki().path(&format!("{}.kubeconfig", host.name()))
            ),
            format!(
                "--config={}",
                self.node_dir(node).join("kubelet.json").display()
            ),
            format!("--hostname-override={}", host.name()),
            format!("--node-ip={}", self.families.list(host.v4(), host.v6())),
            "--v=2".to_owned(),
        ];
        Self::process(
            Component::Kubelet(node),
            &self.cache.program("kubelet"),
            flags,
        )
    }

    pub(crate) fn proxy(&self, node: u8) -> ProcessSpec {
        let flags = vec![
            format!(
                "--kubeconfig={}",
                self.pki().path("proxy-inside.kubeconfig")
            ),
            format!("--hostname-override={}", Host::Node(node).name()),
            format!("--proxy-mode={}", self.proxy.flag()),
            format!(
                "--cluster-cidr={}",
                self.families.list(net::PODS_V4, net::PODS_V6)
            ),
            format!(
                "--healthz-bind-address={}",
                if self.families.both() {
                    "[::]:10256"
                } else {
                    "0.0.0.0:10256"
                }
            ),
            "--metrics-bind-address=127.0.0.1:10249".to_owned(),
            // Cannot be set from within a network namespace.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0s".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
            "--v=2".to_owned(),
        ];
        Self::process(
            Component::Proxy(node),
            &self.cache.program("kube-proxy"),
            flags,
        )
    }
}

fn containerd_toml(dir: &Path) -> String {
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
# Without CAP_SYS_RESOURCE every sandbox fails otherwise.
restrict_oom_score_adj = true
sandbox_image = "{pause}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{conf}"
"#,
        pause = images::PAUSE,
        conf = dir.join("cni").display(),
    )
}

/// The folders of a node, and their paths on the node: fixed paths, as on a real node.
pub(crate) fn node_mounts(dir: &Path) -> (Vec<(PathBuf, PathBuf)>, Vec<PathBuf>) {
    let bind = |what: &str, at: &str| (dir.join(what), PathBuf::from(at));
    let binds = vec![
        bind("containerd", "/var/lib/containerd"),
        bind("kubelet", "/var/lib/kubelet"),
        bind("pods", "/var/log/pods"),
    ];
    (
        binds,
        ["/run", "/var/log", "/var/lib/cni"]
            .map(PathBuf::from)
            .to_vec(),
    )
}
