//! The class of kind `l2` and its one pool, for the scenarios that measure addresses.

use std::net::Ipv4Addr;

/// The class that assigns addresses from the pool.
pub(super) const CLASS: &str = "lan";
/// The value of `spec.loadBalancerClass`.
pub(super) const CLASS_KEY: &str = "ballast.dev/lan";
/// Far more addresses than there are Services.
pub(super) const WIDE: &str = "198.18.0.0/16";

/// The range of a pool of this size.
pub(super) fn of_size(services: u32) -> String {
    let first = Ipv4Addr::new(198, 18, 0, 1);
    let last = Ipv4Addr::from(u32::from(first) + services.saturating_sub(1));
    format!("{first}-{last}")
}

/// The class and its single pool with this range, whose released addresses do not rest.
pub(super) fn manifest(range: &str) -> String {
    format!(
        "apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {{name: {CLASS}}}\nspec: {{l2: {{}}}}\n---\n\
         apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: bench}}\nspec: {{addresses: [{range}], reuseAfter: 0s}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_a_size_has_so_many_addresses() {
        assert_eq!(of_size(1), "198.18.0.1-198.18.0.1");
        assert_eq!(of_size(5_000), "198.18.0.1-198.18.19.136");
    }
}
