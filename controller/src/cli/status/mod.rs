//! `ballast status`: shows every load balancer, every address pool, or every announcer, and the
//! reason of its state.
//!
//! It reads only the Kubernetes API, with the rights of the user. [`report`], [`pools`] and
//! [`announcers`] compute what to show, [`render`] formats it; [`run`] reads, prints, and exits.

pub mod announcers;
pub mod classes;
pub mod deletions;
#[cfg(test)]
mod fixtures;
mod known;
pub mod pools;
pub mod render;
pub mod report;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ballast_crds::{AddressPool, LoadBalancerClass};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};

use super::cluster::{ClusterArgs, ReadError, helpful, list};
use super::prices::PriceArgs;
use super::{NOT_FOUND, Output, look, note, print, program};
use crate::announcer::lease::LABELS;
use crate::process::causes::causes;
use announcers::Objects;
use render::View;
use report::{Classes, EventLine, Report};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # All load balancers of Ballast, with their state and the reason for it:
  ballast status

  # One Service, with its conditions, ports and events:
  ballast status web -n shop

  # For scripts: the Services that receive no traffic:
  ballast status -o json | jq -r '.services[] | select(.ready | not) | .name'

  # What AWS bills a month, with the prices of another region:
  ballast status --price load-balancer-hour=0.0252 -o json | jq .monthlyCost

  # Deletions that wait, why, and how to go on:
  ballast status -o json | jq '.deletions[] | .namespace, .name, .why, .next'

  # Address pools: free addresses, and which Service uses which address:
  ballast status --pools

  # Bare metal: which node announces each address, since when and why, and what is wrong with the
  # announcers:
  ballast status --announcers

  # For scripts: the number of addresses of each node:
  ballast status --announcers -o json | jq -r '.announcers[] | .node, .addresses'

If the binary is on the PATH as kubectl-ballast, it is a plugin: kubectl ballast status.

States:
  Ready      traffic flows with the current settings
  Pending    the controller has not reported anything yet
  Releasing  the load balancer is being deleted
  NotServed  no class of Ballast serves the Service; only shown with NAME
  Any other state is the reason of the condition that is not True.

Exit status:
  0  success, whatever the state
  1  the cluster cannot be read
  2  invalid usage
  4  NAME does not exist";

/// Flags of `ballast status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Show only the Service with this name, in detail. With --pools: only this pool. With
    /// --announcers: only this node.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Show only this namespace. Default: all namespaces.
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with_all = ["pools", "announcers"])]
    pub namespace: Option<String>,

    /// Show address pools instead of Services.
    #[arg(long)]
    pub pools: bool,

    /// Show the announcers of nodes and their addresses instead of Services.
    #[arg(long, conflicts_with = "pools")]
    pub announcers: bool,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// For the estimated costs.
    #[command(flatten)]
    pub prices: PriceArgs,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What is printed, and the exit status.
struct Answer {
    out: String,
    /// Printed to standard error.
    notes: Vec<String>,
    found: bool,
}

/// Reads the cluster and prints the state.
pub async fn run(args: StatusArgs) -> Result<ExitCode> {
    let client = args.cluster.client()?;
    let view = View {
        look: look(std::io::stdout().is_terminal()),
        now: Timestamp::now(),
        program: program(),
    };
    let answer = if args.pools {
        of_pools(&args, client, view).await?
    } else if args.announcers {
        of_announcers(&args, &client, view).await?
    } else {
        of_services(&args, client, view).await?
    };
    print(&answer.out)?;
    answer.notes.iter().for_each(note);
    Ok(if answer.found {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_FOUND)
    })
}

async fn of_services(args: &StatusArgs, client: Client, view: View<'_>) -> Result<Answer> {
    let mut notes = Vec::new();
    let classes = read_classes(&client, &mut notes).await?;
    let services = services(args, &client).await?;
    let Some(name) = &args.name else {
        let mut report = report::report(&services, &classes);
        report.deletions = deletions::of(&report.services, &classes, view.now);
        let prices = args.prices.prices();
        classes::add(&mut report, &services, &classes, &prices);
        locate(&client, &mut report, &mut notes).await?;
        let out = if let Some(out) = args.output.machine(&report)? {
            out
        } else {
            notes.extend(render::hint(&report, view));
            notes.extend(render::drained(&classes, view));
            [
                render::services(&report, view),
                deletions::text(&report.deletions, view),
                classes::text(&report, view),
            ]
            .concat()
        };
        return Ok(Answer {
            out,
            notes,
            found: true,
        });
    };
    let mut report = report::named(&services, &classes, name);
    report.deletions = deletions::of(&report.services, &classes, view.now);
    locate(&client, &mut report, &mut notes).await?;
    for service in &mut report.services {
        match events(&client, &service.namespace, name).await {
            Ok(lines) => service.events = Some(lines),
            Err(error) => notes.push(format!("cannot show events: {}", causes(&error))),
        }
    }
    let found = !report.services.is_empty();
    if !found {
        let place = args.namespace.as_ref();
        let place = place.map_or("any namespace".to_owned(), |it| format!("namespace {it}"));
        notes.push(format!("ballast: Service {name} not found in {place}"));
    }
    let out = args.output.machine(&report)?;
    let out = out.unwrap_or_else(|| described(&report, view));
    Ok(Answer { out, notes, found })
}

fn described(report: &Report, view: View<'_>) -> String {
    let all: Vec<String> = report
        .services
        .iter()
        .map(|service| render::description(service, view))
        .collect();
    let deletions = deletions::text(&report.deletions, view);
    format!("{}{deletions}", all.join("\n"))
}

