//! Which setting an annotation or a field of a class stands for, and how its value is read.

use ballast_provider::Refusal;

use super::{HealthCheck, Parsed, ProxyProtocol, attributes, values};
use crate::target::TargetType;

// === impl Parsed ===

impl Parsed {
    /// Sets what one annotation or field of a class says. `key` is its whole name, for messages.
    pub(super) fn set(
        &mut self,
        name: &str,
        port: Option<u16>,
        key: &str,
        value: &str,
    ) -> Result<(), Refusal> {
        let settings = &mut self.settings;
        match name {
            "scheme" => settings.scheme = Some(values::scheme(key, value)?),
            "subnets" => settings.subnets = values::list(key, value)?,
            "security-groups" => settings.security_groups = values::list(key, value)?,
            "manage-backend-security-group-rules" => {
                settings.manage_backend_rules = Some(values::boolean(key, value)?);
            }
            "security-group-prefix-lists" => {
                settings.prefix_lists = values::ids(key, value, "pl-")?;
            }
            "enable-icmp-for-path-mtu-discovery" => {
                settings.path_mtu = Some(values::on_or_off(key, value)?);
            }
            "inbound-sg-rules-on-private-link-traffic" => {
                settings.private_link_rules = Some(values::on_or_off(key, value)?);
            }
            "eip-allocations" => {
                settings.elastic_addresses = values::ids(key, value, "eipalloc-")?;
            }
            "private-ipv4-addresses" => {
                settings.private_addresses = values::addresses(key, value)?;
            }
            "minimum-load-balancer-capacity" => {
                settings.capacity = Some(values::capacity(key, value)?);
            }
            "additional-resource-tags" => {
                let (tags, remarks) = values::tags(key, value)?;
                settings.tags = tags;
                self.remarks.extend(remarks);
            }
            "attributes" => {
                let all = attributes::load_balancer(key, values::map(key, value)?)?;
                settings.attributes.extend(all);
            }
            "target-group-attributes" => {
                let all = attributes::target_group(key, values::map(key, value)?)?;
                match port {
                    Some(port) => {
                        settings.port_attributes.insert(port, all);
                    }
                    None => settings.target_group_attributes = all,
                }
            }
            "listener-attributes" => {
                let port = values::tcp_port(key)?;
                let all = attributes::listener(key, values::map(key, value)?)?;
                settings.listener_attributes.insert(port, all);
            }
            "ssl-cert"
            | "ssl-ports"
            | "ssl-negotiation-policy"
            | "alpn-policy"
            | "backend-protocol" => settings.tls.set(name, key, value)?,
            "target-node-labels" => settings.node_labels = Some(values::labels(key, value)?),
            "ip-address-type" => settings.dualstack = Some(values::ip_address_type(key, value)?),
            "enable-prefix-for-ipv6-source-nat" => {
                settings.source_nat = Some(values::on_or_off(key, value)?);
            }
            "nlb-target-type" => settings.target_type = Some(values::target_type(key, value)?),
            "type" => {
                if value == values::NLB_IP {
                    settings.target_type.get_or_insert(TargetType::Ip);
                }
                self.remarks.push(format!(
                    "{key} has no effect: spec.loadBalancerClass decides which controller serves the Service"
                ));
            }
            "proxy-protocol" => {
                values::every_port(key, value)?;
                settings.proxy_protocol = Some(ProxyProtocol::All);
            }
            "proxy-protocol-per-target-group" => {
                let ports = values::ports(key, value)?;
                settings
                    .proxy_protocol
                    .get_or_insert(ProxyProtocol::Ports(ports));
            }
            name => {
                if let Some(name) = name.strip_prefix("healthcheck-") {
                    settings.health_check.set(name, key, value)?;
                }
            }
        }
        Ok(())
    }
}

// === impl HealthCheck ===

impl HealthCheck {
    fn set(&mut self, name: &str, key: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "protocol" => self.protocol = Some(values::check_protocol(key, value)?),
            "port" => self.port = Some(values::check_port(key, value)?),
            "path" => self.path = Some(values::path(key, value)?),
            "success-codes" => self.success_codes = Some(values::success_codes(key, value)?),
            "interval" => self.interval = Some(values::number(key, value, 5..=300)?),
            "timeout" => self.timeout = Some(values::number(key, value, 2..=120)?),
            "healthy-threshold" => {
                self.healthy_threshold = Some(values::number(key, value, 2..=10)?);
            }
            "unhealthy-threshold" => {
                self.unhealthy_threshold = Some(values::number(key, value, 2..=10)?);
            }
            _ => {}
        }
        Ok(())
    }
}
