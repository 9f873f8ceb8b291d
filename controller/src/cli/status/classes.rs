//! Who uses each class, and what that costs a month. Pure. `-o json|yaml` prints these structs,
//! so fields may be added, but never renamed or removed.

use std::collections::BTreeMap;

use ballast_provider::{Billed, Money, Prices};
use k8s_openapi::api::core::v1::Service;
use serde::Serialize;

use super::render::View;
use super::report::{Classes, Report};
use crate::cli::cost::Bill;
use crate::cli::text::{Cell, Table};

/// Services that are named where a class has no place left.
const NAMED: usize = 10;

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassUsage {
    /// The name of the class.
    pub name: String,
    /// `aws`, `l2` or `mock`, if it is known.
    pub provider: Option<String>,
    /// Load balancers with an address. One that Services share counts once.
    pub load_balancers: u32,
    /// Public IPv4 addresses that a cloud bills, as far as the settings say.
    pub public_addresses: u32,
    /// Who bills them.
    pub bill: Bill,
    /// US dollars; absent if nothing is billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<f64>,
    /// `spec.maxLoadBalancers`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_load_balancers: Option<u32>,
    /// `NAMESPACE/NAME` of the Services that use it, the oldest first.
    pub services: Vec<String>,
    #[serde(skip)]
    cost: Option<Money>,
}

/// The users of one class.
#[derive(Default)]
struct Users<'a> {
    services: Vec<&'a Service>,
    /// What each load balancer is billed as, by the addresses that it has.
    balancers: BTreeMap<Vec<String>, Billed>,
}

/// Adds the classes and their costs to a report of these Services.
pub fn add(report: &mut Report, services: &[Service], classes: &Classes, prices: &Prices) {
    let mut all: BTreeMap<String, Users<'_>> = BTreeMap::new();
    for name in classes.names() {
        all.entry(name.to_owned()).or_default();
    }
    for service in services {
        let Some(class) = Classes::user_of(service) else {
            continue;
        };
        let users = all.entry(class.to_owned()).or_default();
        users.services.push(service);
        let addresses = crate::cli::service::addresses(service);
        if !addresses.is_empty() {
            let billed = classes.billed(class, service);
            users.balancers.entry(addresses).or_insert(billed);
        }
    }
    let all = all.into_iter();
    report.classes = all
        .map(|(name, users)| usage(name, users, classes, prices))
        .collect();
    let billed = report.classes.iter().filter(|one| one.bill == Bill::Aws);
    let costs: Vec<Money> = billed.filter_map(|one| one.cost).collect();
    report.monthly_cost = (!costs.is_empty()).then(|| costs.into_iter().sum::<Money>().dollars());
}

fn usage(name: String, mut users: Users<'_>, classes: &Classes, prices: &Prices) -> ClassUsage {
    users.services.sort_by_key(|one| {
        let meta = &one.metadata;
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (created, meta.namespace.clone(), meta.name.clone())
    });
    let provider = classes.provider(&name);
    let bill = Bill::of(provider.as_deref());
    let billed: Billed = users.balancers.values().copied().sum();
    let cost = (bill != Bill::Nobody).then(|| prices.per_month(billed));
    ClassUsage {
        load_balancers: u32::try_from(users.balancers.len()).unwrap_or(u32::MAX),
        public_addresses: billed.public_addresses,
        bill,
        monthly_cost: cost.map(Money::dollars),
        max_load_balancers: classes.max(&name),
        services: users.services.iter().map(|one| title(one)).collect(),
        provider,
        name,
        cost,
    }
}

fn title(service: &Service) -> String {
    let meta = &service.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default())
}

/// The classes that cost something or have no place left. Empty if there are none.
pub fn text(report: &Report, view: View<'_>) -> String {
    let costs = |one: &&ClassUsage| one.cost.is_some() && one.load_balancers > 0;
    let shown = |one: &&ClassUsage| costs(one) || one.is_full();
    let mut table = Table::new(&[
        "CLASS",
        "PROVIDER",
        "LOAD BALANCERS",
        "PUBLIC IPV4",
        "A MONTH",
        "REMARK",
    ]);
    for one in report.classes.iter().filter(shown) {
        table.row(vec![
            Cell::new(&one.name),
            Cell::new(one.provider.as_deref().unwrap_or_default()),
            Cell::new(one.load_balancers.to_string()),
            Cell::new(one.public_addresses.to_string()),
            Cell::new(one.cost.map(|cost| cost.to_string()).unwrap_or_default()),
            Cell::remark(&one.remark()),
        ]);
    }
    let mut billed = report.classes.iter().filter(|one| one.bill == Bill::Aws);
    if billed.next().is_some() {
        let all: Money = report
            .classes
            .iter()
            .filter(|one| one.bill == Bill::Aws)
            .filter_map(|one| one.cost)
            .sum();
        table.row(vec![
            Cell::new("(all)"),
            Cell::new(""),
            Cell::new(""),
            Cell::new(""),
            Cell::new(all.to_string()),
            Cell::remark("estimated from list prices, without traffic"),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n{}", table.render(view.look))
}

// === impl ClassUsage ===

impl ClassUsage {
    fn is_full(&self) -> bool {
        let max = self.max_load_balancers;
        max.is_some_and(|max| self.services.len() >= max as usize)
    }

    fn remark(&self) -> String {
        let mut all = Vec::new();
        if self.bill == Bill::AsOnAws {
            all.push("not billed: so much would the same cost on AWS".to_owned());
        }
        if self.is_full() {
            let named: Vec<&str> = self
                .services
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect();
            let more = match self.services.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            all.push(format!(
                "all {} places (spec.maxLoadBalancers) are taken by {}{more}",
                self.max_load_balancers.unwrap_or_default(),
                named.join(", ")
            ));
        }
        all.join("; ")
    }
}

#[cfg(test)]
mod tests;
