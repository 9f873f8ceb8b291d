//! moto, a fake of AWS by other authors, behind a [`Proxy`]: a second opinion. `scripts/moto` installs
//! it. It runs on loopback as a process that ends with its [`Moto`], also after a crash: it reads
//! its standard input, and ends with it.
//!
//! moto accepts more than AWS does, so what it accepts proves little; see the tests that use it.
//! The network here is the same as that of [`Cloud::seed`](crate::state::Cloud::seed): zones with a
//! public and a private subnet each, and nodes in the private ones. Beside it there is what moto
//! has in each region: a default VPC.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use ring::digest;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::proxy::{Proxy, post, text};
use crate::wire::Service;

/// What is installed.
const REQUIREMENTS: &str = include_str!("../moto/requirements.txt");
/// How it is started.
const SERVE: &str = include_str!("../moto/serve.py");
/// The region of everything.
const REGION: &str = "eu-central-1";
/// Python has to read a lot before it listens, also on a busy machine.
const START: Duration = Duration::from_mins(2);
/// The name of the cluster, for the tags `kubernetes.io/cluster/…`.
const CLUSTER: &str = "test";

/// A moto that runs, and the proxy in front of it.
#[derive(Debug)]
pub struct Moto {
    proxy: Proxy,
    address: SocketAddr,
    network: Made,
    /// Ends when its standard input closes, and is killed when this is dropped.
    _process: Child,
}

/// Why there is no moto.
#[derive(Debug, Error)]
pub enum MotoError {
    /// Nobody has installed it.
    #[error("moto is not installed in {0}: run `scripts/moto` (`make test` does so itself)")]
    Missing(PathBuf),
    /// It cannot be started.
    #[error("cannot start moto: {0}")]
    Start(io::Error),
    /// It does not say its port.
    #[error("moto has started, and does not say where it listens")]
    Silent,
    /// It does not answer, or it refuses.
    #[error("moto refuses {request}: {answer}")]
    Refused {
        /// What was asked.
        request: String,
        /// What it said.
        answer: String,
    },
}

/// The IDs of the network.
#[derive(Debug, Default)]
struct Made {
    private: Vec<String>,
    group: String,
    nodes: Vec<String>,
}

// === impl Moto ===

impl Moto {
    /// Starts it with a network of three zones, and so many nodes.
    pub async fn start(nodes: usize) -> Result<Self, MotoError> {
        let folder = folder();
        let python = folder.join("bin/python");
        if !python.exists() {
            return Err(MotoError::Missing(folder));
        }
        let mut process = Command::new(python)
            .args(["-c", SERVE])
            // Nothing that leads to an account of the user.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(MotoError::Start)?;
        let output = process.stdout.take().ok_or(MotoError::Silent)?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(START, lines.next_line()).await;
        let line = line.ok().and_then(Result::ok).flatten();
        let port = line.and_then(|line| line.trim().parse().ok());
        let port = port.ok_or(MotoError::Silent)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Proxy::start(address, REGION).await;
        let mut moto = Self {
            proxy: proxy.map_err(MotoError::Start)?,
            address,
            network: Made::default(),
            _process: process,
        };
        moto.seed(nodes).await?;
        Ok(moto)
    }

    /// The IDs of the nodes' instances.
    pub fn nodes(&self) -> &[String] {
        &self.network.nodes
    }

    /// One more node. Returns the ID of its instance.
    pub async fn add_node(&mut self) -> Result<String, MotoError> {
        let number = self.network.nodes.len();
        let zone = number % self.network.private.len().max(1);
        let subnet = self.network.private.get(zone).cloned().unwrap_or_default();
        let request = format!(
            "Action=RunInstances&ImageId=ami-00000000&MinCount=1&MaxCount=1&SubnetId={subnet}&SecurityGroupId.1={}{}",
            self.network.group,
            tags("instance", &[(&owner(), "owned")])
        );
        let id = self.made(Service::Ec2, &request, "instanceId").await?;
        self.network.nodes.push(id.clone());
        Ok(id)
    }

