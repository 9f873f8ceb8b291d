//! `ballast migrate lbc NAME --adopt ARN`: which calls would take over the load balancer of a Service. It reads the
//! cluster and AWS. It makes none of these calls, and changes nothing in the cluster.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use ballast_aws::adopt::ADOPT;
use ballast_aws::client::{Clients, Connection};
use ballast_aws::provider::AwsProvider;
use ballast_aws::settings::ClassSettings;
use ballast_provider::{Balancer, Mark, Member, Provider as _};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use super::becomes::{self, Aim};
use super::{LbcArgs, cluster, dialect, of_class};
use crate::class::uses_endpoints;
use crate::cli::cluster::{list, uid};
use crate::cli::{Output, note, print};
use crate::cluster::eligibility::eligible;
use crate::cluster::view::NodeView;

/// What `-o json|yaml` prints. Fields may be added, never renamed or removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    namespace: String,
    name: String,
    load_balancer: String,
    calls: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    action: &'static str,
    call: String,
}

/// Reads the cluster and AWS, and prints the calls.
pub(super) async fn run(args: &LbcArgs, arn: &str) -> Result<()> {
    let client = args.cluster.client()?;
    let service = match &cluster::services(&client, args).await?[..] {
        [one] => one.clone(),
        [] => bail!("there is no such Service"),
        _ => bail!("choose a namespace with -n NAMESPACE"),
    };
    let class = cluster::class(&client, &args.class).await?;
    let Some(class) = class else {
        bail!(
            "LoadBalancerClass {} does not exist, or you may not read it: the region and the other settings are there",
            args.class
        );
    };
    let settings = of_class(&class)?;
    let mut member = member(&service, arn, &settings, args)?;
    let nodes: Vec<NodeView> = list(
        &Api::<Node>::all(client.clone()),
        "Nodes",
        &ListParams::default(),
    )
    .await?
    .iter()
    .map(NodeView::of)
    .collect();
    let mark = Mark {
        cluster: uid(&client).await?,
        cluster_name: args.cluster_name.clone(),
        class: args.class.clone(),
        writer: String::new(),
    };
    let connection = Connection {
        region: Some(settings.region.clone()),
        ..Connection::default()
    };
    let provider = AwsProvider::new(&Clients::default(), connection, settings, mark);
    if uses_endpoints(&provider, &member.load_balancer) {
        let pods = cluster::pods(&client, &member.load_balancer).await?;
        member.endpoints = Some(Arc::new(pods));
    }
    let balancer = Balancer {
        key: provider.key(&member.load_balancer),
        members: vec![member],
        kept: std::collections::BTreeSet::new(),
        deletes_nothing: false,
    };
    let nodes = eligible(&nodes);
    let targets = nodes.targets(AwsProvider::TRAITS);
    note("ballast: reading the load balancer from AWS");
    let calls = provider.preview_adoption(&balancer, &targets).await;
    let calls = calls.map_err(|why| anyhow!("{why}"))?;
    let meta = &service.metadata;
    let report = Report {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        load_balancer: arn.to_owned(),
        calls: calls
            .iter()
            .map(|call| Line {
                action: call.action(),
                call: call.to_string(),
            })
            .collect(),
    };
    match args.output {
        Output::Text => print(&text(&report)),
        Output::Json => print(&serde_json::to_string_pretty(&report)?),
        Output::Yaml => print(&ballast_crds::to_yaml(&report)?),
    }
}

/// The Service as one of the class that names the load balancer.
fn member(
    service: &Service,
    arn: &str,
    settings: &ClassSettings,
    args: &LbcArgs,
) -> Result<Member> {
    let aim = Aim {
        class: &args.class,
        settings,
        lb_class: &args.lb_class,
        dialect: dialect(),
    };
    let mut member = becomes::as_member(service, &aim).context("the Service")?;
    let own = &mut member.load_balancer.settings;
    own.insert(ADOPT.to_owned(), arn.to_owned());
    Ok(member)
}

/// For people.
fn text(report: &Report) -> String {
    let Report {
        namespace,
        name,
        load_balancer,
        calls,
    } = report;
    if calls.is_empty() {
        return format!("{load_balancer} belongs to {namespace}/{name} already.");
    }
    let lines: Vec<String> = calls
        .iter()
        .enumerate()
        .map(|(at, line)| format!("{:>4}. {}", at + 1, line.call))
        .collect();
    format!(
        "{namespace}/{name} would take over {load_balancer} with {} calls:\n\n{}\n\nNothing was changed. docs/aws-migrate.md (\"Taking a load balancer over\") has the steps; the Service needs the annotation\n  {ADOPT}: {load_balancer}",
        calls.len(),
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_are_numbered_and_the_annotation_is_named() {
        let report = |calls: &[&str]| Report {
            namespace: "shop".into(),
            name: "web".into(),
            load_balancer: "arn:lb".into(),
            calls: calls
                .iter()
                .map(|call| Line {
                    action: "AddTags",
                    call: (*call).to_owned(),
                })
                .collect(),
        };
        let said = text(&report(&[
            "AddTags: a=b on arn:lb",
            "RegisterTargets: 3 targets in bl-1",
        ]));
        assert!(said.contains("with 2 calls"), "{said}");
        assert!(
            said.contains("   2. RegisterTargets: 3 targets in bl-1"),
            "{said}"
        );
        assert!(said.contains("aws.ballast.dev/adopt: arn:lb"), "{said}");
        assert!(text(&report(&[])).contains("belongs to shop/web already"));
    }
}
