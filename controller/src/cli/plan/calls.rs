//! What a cloud would be asked for a load balancer, and what it bills. Pure.

use std::collections::BTreeMap;

use ballast_aws::preview::{self, OF_CLASS, preview as objects_of};
use ballast_aws::settings::{ClassSettings, Settings};
use ballast_crds::ProviderSettings;
use ballast_provider::{Billed, Key, Member, Refusal, TargetSet};

use crate::cli::cost;
use crate::cli::migrate::lbc::balancer::Balancer;
use crate::run::factory::Providers;

/// The call with which the mock cloud creates and changes a load balancer.
const MOCK: &str = "PUT /v1/load-balancers";

/// Where the load balancers of a class are.
#[derive(Clone, Debug)]
pub enum Cloud {
    /// On AWS, with these settings.
    Aws(Box<ClassSettings>),
    /// In a mock cloud.
    Mock,
    /// On the nodes.
    Nodes,
}

/// What it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Changing calls by action.
    pub calls: BTreeMap<String, usize>,
    /// Actions that the first Service of the class takes in addition.
    pub of_class: &'static [&'static str],
    /// The load balancer in words.
    pub text: String,
    /// What its owner should know.
    pub warnings: Vec<String>,
    /// What was billed, and what will be; `None` if nothing ever is.
    pub billed: Option<(Billed, Billed)>,
}

/// What the cloud of a class is asked to bring a load balancer from these Services to those.
pub fn of(
    cloud: &Cloud,
    key: &Key,
    before: &[Member],
    after: &[Member],
    targets: &TargetSet,
) -> Result<Asked, Refusal> {
    match cloud {
        Cloud::Aws(class) => on_aws(class, key, before, after, targets),
        Cloud::Mock => Ok(Asked {
            calls: if shape(before) == shape(after) {
                BTreeMap::new()
            } else {
                [(MOCK.to_owned(), 1)].into()
            },
            text: "in the mock cloud; targets: node ports".to_owned(),
            billed: Some((all_in_mock_cloud(before), all_in_mock_cloud(after))),
            ..Asked::default()
        }),
        Cloud::Nodes => Ok(Asked {
            text: "an address of a pool, which a node announces".to_owned(),
            ..Asked::default()
        }),
    }
}

fn all_in_mock_cloud(all: &[Member]) -> Billed {
    let families = all.iter().map(|one| &one.load_balancer.families);
    families.map(|all| cost::in_mock_cloud(all)).sum()
}

fn shape(all: &[Member]) -> Vec<&ballast_provider::LoadBalancer> {
    all.iter().map(|one| &one.load_balancer).collect()
}

fn on_aws(
    class: &ClassSettings,
    key: &Key,
    before: &[Member],
    after: &[Member],
    targets: &TargetSet,
) -> Result<Asked, Refusal> {
    let calls = preview::calls(key, before, after, class, targets)?;
    let mut counted = BTreeMap::new();
    for call in &calls {
        *counted.entry(call.action().to_owned()).or_default() += 1;
    }
    let mut asked = Asked {
        calls: counted,
        ..Asked::default()
    };
    let billed = |all: &[Member]| {
        let first = all.first().map(|one| settings_of(one, class));
        first.map_or_else(Billed::default, |first| cost::on_aws(&first))
    };
    asked.billed = Some((billed(before), billed(after)));
    if let Some(one) = after.first() {
        let seen = objects_of(one, class);
        if let Some(objects) = &seen.objects {
            asked.text = Balancer::of(&one.load_balancer, objects).text();
            if objects.desired.backend_group.is_some() && objects.merged.bound.is_empty() {
                asked.of_class = &OF_CLASS;
            }
        }
    }
    for one in after {
        asked.warnings.extend(objects_of(one, class).remarks);
    }
    let public = billed(after).public_addresses;
    let named = after
        .first()
        .map(|one| settings_of(one, class).subnets.len());
    if public > 0 && named == Some(0) {
        asked.warnings.push(format!(
            "no subnets are named: the cost is that of {} zones, with a public IPv4 address in each",
            cost::ZONES
        ));
    }
    Ok(asked)
}

fn settings_of(member: &Member, class: &ClassSettings) -> Settings {
    let own = Settings::of(&member.load_balancer.settings, class.allowed.as_ref());
    let own = own.map(|parsed| parsed.settings).unwrap_or_default();
    own.over(&class.settings)
}

// === impl Cloud ===

impl Cloud {
    /// By the settings of a class.
    pub fn of(settings: &ProviderSettings) -> Self {
        match settings {
            ProviderSettings::Aws(aws) => {
                let settings = Providers::aws_settings(aws).unwrap_or_default();
                Self::Aws(Box::new(settings))
            }
            ProviderSettings::Mock(_) => Self::Mock,
            ProviderSettings::L2(_) => Self::Nodes,
        }
    }

    /// Nobody bills it, and the cost is that of the same on AWS.
    pub const fn is_mock(&self) -> bool {
        matches!(self, Self::Mock)
    }
}
