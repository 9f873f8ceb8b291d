//! Through a real HTTP proxy: a command and a controller outside the cluster, with a name of
//! the API server that only the proxy resolves.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::binary;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::common::command::{Ballast, Said};
use crate::common::{SOON, Site};

/// A name in the certificate of the lab's API server that no resolver of this machine knows.
const NAME: &str = "kubernetes.default.svc.cluster.local";
const LEASE: &str = "ballast-behind-a-proxy";

/// A proxy on loopback that opens tunnels to the API server, and counts them.
struct Proxy {
    url: String,
    tunnels: Arc<AtomicUsize>,
}

pub(super) async fn through_a_proxy(site: &Site<'_>) -> Result<()> {
    let text = std::fs::read_to_string(site.lab.kubeconfig())?;
    let server = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("server: https://"))
        .context("no server in the kubeconfig")?
        .trim_matches('"');
    let server: SocketAddr = server.parse().context("not on loopback")?;
    let proxy = Proxy::start(server).await?;
    let named = text.replace(&server.to_string(), &format!("{NAME}:{}", server.port()));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config");
    std::fs::write(&file, named)?;
    let ballast = Ballast::of(&file);
    let status = async |environment: &[(&str, &str)]| -> Result<Said> {
        let mut command = Command::new(binary()?);
        command
            .args(["status", "-o", "json"])
            .envs(environment.iter().copied());
        ballast.finish(command, "").await
    };

    let https = ("HTTPS_PROXY", proxy.url.as_str());
    let said = status(&[https]).await?;
    ensure!(said.code == Some(0) && proxy.count() > 0, "{said:?}");
    // The proxy's own address does not matter.
    let said = status(&[https, ("NO_PROXY", "127.0.0.0/8,localhost,")]).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let before = proxy.count();
    for exempt in [NAME, ".cluster.local", "*"] {
        let said = status(&[https, ("NO_PROXY", exempt)]).await?;
        let named = said.err.contains(&format!("https://{NAME}:"));
        ensure!(said.code == Some(1) && named, "{exempt}: {said:?}");
        ensure!(said.err.lines().count() == 1, "{said:?}");
    }
    ensure!(proxy.count() == before, "exempt, and the proxy was used");

    let mut controller = Command::new(binary()?)
        .args(["controller", "--lease-name", LEASE, "--classes", "none"])
        .args(["--admin-address", "127.0.0.1:0", "--identity", "outside"])
        .env_clear()
        .env("KUBECONFIG", &file)
        .env("HTTPS_PROXY", &proxy.url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let leases: Api<Lease> = Api::namespaced(site.lab.kube(), "kube-system");
    eventually(SOON, || async {
        let lease = leases.get(LEASE).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        let holder = holder.unwrap_or_default();
        ensure!(holder.starts_with("outside"), "held by {holder:?}");
        Ok(())
    })
    .await
    .context("the controller does not lead")?;
    ensure!(proxy.count() > before, "the controller used no proxy");
    controller.kill().await?;
    leases
        .delete(LEASE, &kube::api::DeleteParams::default())
        .await?;
    Ok(())
}

/// A command and a controller report the same: the file, its entries and the server, in one
/// line. The rest of the kind is a unit test.
pub(super) async fn broken_credentials(site: &Site<'_>) -> Result<()> {
    let text = std::fs::read_to_string(site.lab.kubeconfig())?;
    let server = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("server: "));
    let server = server.context("no server")?.trim_matches('"').to_owned();
    let folder = tempfile::tempdir()?;
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&good, "users: []")?;
    std::fs::write(
        &bad,
        format!(
            "{{current-context: here, contexts: [{{name: here, context: {{cluster: lab, user: me}}}}],
              clusters: [{{name: lab, cluster: {{server: '{server}', certificate-authority: ca.crt}}}}]}}"
        ),
    )?;
    let list = std::env::join_paths([&good, &bad])?;
    for role in ["status", "controller"] {
        let mut command = Command::new(binary()?);
        command.arg(role).env_clear().env("KUBECONFIG", &list);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, output).await??;
        let said = String::from_utf8(output.stderr)?;
        let expected = format!(
            "ballast: cannot use the kubeconfig {} (context here, cluster lab, server {server}): cannot read certificate-authority {}/ca.crt: No such file or directory (os error 2)\n",
            bad.display(),
            folder.path().display(),
        );
        ensure!(
            output.status.code() == Some(1) && said == expected,
            "{role}: {said}"
        );
    }
    Ok(())
}

// === impl Proxy ===

impl Proxy {
    async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let tunnels = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tunnels);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    if let Err(error) = tunnel(client, server, &count).await {
                        eprintln!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(Self { url, tunnels })
    }

    fn count(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }
}

async fn tunnel(mut client: TcpStream, server: SocketAddr, count: &AtomicUsize) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8_192, "an endless request");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let expected = format!("CONNECT {NAME}:{} HTTP/1.1\r\n", server.port());
    ensure!(head.starts_with(&expected), "{head}");
    count.fetch_add(1, Ordering::Relaxed);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
