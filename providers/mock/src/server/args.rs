//! The flags of `ballast mock-cloud`, which can also be set as environment variables, and the
//! options made of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::nic::InterfaceChoice;
use crate::address::AddressRange;
use crate::plane::{DEFAULT_RESERVED, PlaneOptions, ReservedPorts};
use crate::token::{TokenError, read_token};

/// Flags of `ballast mock-cloud`.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)] // help texts: backticks would show
pub struct ServerArgs {
    /// Address and port of the HTTP API, such as 127.0.0.1:8111 or [::1]:8111
    #[arg(long, env = "BALLAST_MOCK_LISTEN", default_value = "127.0.0.1:8111")]
    pub listen: SocketAddr,

    /// Directory of the durable state, such as /var/lib/ballast-mock; created if missing
    #[arg(long, env = "BALLAST_MOCK_STATE_DIR", default_value = "ballast-mock")]
    pub state_dir: PathBuf,

    /// Addresses for load balancers: a CIDR, first-last or one address, IPv4 or IPv6;
    /// repeatable (in the environment: separated by commas). IPv6 load balancers need an
    /// IPv6 range. The default is 127.77.0.0/16, or with --interface the top of its
    /// subnets, at most 254 addresses of each family. Example:
    /// --addresses 172.18.255.200-172.18.255.250 --addresses fd00:18::/120
    #[arg(
        long,
        env = "BALLAST_MOCK_ADDRESSES",
        value_name = "RANGE",
        value_delimiter = ','
    )]
    pub addresses: Vec<AddressRange>,

    /// Network interface to add the addresses to, such as eth0, so that hosts on its
    /// network reach them; auto selects the interface of the default route. Addresses that
    /// another host uses are not added. Needs CAP_NET_ADMIN and CAP_NET_RAW
    #[arg(long, env = "BALLAST_MOCK_INTERFACE", value_name = "NAME")]
    pub interface: Option<InterfaceChoice>,

    /// File with the bearer token that changing calls need, such as /etc/ballast/token; it is
    /// read again when a call has another token. Without a file, everybody who reaches the
    /// API can change load balancers
    #[arg(long, env = "BALLAST_MOCK_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How long a new load balancer takes to become active, such as 0s, 500ms or 2m
    #[arg(
        long,
        env = "BALLAST_MOCK_PROVISIONING_LATENCY",
        default_value = "0s",
        value_name = "TIME"
    )]
    pub provisioning_latency: Span,

    /// How long a deletion takes, such as 0s, 500ms or 2m
    #[arg(
        long,
        env = "BALLAST_MOCK_DELETION_LATENCY",
        default_value = "0s",
        value_name = "TIME"
    )]
    pub deletion_latency: Span,

    /// Maximum number of load balancers, such as 50 to test a quota
    #[arg(
        long,
        env = "BALLAST_MOCK_MAX_LOAD_BALANCERS",
        default_value_t = 10_000
    )]
    pub max_load_balancers: usize,

    /// Maximum number of listeners of one load balancer
    #[arg(long, env = "BALLAST_MOCK_MAX_LISTENERS", default_value_t = 256)]
    pub max_listeners: usize,

    /// Changing calls per second before the API answers 429, such as 5 to test throttling;
    /// 0 means no limit
    #[arg(long, env = "BALLAST_MOCK_RATE_LIMIT", default_value_t = 0)]
    pub rate_limit: u32,

    /// Time between two health checks of one target, such as 2s
    #[arg(
        long,
        env = "BALLAST_MOCK_HEALTH_INTERVAL",
        default_value = "2s",
        value_name = "TIME"
    )]
    pub health_interval: Span,

    /// How long one health check may take, such as 1s
    #[arg(
        long,
        env = "BALLAST_MOCK_HEALTH_TIMEOUT",
        default_value = "1s",
        value_name = "TIME"
    )]
    pub health_timeout: Span,

    /// Port of the nodes' /healthz (kube-proxy's), checked once per node
    #[arg(long, env = "BALLAST_MOCK_HEALTH_PORT", default_value_t = 10_256)]
    pub health_port: u16,

    /// How long established connections continue after their target is removed, such as 30s
    #[arg(
        long,
        env = "BALLAST_MOCK_DRAIN",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub drain: Span,

    /// Most TCP connections of one load balancer at a time
    #[arg(long, env = "BALLAST_MOCK_MAX_CONNECTIONS", default_value_t = 4_096)]
    pub max_connections: usize,

    /// Most TCP connections of all load balancers at a time. One load balancer gets no more
    /// than are left for others. An idle connection takes up to 12 KiB of memory
    #[arg(
        long,
        env = "BALLAST_MOCK_MAX_TOTAL_CONNECTIONS",
        default_value_t = 8_192
    )]
    pub max_total_connections: usize,

    /// Most UDP clients of one listener at a time
    #[arg(long, env = "BALLAST_MOCK_MAX_FLOWS", default_value_t = 1_024)]
    pub max_flows: usize,

    /// Most UDP clients of all listeners at a time. One listener gets no more than are left
    /// for others. A client takes up to 6 KiB of memory
    #[arg(long, env = "BALLAST_MOCK_MAX_TOTAL_FLOWS", default_value_t = 8_192)]
    pub max_total_flows: usize,

    /// Ports that no load balancer gets, because programs of a node may need them on all
    /// addresses; an open port would keep such a program from starting. Each is a port or a
    /// range, and without a protocol both are meant. Ports on which a program was seen to
    /// listen are left to it in any case. The list replaces the default; "" reserves nothing
    #[arg(
        long,
        env = "BALLAST_MOCK_RESERVED_PORTS",
        default_value = DEFAULT_RESERVED,
        value_name = "PORTS"
    )]
    pub reserved_ports: ReservedPorts,
}

