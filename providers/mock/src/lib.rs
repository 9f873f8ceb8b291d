//! The mock cloud: a small, self-contained cloud for kind, CI and laptops.
//!
//! - [`server`]: `ballast mock-cloud`: HTTP API, durable state, lifecycle, and the
//!   data plane that really balances TCP and UDP to node ports.
//! - [`provider`]: the client of that API, which the controller uses as the
//!   [`Provider`](ballast_provider::Provider) of a mock class.
//! - [`instant`]: a provider without any cloud, in process, for benchmarks and
//!   simulations of the controller.
//! - [`api`]: the wire format both sides share.

pub mod address;
pub mod api;
pub mod instant;
mod plane;
pub mod provider;
pub mod server;
mod token;

use std::net::IpAddr;

use ballast_provider::Billed;

pub use address::AddressRange;
pub use instant::InstantProvider;
pub use provider::{EndpointError, MockInventory, MockProvider, Token};
pub use token::{TokenError, read_token};

/// What a load balancer of the mock cloud with these addresses stands for on a bill: one Network
/// Load Balancer, and one public address for each IPv4 address. AWS takes one in each zone, and
/// the mock cloud has one zone. IPv6 addresses cost nothing.
pub fn billed(addresses: &[IpAddr]) -> Billed {
    let public = addresses.iter().filter(|address| address.is_ipv4());
    Billed {
        load_balancers: 1,
        public_addresses: u32::try_from(public.count()).unwrap_or(u32::MAX),
    }
}
