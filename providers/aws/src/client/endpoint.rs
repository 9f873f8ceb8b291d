//! Where AWS's services are. Explicit URLs win, then the SDK's variables and profile settings for
//! one service, then those for all, then AWS's own endpoints of the region. The partitions (China,
//! `GovCloud` and so on), FIPS and dual-stack endpoints are the SDK's knowledge: EC2's host differs
//! from the one of Elastic Load Balancing only in its first label.

use aws_config::SdkConfig;
use aws_sdk_elasticloadbalancingv2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_types::service_config::ServiceConfigKey;
use http::Uri;

use super::{ConnectError, Endpoints};

/// The URLs to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) load_balancing: String,
    pub(super) ec2: String,
}

/// Looks up both.
pub(super) async fn resolve(
    config: &SdkConfig,
    given: &Endpoints,
    region: &str,
) -> Result<Found, ConnectError> {
    let load_balancing =
        (given.load_balancing.clone()).or_else(|| configured(config, "Elastic Load Balancing v2"));
    let ec2 = (given.ec2.clone()).or_else(|| configured(config, "EC2"));
    let (load_balancing, ec2) = match (load_balancing, ec2) {
        (Some(load_balancing), Some(ec2)) => (load_balancing, ec2),
        (load_balancing, ec2) => {
            let own = of_region(config, region).await?;
            let sibling = own.replacen("://elasticloadbalancing", "://ec2", 1);
            (load_balancing.unwrap_or(own), ec2.unwrap_or(sibling))
        }
    };
    check("Elastic Load Balancing", &load_balancing)?;
    check("EC2", &ec2)?;
    Ok(Found {
        load_balancing,
        ec2,
    })
}

/// What the environment and the profile say.
fn configured(config: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let own = config.service_config().and_then(|it| it.load_config(key));
    own.or_else(|| config.endpoint_url().map(str::to_owned))
}

/// AWS's endpoint of Elastic Load Balancing.
async fn of_region(config: &SdkConfig, region: &str) -> Result<String, ConnectError> {
    let failed = |reason: String| ConnectError::NoEndpoint {
        region: region.to_owned(),
        reason,
    };
    let params = Params::builder()
        .region(region)
        .use_fips(config.use_fips().unwrap_or(false))
        .use_dual_stack(config.use_dual_stack().unwrap_or(false))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).await;
    endpoint
        .map(|endpoint| endpoint.url().to_owned())
        .map_err(|error| failed(error.to_string()))
}

fn check(service: &'static str, url: &str) -> Result<(), ConnectError> {
    let valid = url.parse::<Uri>().is_ok_and(|uri| {
        uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    valid.then_some(()).ok_or_else(|| ConnectError::Endpoint {
        service,
        url: url.to_owned(),
    })
}

#[cfg(test)]
mod tests;
