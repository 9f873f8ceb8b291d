//! `ballast migrate metallb`: converts `MetalLB`'s objects to Ballast's and takes over its
//! Services with their present addresses. [`lbc`] is `ballast migrate lbc`.
//!
//! [`source`] reads objects, [`mod@convert`] and `classes` convert them, [`takeover`] decides
//! what happens to Services, and [`render`] formats the output: all of these are pure. Only
//! [`run`] and `cluster` do I/O. The only writes are two kinds of Ballast's own objects,
//! applied with `--apply`; the command never writes an object of `MetalLB` or a Service.

pub mod anyof;
mod classes;
mod cluster;
pub mod convert;
pub mod files;
pub mod lbc;
pub mod render;
pub mod source;
pub mod takeover;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ballast_crds::LoadBalancerClass;
use clap::{Args, Subcommand};
use kube::{Client, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use super::cluster::{ClusterArgs, ReadError, helpful};
use super::service::is_load_balancer;
use super::text::Look;
use super::{NOT_FOUND, NOT_YET, Output, look, note, print, program, say};
use convert::{Choice, Migration, convert, manifest};
use render::{Applied, Blocked};
use source::{Note, Source};
use takeover::{Circumstances, Running, ServiceLine, blocked};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Show the objects that replace MetalLB's, what Ballast does not support, and the result for
  # each Service. This changes nothing:
  ballast migrate metallb

  # The same from manifests, without a cluster:
  ballast migrate metallb -f metallb.yaml > ballast.yaml
  kustomize build . | ballast migrate metallb -f -

  # Create pools and classes while MetalLB runs. No Service is taken over yet:
  ballast migrate metallb --apply

  # Take over the Services. They keep their addresses, and MetalLB's speakers announce the
  # addresses until you delete the speakers:
  kubectl scale deployment controller -n metallb-system --replicas=0
  ballast migrate metallb --apply

  # When an announcer of Ballast runs on each node, stop the speakers. The announcers wait while
  # a speaker answers for an address, and take it over within a second after that:
  ballast status --announcers
  kubectl delete daemonset speaker -n metallb-system
  ballast status

Stop MetalLB's controller before you delete MetalLB's objects or CRDs: it removes the addresses
of Services whose pool is deleted.

Exit status:
  0  success
  1  the cluster or a file cannot be read, or an object cannot be applied
  2  invalid usage
  4  no MetalLB objects found
  5  applied, but no Service is taken over yet: MetalLB's controller is running, or another
     class is the default";

/// Flags of `ballast migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    /// The load balancer to migrate from.
    #[command(subcommand)]
    pub from: From,
}

/// Load balancers to migrate from.
#[derive(Clone, Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the help shows the text as it stands")]
pub enum From {
    /// Migrate from MetalLB: IPAddressPools, L2Advertisements and Services.
    #[command(after_help = EXAMPLES)]
    Metallb(Box<MetallbArgs>),

    /// Show what becomes of the Services of the AWS Load Balancer Controller (LBC) and of the in-tree
    /// provider. It changes nothing.
    #[command(after_help = lbc::EXAMPLES)]
    Lbc(Box<lbc::LbcArgs>),
}

/// Flags of `ballast migrate metallb`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::doc_markdown, reason = "the help shows the text as it stands")]
pub struct MetallbArgs {
    /// Read manifests from FILE instead of the cluster; - is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<String>,

    /// Apply the objects. Take over the Services if MetalLB's controller is not running.
    #[arg(long)]
    pub apply: bool,

    /// Name of the LoadBalancerClass that takes over.
    #[arg(long, default_value = "metallb", value_name = "NAME")]
    pub class: String,

    /// The --lb-class flag of MetalLB, if its Deployment no longer exists. MetalLB serves only
    /// the Services of that class.
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,

    /// Output format. Text is YAML manifests, or with --apply a table of the results.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What `-o json|yaml` prints. Fields may be added, never renamed or removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    objects: Vec<Value>,
    notes: &'a [Note],
    services: &'a [ServiceLine],
    running: &'a Running,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<&'a Blocked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<&'a [Applied]>,
}