/// A duration on the command line: `500ms`, `2s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The options of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The address of the API; port 0 selects any free port.
    pub listen: SocketAddr,
    /// The directory of the state.
    pub state_dir: PathBuf,
    /// Addresses for load balancers; if empty, the default of the flag.
    pub addresses: Vec<AddressRange>,
    /// The interface to add the addresses to; `None` if they are reachable without one.
    pub interface: Option<InterfaceChoice>,
    /// The token that mutating calls must carry.
    pub token: Option<String>,
    /// The file of the token, which is read again when a call carries another one.
    pub token_file: Option<PathBuf>,
    /// The time from creation to active.
    pub provisioning_latency: Duration,
    /// The time from deletion to gone.
    pub deletion_latency: Duration,
    /// The maximum number of load balancers.
    pub max_load_balancers: usize,
    /// The maximum number of listeners of one load balancer.
    pub max_listeners: usize,
    /// Mutating calls per second; 0 means no limit.
    pub rate_limit: u32,
    /// The options of the data plane.
    pub plane: PlaneOptions,
}

/// Why a flag cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// The token file cannot be used.
    #[error("cannot use --token-file {path:?}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: TokenError,
    },
    /// A number is not allowed.
    #[error("--{flag} is {value}, it must be more than zero")]
    Zero {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: &'static str,
    },
}

// === impl ServerArgs ===