    /// Asks moto itself, past the proxy: it counts nowhere. The version of the API is added.
    pub async fn ask(&self, service: Service, request: &str) -> Result<String, MotoError> {
        let refused = |answer: String| MotoError::Refused {
            request: request.to_owned(),
            answer,
        };
        let scope = format!("20260101/{REGION}/{}/aws4_request", service.scope());
        let body = format!("{request}&Version={}", service.version());
        // moto looks at the scope, and at no signature.
        let head = Request::post("/")
            .header("host", self.address.to_string())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("content-length", body.len())
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders=host, Signature=0"
                ),
            )
            .body(());
        let head = head.map_err(|error| refused(error.to_string()))?;
        let answer = post(self.address, head.into_parts().0, body.into()).await;
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        match answer.status {
            200..300 => Ok(answer.body),
            _ => Err(refused(answer.body)),
        }
    }

    async fn made(
        &self,
        service: Service,
        request: &str,
        element: &str,
    ) -> Result<String, MotoError> {
        let answer = self.ask(service, request).await?;
        let id = text(&answer, element).map(str::to_owned);
        id.ok_or_else(|| MotoError::Refused {
            request: request.to_owned(),
            answer,
        })
    }

    async fn seed(&mut self, nodes: usize) -> Result<(), MotoError> {
        let ec2 = Service::Ec2;
        let request = "Action=CreateVpc&CidrBlock=10.0.0.0/16";
        let vpc = self.made(ec2, request, "vpcId").await?;
        let request = "Action=CreateInternetGateway";
        let gateway = self.made(ec2, request, "internetGatewayId").await?;
        let request =
            format!("Action=AttachInternetGateway&InternetGatewayId={gateway}&VpcId={vpc}");
        self.ask(ec2, &request).await?;
        let request = format!("Action=CreateRouteTable&VpcId={vpc}");
        let routes = self.made(ec2, &request, "routeTableId").await?;
        let request = format!(
            "Action=CreateRoute&RouteTableId={routes}&DestinationCidrBlock=0.0.0.0/0&GatewayId={gateway}"
        );
        self.ask(ec2, &request).await?;
        for (number, zone) in ["a", "b", "c"].into_iter().enumerate() {
            for (third, role) in [
                (number, "kubernetes.io/role/elb"),
                (number + 100, "kubernetes.io/role/internal-elb"),
            ] {
                let request = format!(
                    "Action=CreateSubnet&VpcId={vpc}&CidrBlock=10.0.{third}.0/24&AvailabilityZone={REGION}{zone}{}",
                    tags("subnet", &[(&owner(), "owned"), (role, "1")])
                );
                let subnet = self.made(ec2, &request, "subnetId").await?;
                if third == number {
                    let request = format!(
                        "Action=AssociateRouteTable&RouteTableId={routes}&SubnetId={subnet}"
                    );
                    self.ask(ec2, &request).await?;
                } else {
                    self.network.private.push(subnet);
                }
            }
        }
        let request = format!(
            "Action=CreateSecurityGroup&GroupName=nodes&GroupDescription=nodes&VpcId={vpc}{}",
            tags("security-group", &[(&owner(), "owned")])
        );
        self.network.group = self.made(ec2, &request, "groupId").await?;
        for _ in 0..nodes {
            self.add_node().await?;
        }
        Ok(())
    }
}

impl Deref for Moto {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// Where `scripts/moto` installs it.
fn folder() -> PathBuf {
    let cache = std::env::var_os("BALLAST_CACHE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache")),
        PathBuf::from,
    );
    let hash = digest::digest(&digest::SHA256, REQUIREMENTS.as_bytes());
    let name = hash.as_ref().iter().take(8);
    let name = name.fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    cache.join("moto").join(name)
}

fn owner() -> String {
    format!("kubernetes.io/cluster/{CLUSTER}")
}

/// Tags of an object that a request creates.
fn tags(kind: &str, tags: &[(&str, &str)]) -> String {
    let mut text = format!("&TagSpecification.1.ResourceType={kind}");
    for (number, (key, value)) in (1..).zip(tags) {
        let _ = write!(
            text,
            "&TagSpecification.1.Tag.{number}.Key={key}&TagSpecification.1.Tag.{number}.Value={value}"
        );
    }
    text
}
