//! The fields of a Service that commands read. Pure.

use k8s_openapi::api::core::v1::Service;

/// Whether the Service is of type `LoadBalancer`.
pub(crate) fn is_load_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// The addresses that a Service publishes.
pub(crate) fn addresses(service: &Service) -> Vec<String> {
    let status = service.status.as_ref();
    let entries = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|load_balancer| load_balancer.ingress.as_deref())
        .unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone()))
        .collect()
}
