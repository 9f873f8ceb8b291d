//! `ballast migrate lbc`: shows what becomes of the Services of the AWS Load Balancer Controller and of the in-tree
//! provider. It changes nothing.
//!
//! [`mod@becomes`] decides for one Service, [`differences`] knows the other controllers, [`balancer`] and [`render`]
//! say it, `manifest` writes the second Service: all of these are pure. Only [`run`], `cluster` and `adopt` do I/O.

mod adopt;
pub mod balancer;
pub mod becomes;
mod cluster;
mod differences;
mod manifest;
pub mod render;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use ballast_aws::adopt::UNNAMED;
use ballast_aws::settings::ClassSettings;
use ballast_crds::LoadBalancerClass;
use clap::Args;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde::Serialize;
use serde_json::Value;

use super::files;
use super::whole;
use crate::class::instance::Factory as _;
use crate::cli::cluster::ClusterArgs;
use crate::cli::{NOT_FOUND, NOT_YET, Output, note, print, program};
use crate::cluster::translate::Dialect;
use crate::run::factory::Providers;
use becomes::{Aim, Becomes, Verdict, becomes};
use render::Called;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # What becomes of each Service, what has no equal, and what to do next. This changes nothing:
  ballast migrate lbc

  # One Service, for the class public:
  ballast migrate lbc web -n shop --class public

  # From manifests, without a cluster; a LoadBalancerClass in them is used:
  ballast migrate lbc -f services.yaml -f class.yaml
  kustomize build . | ballast migrate lbc -f -

  # The second Service of web, to create beside the first one:
  ballast migrate lbc web -n shop --manifests | kubectl apply -f -

  # Which calls would take over the load balancer of web, which keeps its name and its connections:
  ballast migrate lbc web -n shop --adopt arn:aws:elasticloadbalancing:…:loadbalancer/net/…

  # For scripts: the Services that ask for something without an equal:
  ballast migrate lbc -o json | jq -r '.services[] | select(.result == \"NoEqual\") | .name'

A Service is one of these: spec.loadBalancerClass is service.k8s.aws/nlb; or it has none, and the
annotation aws-load-balancer-type is nlb-ip or external (the AWS Load Balancer Controller, LBC),
or nlb (in-tree). The flags of these controllers are not read; their own defaults are assumed.

It needs the right to list Services. It reads the LoadBalancerClass if it may. --adopt also needs
the rights to read the class, Nodes, the namespace kube-system and, if pods are the targets,
EndpointSlices, and your AWS credentials.

Exit status:
  0  each setting has an equal, even if it differs
  1  the cluster or a file cannot be read, or the class is not for AWS
  2  invalid usage
  4  no such Services found
  5  a Service has a setting without an equal";

/// Flags of `ballast migrate lbc`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::doc_markdown, reason = "the help shows the text as it stands")]
pub struct LbcArgs {
    /// Show only the Service with this name.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Show only this namespace. Default: all namespaces.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Read manifests from FILE instead of the cluster; - is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<String>,

    /// Name of the LoadBalancerClass that shall serve the Services. If it does not exist yet, one
    /// without settings is assumed.
    #[arg(long, default_value = "nlb", value_name = "NAME")]
    pub class: String,

    /// The --load-balancer-class flag of the AWS Load Balancer Controller.
    #[arg(long, default_value = "service.k8s.aws/nlb", value_name = "CLASS")]
    pub lb_class: String,

    /// Print the second Services as YAML, and nothing else. Those with a setting without an equal
    /// are left out.
    #[arg(long, conflicts_with = "output")]
    pub manifests: bool,

    /// Print the calls that would take over this Network Load Balancer of the Service NAME. Makes
    /// none of them.
    #[arg(long, value_name = "ARN", requires = "name", conflicts_with_all = ["files", "manifests"])]
    pub adopt: Option<String>,

    /// With --adopt: the --cluster-name flag of Ballast's controller.
    #[arg(long, value_name = "NAME", default_value = UNNAMED, requires = "adopt")]
    pub cluster_name: String,

    /// Output format.
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
    class: &'a str,
    /// Its settings are known.
    class_found: bool,
    services: &'a [Becomes],
}

/// What was read.
#[derive(Debug, Default)]
struct Read {
    services: Vec<Service>,
    class: Option<LoadBalancerClass>,
    /// What cannot be read.
    broken: Vec<String>,
}

