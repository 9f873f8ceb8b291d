//! What a Service would get, worked out without AWS, for commands that explain settings. Pure.
//!
//! It asks the functions that the provider asks, so it refuses the same settings in the same words. It never makes
//! objects: what only AWS knows, such as IDs of subnets and entries of prefix lists, is a stand-in here.

mod calls;

use ballast_provider::{Key, Mark, Member, Refusal};

use crate::bind::TARGET_GROUPS;
use crate::desired::{self, Desired, FoundSubnet, LookedUp, Outcome, Part, PrefixLists};
use crate::requests;
use crate::settings::{ClassSettings, Settings};

pub use self::calls::{OF_CLASS, calls, deletion};

/// What IDs of subnets begin with. Any other name is a value of their tag `Name`.
const SUBNET: &str = "subnet-";

/// What refuses a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The annotation, if it is one by itself.
    pub key: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

/// The objects of a Service, and the settings that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// The objects. Names and IDs in it are stand-ins.
    pub desired: Desired,
    /// What the Service says itself.
    pub own: Settings,
    /// The same with what its class adds.
    pub merged: Settings,
}

/// What becomes of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Everything that refuses it, annotations first; empty if Ballast serves it as it is.
    pub refused: Vec<Refused>,
    /// What it gets without the annotations that are refused; `None` if that is refused, too.
    pub objects: Option<Objects>,
    /// What has no effect, and why.
    pub remarks: Vec<String>,
}

/// What becomes of a Service of a class.
pub fn preview(member: &Member, class: &ClassSettings) -> Preview {
    let mut refused = Vec::new();
    let mut rest = member.clone();
    for (key, value) in &member.load_balancer.settings {
        let alone = [(key.clone(), value.clone())].into();
        if let Err(refusal) = Settings::of(&alone, class.allowed.as_ref()) {
            rest.load_balancer.settings.remove(key);
            refused.push(Refused {
                key: Some(key.clone()),
                refusal,
            });
        }
    }
    match objects(&rest, class) {
        Ok((objects, remarks)) => Preview {
            refused,
            objects: Some(objects),
            remarks,
        },
        Err(refusal) => {
            // Whoever mends a refused annotation also gives what another one misses.
            let misses = |one: &Refused| {
                let key = one.key.as_deref();
                key.is_some_and(|key| refusal.message.contains(key))
            };
            if !refused.iter().any(misses) {
                refused.push(Refused { key: None, refusal });
            }
            Preview {
                refused,
                objects: None,
                remarks: Vec::new(),
            }
        }
    }
}

fn objects(member: &Member, class: &ClassSettings) -> Result<(Objects, Vec<String>), Refusal> {
    requests::check(member)?;
    let service = &member.load_balancer;
    let parsed = Settings::of(&service.settings, class.allowed.as_ref())?;
    let own = parsed.settings;
    let merged = own.clone().over(&class.settings);
    let parts = [Part {
        service,
        settings: &merged,
        policy: member.placement.family_policy,
    }];
    desired::check(&parts)?;
    let (mark, key) = (nobody(), Key::alone(&service.id));
    let found = stand_ins(&merged);
    let Outcome { desired, remarks } = Desired::of(&mark, &key, &parts, &found)?;
    let mut remarks = remarks.concat();
    remarks.extend(requests::remarks(member));
    remarks.extend(parsed.remarks);
    if !merged.bound.is_empty() {
        remarks.push(format!(
            "annotation {TARGET_GROUPS}: the Service gets no load balancer; its targets are registered in target groups of others"
        ));
    }
    let objects = Objects {
        desired,
        own,
        merged,
    };
    Ok((objects, remarks))
}

fn nobody() -> Mark {
    Mark {
        cluster: String::new(),
        cluster_name: String::new(),
        class: String::new(),
        writer: String::new(),
    }
}

/// As many as the settings need: a name can be that of several subnets, and AWS alone knows.
fn stand_ins(settings: &Settings) -> LookedUp {
    let named = &settings.subnets;
    let exact = !named.is_empty() && named.iter().all(|name| name.starts_with(SUBNET));
    let addresses = settings
        .elastic_addresses
        .len()
        .max(settings.private_addresses.len());
    let count = if exact {
        named.len()
    } else {
        named.len().max(addresses).max(1)
    };
    let subnet = |at: usize| FoundSubnet {
        id: format!("{SUBNET}{at}"),
        zone: format!("zone {at}"),
        ipv6: true,
    };
    LookedUp {
        subnets: (0..count).map(subnet).collect(),
        backend_group: Some("sg-backend".to_owned()),
        security_groups: settings.security_groups.clone(),
        prefix_lists: PrefixLists::new(),
        unruled: std::collections::BTreeSet::new(),
        groupless: false,
        ipv6_nodes: true,
    }
}

