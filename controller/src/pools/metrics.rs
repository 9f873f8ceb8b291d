//! How full the pools are, counted at scrape time.

use std::fmt;
use std::sync::Arc;

use ballast_l2::Addresses;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Counts the addresses of pools by state at scrape time.
#[derive(Debug)]
pub(super) struct PoolMetrics(pub(super) Arc<Addresses>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    pool: String,
    family: &'static str,
    state: &'static str,
}

/// The size of an IPv6 pool has more digits than a metric can hold.
#[allow(
    clippy::cast_precision_loss,
    reason = "2^64 or 2^64 - 1 is the same graph"
)]
const fn approximate(count: u128) -> f64 {
    count as f64
}

// === impl PoolMetrics ===

impl Collector for PoolMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "ballast_pool_addresses";
        let help = "Addresses of pools by state; the states add up to the pool's size";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (pool, _) in self.0.pools(0) {
            for (family, counts) in [("IPv4", &pool.v4), ("IPv6", &pool.v6)] {
                if counts.total == 0 {
                    continue;
                }
                for (state, count) in [
                    ("assigned", counts.assigned),
                    ("available", counts.available),
                    ("resting", counts.resting),
                    ("held", counts.held),
                ] {
                    let labels = Labels {
                        pool: pool.name.clone(),
                        family,
                        state,
                    };
                    let gauge = ConstGauge::new(approximate(count));
                    gauge.encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
