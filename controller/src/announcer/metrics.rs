//! Metrics of the announcer's part that speaks to the API server.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct AnnouncerMetrics {
    connected: Gauge,
}

// === impl AnnouncerMetrics ===

impl AnnouncerMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_announcer_api_connected",
            "Whether the renewals of this node's Lease succeed and come back through the watch",
            metrics.connected.clone(),
        );
        metrics
    }

    /// Records whether the API server can be reached.
    pub fn connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }
}
