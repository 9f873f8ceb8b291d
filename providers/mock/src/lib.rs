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

pub use address::AddressRange;
pub use instant::InstantProvider;
pub use provider::{EndpointError, MockInventory, MockProvider, Token};
pub use token::{TokenError, read_token};