#[cfg(test)]
mod tests {
    use ballast_provider::{Placement, Protocol, Reason};

    use super::*;
    use crate::annotations::PREFIX;
    use crate::desired::tests::{WEB, service};
    use crate::settings::Allowed;

    /// A Service with these ports and annotations.
    pub(super) fn member(ports: &[(Protocol, u16, u16)], all: &[(&str, &str)]) -> Member {
        let mut load_balancer = service(ports);
        let pairs = all.iter();
        load_balancer.settings = pairs
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
            .collect();
        Member {
            load_balancer,
            published: Vec::new(),
            placement: Placement::default(),
            endpoints: None,
        }
    }

    fn of(all: &[(&str, &str)]) -> Preview {
        preview(&member(&[WEB], all), &ClassSettings::default())
    }

    #[test]
    fn every_annotation_that_is_refused_is_named_in_the_words_of_the_provider() {
        let all = [
            ("ipv6-addresses", "2001:db8::1"),
            ("name", "web"),
            ("scheme", "internet-facing"),
            ("shceme", "internal"),
        ];
        let seen = of(&all);
        let keys: Vec<_> = seen.refused.iter().map(|it| it.key.as_deref()).collect();
        let expected = ["ipv6-addresses", "name", "shceme"].map(|it| format!("{PREFIX}{it}"));
        assert_eq!(keys, expected.each_ref().map(|it| Some(it.as_str())));
        for one in &seen.refused {
            let settings = member(&[WEB], &all).load_balancer.settings;
            let key = one.key.clone().unwrap_or_default();
            let alone = [(key.clone(), settings[&key].clone())].into();
            assert_eq!(Settings::of(&alone, None), Err(one.refusal.clone()));
        }
        let objects = seen.objects.expect("the rest is served");
        assert_eq!(objects.desired.scheme.as_str(), "internet-facing");
    }

    #[test]
    fn what_contradicts_itself_is_refused_once() {
        let seen = of(&[("eip-allocations", "eipalloc-1")]);
        assert_eq!(seen.objects, None);
        let [one] = &seen.refused[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (one.key.as_deref(), one.refusal.reason),
            (None, Reason::Invalid)
        );
        // The certificate is refused; that the ports need one would only repeat it.
        let seen = of(&[("ssl-cert", "web"), ("ssl-ports", "80")]);
        let keys: Vec<_> = seen.refused.iter().map(|it| it.key.is_some()).collect();
        assert_eq!(keys, [true]);
        // This has nothing to do with it.
        let seen = of(&[("ssl-cert", "web"), ("eip-allocations", "eipalloc-1")]);
        assert_eq!(seen.refused.len(), 2);
    }

    #[test]
    fn the_number_of_subnets_is_known_only_from_their_ids() {
        let addresses = ("private-ipv4-addresses", "10.0.0.4,10.0.1.4");
        for (subnets, fits) in [
            ("subnet-1,subnet-2", true),
            ("subnet-1", false),
            ("private", true),
        ] {
            let seen = of(&[("subnets", subnets), addresses]);
            assert_eq!(seen.objects.is_some(), fits, "{subnets}");
        }
        assert!(of(&[addresses]).objects.is_some());
    }

    #[test]
    fn the_class_adds_and_forbids() {
        let class = ClassSettings {
            allowed: Some(Allowed::of(["scheme"]).expect("known")),
            settings: Settings {
                subnets: vec!["subnet-1".into()],
                ..Settings::default()
            },
            ..ClassSettings::default()
        };
        let seen = preview(
            &member(&[WEB], &[("scheme", "internal"), ("ssl-ports", "80")]),
            &class,
        );
        let [one] = &seen.refused[..] else {
            panic!("{seen:?}")
        };
        assert!(one.refusal.message.contains("spec.aws.allowedAnnotations"));
        let objects = seen.objects.expect("the rest is served");
        assert!(objects.own.subnets.is_empty());
        assert_eq!(objects.merged.subnets, ["subnet-1"]);
    }

    #[test]
    fn what_the_spec_asks_for_is_refused_or_remarked() {
        let mut asks = member(&[WEB], &[]);
        asks.placement.pool = Some("public".into());
        let seen = preview(&asks, &ClassSettings::default());
        assert!(seen.refused.is_empty());
        assert!(seen.remarks[0].contains("ballast.dev/address-pool"));
        asks.load_balancer.share_key = Some("a b".into());
        let seen = preview(&asks, &ClassSettings::default());
        assert_eq!((seen.refused.len(), seen.objects), (1, None));
    }
}