async fn of_pools(args: &StatusArgs, client: Client, view: View<'_>) -> Result<Answer> {
    let api = Api::<DeserializeGuard<AddressPool>>::all(client.clone());
    let params = ListParams::default();
    let pools = list(&api, "AddressPools", &params).await.map_err(helpful)?;
    let services = services(args, &client).await?;
    let mut report = pools::report(&pools, &services);
    let mut notes = Vec::new();
    let mut found = true;
    if let Some(name) = &args.name {
        report.pools.retain(|pool| pool.name == *name);
        found = !report.pools.is_empty();
    }
    match &args.name {
        Some(name) if !found => notes.push(format!("ballast: AddressPool {name} not found")),
        _ if args.output == Output::Text => notes.extend(render::pools_hint(&report, view)),
        _ => {}
    }
    let out = args.output.machine(&report)?;
    let out = out.unwrap_or_else(|| render::pools(&report, view));
    Ok(Answer { out, notes, found })
}

async fn of_announcers(args: &StatusArgs, client: &Client, view: View<'_>) -> Result<Answer> {
    let mut notes = Vec::new();
    let classes = read_classes(client, &mut notes).await?;
    let services = services(args, client).await?;
    let services = report::report(&services, &classes);
    let objects = objects(client, &mut notes).await.map_err(helpful)?;
    let mut report = announcers::report(&objects, &services, view.now);
    let mut found = true;
    if let Some(name) = &args.name {
        report.announcers.retain(|it| it.node == *name);
        report.addresses.retain(|it| it.node.as_ref() == Some(name));
        found = !report.announcers.is_empty();
    }
    match &args.name {
        Some(name) if !found => {
            notes.push(format!("ballast: no node or Announcer is called {name}"));
        }
        _ if args.output == Output::Text => notes.extend(render::announcers_hint(&report, view)),
        _ => {}
    }
    let out = args.output.machine(&report)?;
    let out = out.unwrap_or_else(|| render::announcers(&report, view));
    Ok(Answer { out, notes, found })
}

/// Adds where the addresses of `l2` Services are announced, if there are any.
async fn locate(client: &Client, report: &mut Report, notes: &mut Vec<String>) -> Result<()> {
    let l2 = |service: &report::ServiceStatus| service.provider.as_deref() == Some("l2");
    if !report.services.iter().any(l2) {
        return Ok(());
    }
    match objects(client, notes).await {
        Ok(objects) => announcers::locate(report, &objects),
        Err(error @ (ReadError::Forbidden { .. } | ReadError::NoSuchKind(_))) => {
            notes.push(format!(
                "cannot show which node announces an address: {error}"
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Announcers, and what shows whether they work. Nodes and Leases are not for every user.
async fn objects(client: &Client, notes: &mut Vec<String>) -> Result<Objects, ReadError> {
    let everything = ListParams::default();
    let announcers = list(&Api::all(client.clone()), "Announcers", &everything).await?;
    let mut tolerated = |error: ReadError, what: &str| match error {
        ReadError::Forbidden { .. } => {
            notes.push(format!("{error}: {what}"));
            Ok(())
        }
        error => Err(error),
    };
    let hosts = match list(&Api::all(client.clone()), "Nodes", &everything).await {
        Ok(hosts) => Some(hosts),
        Err(error) => {
            tolerated(error, "nodes without an announcer are not shown")?;
            None
        }
    };
    let labelled = everything.labels(LABELS);
    let leases = match list(&Api::all(client.clone()), "Leases", &labelled).await {
        Ok(leases) => Some(leases),
        Err(error) => {
            tolerated(error, "it is not known whether each announcer runs")?;
            None
        }
    };
    Ok(Objects {
        announcers,
        nodes: hosts,
        leases,
    })
}

/// Without classes, the command cannot tell which Services without a class are Ballast's.
async fn read_classes(client: &Client, notes: &mut Vec<String>) -> Result<Classes> {
    let api = Api::<DeserializeGuard<LoadBalancerClass>>::all(client.clone());
    match list(&api, "LoadBalancerClasses", &ListParams::default()).await {
        Ok(classes) => Ok(Classes::of(&classes)),
        Err(ReadError::Forbidden { .. }) => {
            notes.push(
                "not allowed to list LoadBalancerClasses; Services without a class may be missing"
                    .to_owned(),
            );
            Ok(Classes::unknown())
        }
        Err(error) => Err(helpful(error)),
    }
}

async fn services(args: &StatusArgs, client: &Client) -> Result<Vec<Service>> {
    let api: Api<Service> = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    // With `--pools` and `--announcers`, the name is not that of a Service.
    let name = args
        .name
        .as_ref()
        .filter(|_| !args.pools && !args.announcers);
    let params = match name {
        Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        None => ListParams::default(),
    };
    match list(&api, "Services", &params).await {
        Err(error @ ReadError::Forbidden { .. }) if args.namespace.is_none() => Err(error).context(
            "cannot list the Services of all namespaces; choose a namespace with -n NAMESPACE",
        ),
        other => Ok(other?),
    }
}

async fn events(client: &Client, namespace: &str, name: &str) -> Result<Vec<EventLine>, ReadError> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let fields = format!("involvedObject.kind=Service,involvedObject.name={name}");
    let events = list(&api, "Events", &ListParams::default().fields(&fields)).await?;
    Ok(EventLine::all(&events))
}
