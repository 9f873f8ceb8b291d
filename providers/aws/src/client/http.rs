//! The HTTP client of everything that talks to AWS: both services and the sources of credentials.
//! One pool of connections, rustls with ring, the machine's certificates. It bounds the time to
//! connect and the size of an answer; the time of a whole call is bounded by [`super::Client`].
//!
//! Requests over TLS go through the proxy of `HTTPS_PROXY` or `ALL_PROXY`, if there is one, except
//! to the hosts of `NO_PROXY`. Plain requests never do: the sources of credentials on the node
//! itself answer only there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, proxy};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The most bytes of an answer. A page of 400 load balancers has about one megabyte.
pub(super) const LONGEST_ANSWER: usize = 8 << 20;
/// The time to connect.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long an unused connection stays open. A server that closes one first breaks the next call.
const IDLE: Duration = Duration::from_secs(30);
/// The most unused connections to one host.
const MOST_IDLE: usize = 8;

/// Makes connectors. Cheap to copy; copies share their connections.
#[derive(Clone)]
pub(super) struct Http {
    proxy: ProxyConfig,
    /// A connector for each pair of time-outs. The sources of credentials have their own.
    connectors: Arc<Mutex<Vec<(Timeouts, SharedHttpConnector)>>>,
}

/// To connect, and to the first byte of the answer.
type Timeouts = (Option<Duration>, Option<Duration>);

/// A connector whose answers are bounded.
#[derive(Debug)]
struct Bounded(Connector);

// === impl Http ===

impl Http {
    /// No connections yet. `variable` looks up an environment variable.
    pub(super) fn new(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, proxy::ProxyError> {
        let first = |names: &[&str]| {
            let mut set = names.iter().filter_map(|name| variable(name));
            set.find(|value| !value.is_empty())
        };
        let through = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
        let mut proxy = match through {
            Some(url) => ProxyConfig::https(url.as_str())?,
            None => ProxyConfig::disabled(),
        };
        if let Some(hosts) = first(&["NO_PROXY", "no_proxy"]) {
            proxy = proxy.no_proxy(hosts);
        }
        Ok(Self {
            proxy,
            connectors: Arc::default(),
        })
    }

    /// The connector for calls to AWS.
    pub(super) fn connector(&self) -> SharedHttpConnector {
        self.with((Some(CONNECT), None))
    }

    fn with(&self, timeouts: Timeouts) -> SharedHttpConnector {
        let mut all = (self.connectors.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some((_, one)) = all.iter().find(|(key, _)| *key == timeouts) {
            return one.clone();
        }
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(timeouts.0);
        settings.set_read_timeout(timeouts.1);
        let connector = Connector::builder()
            .connector_settings(settings.build())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .proxy_config(self.proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build();
        let connector = SharedHttpConnector::new(Bounded(connector));
        all.push((timeouts, connector.clone()));
        connector
    }
}

impl HttpClient for Http {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.with((settings.connect_timeout(), settings.read_timeout()))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The proxy's address may have a password.
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

// === impl Bounded ===

impl HttpConnector for Bounded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, LONGEST_ANSWER))))
        })
    }
}
