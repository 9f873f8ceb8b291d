//! Annotations that newer ones replace, or that are for Classic Load Balancers. Pure.

use ballast_provider::{Refusal, Settings as Annotations};

use super::{Parsed, Scheme, attributes, values};
use crate::annotations::PREFIX;

// === impl Parsed ===

impl Parsed {
    /// Annotations that newer ones replace. The newer one wins, but for access logs: there the more special one
    /// does, as in the AWS Load Balancer Controller.
    pub(super) fn deprecated(&mut self, annotations: &Annotations) -> Result<(), Refusal> {
        let old = |name: &str| {
            let key = format!("{PREFIX}{name}");
            let value = annotations.get(&key)?;
            Some(values::boolean(&format!("annotation {key}"), value.trim()))
        };
        if let Some(internal) = old("internal").transpose()? {
            let scheme = if internal {
                Scheme::Internal
            } else {
                Scheme::InternetFacing
            };
            self.settings.scheme.get_or_insert(scheme);
        }
        if let Some(on) = old("cross-zone-load-balancing-enabled").transpose()? {
            let all = &mut self.settings.attributes;
            all.entry(attributes::CROSS_ZONE.into())
                .or_insert_with(|| on.to_string());
        }
        let drains = old("connection-draining-enabled").transpose()?;
        let key = format!("{PREFIX}connection-draining-timeout");
        if let Some(value) = annotations.get(&key) {
            let named = format!("annotation {key}");
            let seconds = values::number(&named, value.trim(), 1..=3_600)?;
            if drains == Some(true) {
                let all = &mut self.settings.target_group_attributes;
                all.entry(attributes::DEREGISTRATION_DELAY.into())
                    .or_insert_with(|| seconds.to_string());
            } else {
                self.remarks.push(format!(
                    "{named} has no effect without {PREFIX}connection-draining-enabled: \"true\""
                ));
            }
        }
        for (name, attribute) in [
            ("access-log-enabled", attributes::ACCESS_LOGS),
            ("access-log-s3-bucket-name", attributes::ACCESS_LOGS_BUCKET),
            (
                "access-log-s3-bucket-prefix",
                attributes::ACCESS_LOGS_PREFIX,
            ),
        ] {
            let key = format!("{PREFIX}{name}");
            if let Some(value) = annotations.get(&key) {
                let mut value = value.trim().to_owned();
                if attribute == attributes::ACCESS_LOGS {
                    value = values::boolean(&format!("annotation {key}"), &value)?.to_string();
                }
                let one = [(attribute.to_owned(), value)].into();
                let one = attributes::load_balancer(&format!("annotation {key}"), one)?;
                self.settings.attributes.extend(one);
            }
        }
        Ok(())
    }
}