/// Reads and prints.
pub async fn run(args: LbcArgs) -> Result<ExitCode> {
    if let Some(arn) = &args.adopt {
        Box::pin(adopt::run(&args, arn)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let read = if args.files.is_empty() {
        let client = args.cluster.client()?;
        Read {
            services: cluster::services(&client, &args).await?,
            class: cluster::class(&client, &args.class).await?,
            broken: Vec::new(),
        }
    } else {
        let mut read = Read::default();
        for file in &args.files {
            let about = || files::called(file);
            let text = files::text(file).with_context(about)?;
            read.manifests(&text, &args.class).with_context(about)?;
        }
        read
    };
    let all = answer(&args, &read)?;
    for one in &read.broken {
        note(format_args!("ballast: {one}"));
    }
    if all.is_empty() {
        note(format_args!(
            "ballast: no Service of the AWS Load Balancer Controller or the in-tree provider found{}",
            place(&args)
        ));
        return Ok(ExitCode::from(if read.broken.is_empty() {
            NOT_FOUND
        } else {
            1
        }));
    }
    show(&args, &read, &all)?;
    Ok(if !read.broken.is_empty() {
        ExitCode::FAILURE
    } else if all.iter().any(|one| one.result == Verdict::NoEqual) {
        ExitCode::from(NOT_YET)
    } else {
        ExitCode::SUCCESS
    })
}

/// What becomes of the Services that the user asks for, in order. Pure.
fn answer(args: &LbcArgs, read: &Read) -> Result<Vec<Becomes>> {
    let settings = match &read.class {
        Some(class) => of_class(class)?,
        None => ClassSettings::default(),
    };
    let aim = Aim {
        class: &args.class,
        settings: &settings,
        lb_class: &args.lb_class,
        dialect: dialect(),
    };
    let wanted = |service: &&Service| {
        let namespace = service.metadata.namespace.as_deref();
        let here = args.namespace.as_deref();
        let named = args.name.as_deref();
        // A manifest without a namespace belongs into any.
        here.is_none_or(|here| namespace.is_none_or(|it| it == here))
            && named.is_none_or(|name| service.metadata.name.as_deref() == Some(name))
    };
    let all = read.services.iter().filter(wanted);
    let mut all: Vec<Becomes> = all.filter_map(|one| becomes(one, &aim)).collect();
    all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(all)
}

/// The annotations that the providers of this build read.
fn dialect() -> Dialect {
    Dialect {
        setting_prefixes: Providers::default().setting_prefixes(),
    }
}

fn of_class(class: &LoadBalancerClass) -> Result<ClassSettings> {
    let name = class.name_any();
    let Some(aws) = &class.spec.aws else {
        bail!(
            "LoadBalancerClass {name} is not for AWS (it has no spec.aws); name another one with --class"
        );
    };
    Providers::aws_settings(aws)
        .map_err(|refusal| anyhow!("LoadBalancerClass {name}: {}", refusal.message))
}

fn show(args: &LbcArgs, read: &Read, all: &[Becomes]) -> Result<()> {
    let report = Report {
        class: &args.class,
        class_found: read.class.is_some(),
        services: all,
    };
    if args.manifests {
        print(&render::manifests(all)?)?;
        for one in all.iter().filter(|one| one.second.is_none()) {
            note(format_args!(
                "ballast: left out, because a setting has no equal: {}/{}",
                one.namespace, one.name
            ));
        }
    } else if let Some(out) = args.output.machine(&report)? {
        print(&out)?;
    } else {
        let called = called(args);
        print(&render::text(
            all,
            &called,
            whole(std::io::stdout().is_terminal()),
        ))?;
    }
    if read.class.is_none() {
        note(format_args!(
            "LoadBalancerClass {} does not exist or cannot be read; one without settings is assumed",
            args.class
        ));
    }
    Ok(())
}

fn called(args: &LbcArgs) -> Called {
    let mut flags = Vec::new();
    for file in &args.files {
        flags.extend(["-f".to_owned(), file.clone()]);
    }
    let mut set = |flag: &str, value: &str, default: &str| {
        if value != default {
            flags.extend([flag.to_owned(), value.to_owned()]);
        }
    };
    set("--class", &args.class, "nlb");
    set("--lb-class", &args.lb_class, "service.k8s.aws/nlb");
    Called {
        program: program(),
        flags,
    }
}

fn place(args: &LbcArgs) -> String {
    let name = args.name.as_ref();
    let name = name.map_or_else(String::new, |name| format!(" with the name {name}"));
    let namespace = args.namespace.as_ref();
    let namespace = namespace.map_or_else(String::new, |it| format!(" in namespace {it}"));
    let files = match args.files.as_slice() {
        [] => String::new(),
        files => {
            let files: Vec<String> = files.iter().map(|file| files::called(file)).collect();
            format!(" in {}", files.join(", "))
        }
    };
    format!("{name}{namespace}{files}")
}

// === impl Read ===

impl Read {
    /// Services, and the class. One object that cannot be read affects no other one.
    fn manifests(&mut self, yaml: &str, class: &str) -> Result<(), files::NotYaml> {
        for document in files::documents(yaml)? {
            files::each(document, &mut |object| self.add(object, class));
        }
        Ok(())
    }

    fn add(&mut self, object: Value, class: &str) {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let title = |kind| files::title(kind, &object);
        match (text("apiVersion"), text("kind")) {
            ("v1", "Service") => {
                let title = title("Service");
                match serde_json::from_value(object) {
                    Ok(service) => self.services.push(service),
                    Err(error) => self.broken.push(format!("{title} is invalid: {error}")),
                }
            }
            (group, "LoadBalancerClass") if group.starts_with("ballast.dev/") => {
                let title = title("LoadBalancerClass");
                if object["metadata"]["name"] != class {
                    return;
                }
                match serde_json::from_value(object) {
                    Ok(class) => self.class = Some(class),
                    Err(error) => self.broken.push(format!("{title} is invalid: {error}")),
                }
            }
            _ => {}
        }
    }
}
