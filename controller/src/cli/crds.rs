//! `ballast crds`: prints the CRDs, or applies them and waits until they are served.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use super::cluster::ClusterArgs;
use super::{note, print};
use crate::cluster::writer::MANAGER;
use crate::process::causes::causes;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Install or upgrade the CRDs, and wait until the API server serves them:
  ballast crds --apply

  # The same with kubectl:
  ballast crds | kubectl apply --server-side -f -

Exit status:
  0  success
  1  error
  2  invalid usage";

const LOOK: Duration = Duration::from_millis(200);
/// The API server serves a CRD within a second or two.
const ESTABLISHED: Duration = Duration::from_mins(1);
/// How long to wait for an API server that is just starting.
const TRIES: Duration = Duration::from_secs(30);

/// Flags of `ballast crds`.
#[derive(Clone, Debug, Args)]
pub struct CrdsArgs {
    /// Apply the CRDs instead of printing them (server-side apply, field manager ballast), and
    /// wait until the API server serves them.
    #[arg(long)]
    pub apply: bool,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Created,
    Changed,
    Unchanged,
}

/// Whether the API server serves a kind, and if not, why not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    Yes,
    /// Not yet.
    Soon,
    /// Never: another CRD uses the same names.
    Never(String),
}

/// Prints the CRDs, or applies them.
pub async fn run(args: CrdsArgs) -> Result<ExitCode> {
    if !args.apply {
        print(&ballast_crds::yaml()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = args.cluster.client()?;
    for crd in ballast_crds::all() {
        let name = crd.name_any();
        let applied = apply(&client, &name, &crd).await?;
        established(&client, &name).await?;
        print(&format!("{name} {}\n", applied.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(client: &Client, name: &str, crd: &CustomResourceDefinition) -> Result<Applied> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let end = Instant::now() + TRIES;
    loop {
        match try_apply(&api, name, crd).await {
            Ok(applied) => return Ok(applied),
            // The API server answered, so another try gets the same answer.
            Err(error @ kube::Error::Api(_)) => {
                return Err(error).with_context(|| format!("cannot apply the CRD {name}"));
            }
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("cannot apply the CRD {name}"));
            }
            Err(error) => {
                note(format_args!("{}; trying again", causes(&error)));
                tokio::time::sleep(LOOK * 5).await;
            }
        }
    }
}

async fn try_apply(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    crd: &CustomResourceDefinition,
) -> Result<Applied, kube::Error> {
    let before = api.get_opt(name).await?;
    // Whoever installed the CRDs first (kubectl, Helm) owns fields; the schema is Ballast's.
    let params = PatchParams::apply(MANAGER).force();
    let after = api.patch(name, &params, &Patch::Apply(crd)).await?;
    Ok(Applied::of(before.as_ref(), &after))
}

async fn established(client: &Client, name: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let end = Instant::now() + ESTABLISHED;
    loop {
        // A failed read is not an answer; the next one may succeed.
        if let Ok(crd) = api.get(name).await {
            match Served::of(&crd) {
                Served::Yes => return Ok(()),
                Served::Never(why) => bail!("the API server does not serve the CRD {name}: {why}"),
                Served::Soon => {}
            }
        }
        if Instant::now() >= end {
            bail!(
                "the API server has not served the CRD {name} within {} s; see: kubectl describe crd {name}",
                ESTABLISHED.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

// === impl Applied ===

impl Applied {
    fn of(before: Option<&CustomResourceDefinition>, after: &CustomResourceDefinition) -> Self {
        match before {
            None => Self::Created,
            Some(before) if before.resource_version() == after.resource_version() => {
                Self::Unchanged
            }
            Some(_) => Self::Changed,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

// === impl Served ===

impl Served {
    fn of(crd: &CustomResourceDefinition) -> Self {
        let status = crd.status.as_ref();
        let all = status.and_then(|status| status.conditions.as_deref());
        let find = |kind: &str| {
            let mut all = all.unwrap_or_default().iter();
            all.find(|it: &&CustomResourceDefinitionCondition| it.type_ == kind)
        };
        if let Some(refused) = find("NamesAccepted").filter(|it| it.status == "False") {
            return Self::Never(refused.message.clone().unwrap_or_default());
        }
        match find("Established") {
            Some(it) if it.status == "True" => Self::Yes,
            _ => Self::Soon,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn crd(version: &str, conditions: &Value) -> CustomResourceDefinition {
        let spec = json!({"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Cluster", "versions": []});
        serde_json::from_value(json!({
            "metadata": {"name": "ks.g", "resourceVersion": version}, "spec": spec,
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_done_is_told_from_the_versions() {
        let (one, two) = (crd("1", &json!([])), crd("2", &json!([])));
        assert_eq!(Applied::of(None, &one), Applied::Created);
        assert_eq!(Applied::of(Some(&one), &one), Applied::Unchanged);
        assert_eq!(Applied::of(Some(&one), &two), Applied::Changed);
    }

    #[test]
    fn served_is_established_and_a_name_that_is_taken_is_the_end() {
        let of = |conditions: Value| Served::of(&crd("1", &conditions));
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "message": "taken"});
        assert_eq!(of(json!([])), Served::Soon);
        assert_eq!(of(json!([condition("Established", "False")])), Served::Soon);
        let names = condition("NamesAccepted", "True");
        assert_eq!(
            of(json!([names, condition("Established", "True")])),
            Served::Yes
        );
        assert_eq!(
            of(json!([condition("NamesAccepted", "False")])),
            Served::Never("taken".into())
        );
    }
}
