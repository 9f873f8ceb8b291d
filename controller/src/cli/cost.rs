//! What the load balancer of a Service is billed as, as far as its settings say. Pure.

use std::collections::BTreeMap;

use ballast_aws::settings::{ClassSettings, Settings};
use ballast_aws::{Scheme, annotations};
use ballast_provider::{Billed, Family};
use serde::Serialize;

/// Subnets of a load balancer whose settings name none: AWS alone knows how many fit. Most
/// clusters use three zones.
pub const ZONES: u32 = 3;

/// Who bills the load balancers of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Bill {
    /// AWS does.
    Aws,
    /// Nobody: the prices say what the same would cost on AWS.
    AsOnAws,
    /// Nobody.
    Nobody,
}

// === impl Bill ===

impl Bill {
    /// By the name of a provider.
    pub fn of(provider: Option<&str>) -> Self {
        match provider {
            Some("aws") => Self::Aws,
            Some("mock") => Self::AsOnAws,
            _ => Self::Nobody,
        }
    }
}

/// What AWS bills for a load balancer with these settings.
pub fn on_aws(settings: &Settings) -> Billed {
    // Its targets are in target groups of others, so it has none of its own.
    if !settings.bound.is_empty() {
        return Billed::default();
    }
    let named = u32::try_from(settings.subnets.len()).unwrap_or(u32::MAX);
    let zones = if named == 0 { ZONES } else { named };
    Billed {
        load_balancers: 1,
        public_addresses: match settings.scheme.unwrap_or_default() {
            Scheme::InternetFacing => zones,
            Scheme::Internal => 0,
        },
    }
}

/// The same for a Service with these annotations. Annotations that are refused count as absent.
pub fn of_annotations(all: &BTreeMap<String, String>, class: &ClassSettings) -> Billed {
    let own = all
        .iter()
        .filter(|(key, _)| key.starts_with(annotations::PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let own = Settings::of(&own, class.allowed.as_ref());
    let own = own.map(|parsed| parsed.settings).unwrap_or_default();
    on_aws(&own.over(&class.settings))
}

/// What nobody bills, as AWS would: the load balancer of a Service with these families in the mock cloud, which has an
/// address of each (see [`ballast_mock::billed`]).
pub fn in_mock_cloud(families: &[Family]) -> Billed {
    let public = families.iter().filter(|family| **family == Family::V4);
    Billed {
        load_balancers: 1,
        public_addresses: u32::try_from(public.count()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn public_addresses_follow_from_scheme_and_subnets() {
        let class = |scheme: Option<Scheme>, subnets: &[&str]| ClassSettings {
            settings: Settings {
                scheme,
                subnets: subnets.iter().map(|it| (*it).to_owned()).collect(),
                ..Settings::default()
            },
            ..ClassSettings::default()
        };
        let public = Some(Scheme::InternetFacing);
        for (class, annotation, addresses) in [
            (class(None, &[]), None, 0),
            (class(public, &[]), None, ZONES),
            (class(public, &["subnet-a", "subnet-b"]), None, 2),
            (class(public, &[]), Some(("scheme", "internal")), 0),
            (class(None, &["a"]), Some(("scheme", "internet-facing")), 1),
            // It is refused.
            (class(None, &[]), Some(("scheme", "everywhere")), 0),
        ] {
            let all = annotation.map(|(name, value)| {
                let key = format!("{}{name}", annotations::PREFIX);
                (key, value.to_owned())
            });
            let billed = of_annotations(&all.into_iter().collect(), &class);
            let found = (billed.load_balancers, billed.public_addresses);
            assert_eq!(found, (1, addresses), "{annotation:?}");
        }
    }

    /// As `ballast orphans` and the meter of the mock cloud say it.
    #[test]
    fn the_mock_cloud_costs_the_same_wherever_it_is_said() {
        let (ipv4, ipv6) = ("192.0.2.1", "2001:db8::1");
        for all in [&[ipv4][..], &[ipv6], &[ipv4, ipv6]] {
            let addresses: Vec<IpAddr> = all.iter().map(|it| it.parse().unwrap()).collect();
            let families: Vec<Family> = addresses.iter().copied().map(Family::of).collect();
            assert_eq!(
                in_mock_cloud(&families),
                ballast_mock::billed(&addresses),
                "{all:?}"
            );
        }
    }

    #[test]
    fn only_aws_bills() {
        for (provider, bill) in [
            (Some("aws"), Bill::Aws),
            (Some("mock"), Bill::AsOnAws),
            (Some("l2"), Bill::Nobody),
            (None, Bill::Nobody),
        ] {
            assert_eq!(Bill::of(provider), bill);
        }
    }
}