impl ServerArgs {
    /// Converts the flags to options. Reads the token file.
    pub fn into_options(self) -> Result<ServerOptions, ArgsError> {
        let Self {
            listen,
            state_dir,
            addresses,
            interface,
            token_file,
            provisioning_latency,
            deletion_latency,
            max_load_balancers,
            max_listeners,
            rate_limit,
            health_interval,
            health_timeout,
            health_port,
            drain,
            max_connections,
            max_total_connections,
            max_flows,
            max_total_flows,
            reserved_ports,
        } = self;
        for (flag, zero, value) in [
            ("health-interval", health_interval.0.is_zero(), "0s"),
            ("health-timeout", health_timeout.0.is_zero(), "0s"),
            ("health-port", health_port == 0, "0"),
            ("max-connections", max_connections == 0, "0"),
            ("max-total-connections", max_total_connections == 0, "0"),
            ("max-flows", max_flows == 0, "0"),
            ("max-total-flows", max_total_flows == 0, "0"),
        ] {
            if zero {
                return Err(ArgsError::Zero { flag, value });
            }
        }
        Ok(ServerOptions {
            listen,
            state_dir,
            addresses,
            interface,
            token: token_file.clone().map(token).transpose()?,
            token_file,
            provisioning_latency: provisioning_latency.0,
            deletion_latency: deletion_latency.0,
            max_load_balancers,
            max_listeners,
            rate_limit,
            plane: PlaneOptions {
                health_interval: health_interval.0,
                health_timeout: health_timeout.0,
                health_port,
                drain: drain.0,
                max_connections,
                max_total_connections,
                max_flows,
                max_total_flows,
                reserved_ports,
                ..PlaneOptions::default()
            },
        })
    }
}

fn token(path: PathBuf) -> Result<String, ArgsError> {
    read_token(&path).map_err(|source| ArgsError::Token { path, source })
}

// === impl ServerOptions ===

impl ServerOptions {
    /// The default options, with this state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8111)),
            state_dir: state_dir.into(),
            addresses: Vec::new(),
            interface: None,
            token: None,
            token_file: None,
            provisioning_latency: Duration::ZERO,
            deletion_latency: Duration::ZERO,
            max_load_balancers: 10_000,
            max_listeners: 256,
            rate_limit: 0,
            plane: PlaneOptions::default(),
        }
    }
}

// === impl Span ===

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is no time such as 500ms, 2s or 1m");
        let span: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
        Duration::try_from(span).map(Self).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn parse(flags: &[&str]) -> Result<ServerArgs, clap::Error> {
        let cli = Cli::try_parse_from(["mock-cloud"].iter().chain(flags));
        cli.map(|cli| cli.server)
    }

    #[test]
    fn the_defaults_of_the_flags_are_the_defaults_of_the_options() {
        let flags = parse(&[]).unwrap().into_options().unwrap();
        let options = ServerOptions::new("ballast-mock");
        assert_eq!(format!("{flags:?}"), format!("{options:?}"));
    }

    #[test]
    fn flags_are_understood_or_refused_with_a_reason() {
        let args = parse(&[
            "--addresses",
            "10.0.0.1-10.0.0.9,fd00::/64",
            "--drain",
            "1m 30s",
        ]);
        let args = args.unwrap();
        assert_eq!(args.addresses.len(), 2);
        assert_eq!(args.drain.0, Duration::from_secs(90));
        let error = parse(&["--addresses", "10.0.0.9-10.0.0.1"]).unwrap_err();
        assert!(
            error.to_string().contains("ends before it begins"),
            "{error}"
        );
        let error = parse(&["--drain", "soon"]).unwrap_err();
        assert!(error.to_string().contains("500ms"), "{error}");
        let none = parse(&["--reserved-ports", ""]).unwrap();
        assert_eq!(none.reserved_ports, ReservedPorts::none());
        let error = parse(&["--reserved-ports", "ssh"]).unwrap_err();
        assert!(error.to_string().contains("22/TCP"), "{error}");
        let zero = parse(&["--health-interval", "0s"]).unwrap().into_options();
        assert!(zero.unwrap_err().to_string().contains("--health-interval"));
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let error = parse(&["--token-file", path])
            .unwrap()
            .into_options()
            .unwrap_err();
        assert!(error.to_string().ends_with("it is empty"), "{error}");
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let options = parse(&["--token-file", path])
            .unwrap()
            .into_options()
            .unwrap();
        assert_eq!(options.token.as_deref(), Some("s3cret"));
    }
}