/// What is known before anything is applied.
#[derive(Debug, Default)]
struct Known {
    source: Source,
    running: Running,
    /// Whether `MetalLB`'s controller runs; `None` if unknown.
    runs: Option<bool>,
    /// Set last, from all other fields.
    blocked: Option<Blocked>,
    /// Another class is the default.
    other_default: Option<String>,
    /// The class is the default already; the command never undoes that.
    default: bool,
    /// From an earlier run, if `MetalLB`'s own objects are gone.
    before: Option<Migration>,
    /// Printed to standard error.
    hints: Vec<String>,
}

/// Reads, prints, and with `--apply` applies.
pub async fn run(args: MigrateArgs) -> Result<ExitCode> {
    match args.from {
        From::Metallb(args) => metallb(*args).await,
        From::Lbc(args) => lbc::run(*args).await,
    }
}

async fn metallb(args: MetallbArgs) -> Result<ExitCode> {
    let mut source = Source::default();
    for file in &args.files {
        let about = || files::called(file);
        let text = files::text(file).with_context(about)?;
        source.read(&text).with_context(about)?;
    }
    let client = if args.apply || args.files.is_empty() {
        Some(args.cluster.client()?)
    } else {
        None
    };
    let mut known = match &client {
        Some(client) => look_around(&args, client, source).await?,
        None => Known {
            source,
            ..Known::default()
        },
    };
    if known.source.found == 0 && known.before.is_none() {
        let place = match args.files.as_slice() {
            [] => "in this cluster".to_owned(),
            files => format!("in {}", files.join(", ")),
        };
        note(format_args!("ballast: no MetalLB objects found {place}"));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    let lb_class = args.lb_class.clone().or(known.running.lb_class.clone());
    known.blocked = blocked(&Circumstances {
        runs: known.runs,
        default: known.default,
        other_default: known.other_default.as_deref(),
        lb_class: lb_class.as_deref(),
    });
    let migration = migration(&args, &mut known);
    let services = takeover::services(&known.source.services, &migration, lb_class.as_deref());
    match client.filter(|_| args.apply) {
        Some(client) => apply(&args, &client, known, migration, &services).await,
        None => show(&args, &known, &migration, &services),
    }
}

/// Reads everything that is needed from the cluster.
async fn look_around(args: &MetallbArgs, client: &Client, mut source: Source) -> Result<Known> {
    let mut hints = Vec::new();
    let from_cluster = args.files.is_empty();
    if from_cluster {
        cluster::metallb(client, &mut source).await?;
    }
    match cluster::services(client).await {
        Ok(services) => source.services = services.into_iter().filter(is_load_balancer).collect(),
        Err(error) => hints.push(tolerated(
            args,
            error,
            "the result for Services is unknown",
        )?),
    }
    match cluster::namespaces(client).await {
        Ok(namespaces) => source.namespaces = namespaces,
        Err(error) => {
            hints.push(tolerated(
                args,
                error,
                "namespace selectors may be incomplete",
            )?);
        }
    }
    let (running, runs) = match cluster::workloads(client).await {
        Ok(workloads) => {
            let running = Running::of(&workloads);
            let runs = !running.controllers.is_empty();
            (running, Some(runs))
        }
        Err(error) => {
            hints.push(tolerated(
                args,
                error,
                "it is unknown whether MetalLB is running",
            )?);
            (Running::default(), None)
        }
    };
    let classes = match cluster::classes(client).await {
        Ok(classes) => classes,
        Err(ReadError::NoSuchKind(_) | ReadError::Forbidden { .. }) if !args.apply => Vec::new(),
        Err(error) => return Err(helpful(error)),
    };
    let before = if source.found == 0 && from_cluster {
        made_before(args, client).await?
    } else {
        None
    };
    Ok(Known {
        source,
        running,
        runs,
        default: takeover::is_default(&classes, &args.class),
        other_default: takeover::other_default(&classes, &args.class),
        blocked: None,
        before,
        hints,
    })
}

/// Without `--apply` few rights are enough; a hint says what could not be read.
fn tolerated(args: &MetallbArgs, error: ReadError, what: &str) -> Result<String> {
    match error {
        ReadError::Forbidden { .. } if !args.apply => Ok(format!("{error}: {what}")),
        error => Err(error.into()),
    }
}

async fn made_before(args: &MetallbArgs, client: &Client) -> Result<Option<Migration>> {
    let mut before = cluster::made_before(client).await?;
    let ours = |class: &LoadBalancerClass| class.name_any() == args.class;
    before.classes.sort_by_key(|class| !ours(class));
    let found = before.classes.first().is_some_and(ours);
    Ok(found.then_some(before))
}

fn migration(args: &MetallbArgs, known: &mut Known) -> Migration {
    let default = known.blocked.is_none() || known.default;
    match known.before.take() {
        Some(mut before) => {
            if let Some(class) = before.classes.first_mut() {
                class.spec.default = default;
            }
            before
        }
        None => convert(
            &known.source,
            Choice {
                class: &args.class,
                default,
            },
        ),
    }
}

/// The requested output goes to standard output, hints to standard error.
fn show(
    args: &MetallbArgs,
    known: &Known,
    migration: &Migration,
    services: &[ServiceLine],
) -> Result<ExitCode> {
    if let Some(out) = machine(args, known, migration, services, None)? {
        print(&out)?;
    } else {
        print(&render::manifests(migration, known.blocked.as_ref())?)?;
        let look = whole(std::io::stderr().is_terminal());
        say(&render::notes(&migration.notes, look));
        say(&render::services(services, look));
    }
    for hint in &known.hints {
        note(format_args!("{hint}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(
    args: &MetallbArgs,
    client: &Client,
    mut known: Known,
    mut migration: Migration,
    services: &[ServiceLine],
) -> Result<ExitCode> {
    let mut applied = Vec::new();
    for pool in &migration.pools {
        applied.push(cluster::apply(client, "AddressPool", pool).await);
    }
    let failed = |applied: &[Applied]| applied.iter().any(|one| one.outcome == "failed");
    if failed(&applied) && !known.default {
        known.blocked = Some(Blocked::Failed);
        for class in &mut migration.classes {
            class.spec.default = false;
        }
    }
    // The main class last, because it takes over the Services.
    for class in migration.classes.iter().rev() {
        applied.push(cluster::apply(client, "LoadBalancerClass", class).await);
    }
    if let Some(out) = machine(args, &known, &migration, services, Some(&applied))? {
        print(&out)?;
    } else {
        let look = whole(std::io::stdout().is_terminal());
        let mut out = render::applied(&applied, look);
        let services = render::services(services, look);
        if !services.is_empty() {
            out.extend(["\n", &services]);
        }
        print(&out)?;
        let look = whole(std::io::stderr().is_terminal());
        say(&render::notes(&migration.notes, look));
    }
    let blocked = known.blocked.as_ref();
    for line in render::next(&migration, blocked, &known.running, program()) {
        note(format_args!("{line}"));
    }
    Ok(if failed(&applied) {
        ExitCode::FAILURE
    } else if blocked.is_some_and(|blocked| blocked.is_not_yet(known.default)) {
        ExitCode::from(NOT_YET)
    } else {
        ExitCode::SUCCESS
    })
}

/// The report in a machine-readable format, if one is requested.
fn machine(
    args: &MetallbArgs,
    known: &Known,
    migration: &Migration,
    services: &[ServiceLine],
    applied: Option<&[Applied]>,
) -> Result<Option<String>> {
    let pools = migration.pools.iter().map(manifest);
    let classes = migration.classes.iter().map(manifest);
    let report = Report {
        objects: pools.chain(classes).collect::<Result<_, _>>()?,
        notes: &migration.notes,
        services,
        running: &known.running,
        blocked: known.blocked.as_ref(),
        applied: applied.filter(|_| args.apply),
    };
    args.output.machine(&report)
}

/// A message ends with what to do, so no message is cut.
fn whole(terminal: bool) -> Look {
    Look {
        whole: true,
        ..look(terminal)
    }
}
