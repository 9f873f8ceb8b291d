//! `ballast iam-policy`: prints the IAM policy that the controller of an `aws` class needs.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use ballast_aws::policy::{Scope, policy};
use clap::Args;

use super::{print, say};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # For one cluster, and one security group of its nodes:
  ballast iam-policy \\
    --cluster-uid \"$(kubectl get namespace kube-system -o jsonpath='{.metadata.uid}')\" \\
    --node-security-group sg-0123456789abcdef0 > policy.json
  aws iam create-policy --policy-name ballast --policy-document file://policy.json

  # For all clusters of an account that run Ballast:
  ballast iam-policy

Exit status:
  0  success
  1  error
  2  invalid usage";

/// Flags of `ballast iam-policy`.
#[derive(Clone, Debug, Args)]
pub struct IamPolicyArgs {
    /// UID of the namespace kube-system. The policy then permits changes only to load balancers of
    /// this cluster; without it, to those of every cluster with Ballast.
    #[arg(long, value_name = "UID")]
    pub cluster_uid: Option<String>,

    /// A security group of the nodes, which gets a rule that lets load balancers in. Without any,
    /// the policy permits rules in every security group.
    #[arg(long = "node-security-group", value_name = "ID")]
    pub node_security_groups: Vec<String>,

    /// The name of the cluster in the tags of the AWS Load Balancer Controller. The policy then
    /// also permits to take over its load balancers (annotation aws.ballast.dev/adopt). Remove that
    /// part afterwards.
    #[arg(long, value_name = "NAME")]
    pub adopt_from_cluster: Option<String>,

    /// With --adopt-from-cluster: also load balancers of cloud-provider-aws with this name. Their
    /// listeners have no tags, so the policy permits to mark, and then to change, each listener of a
    /// Network Load Balancer of the account that has neither tags of the AWS Load Balancer
    /// Controller nor Ballast's.
    #[arg(long, requires = "adopt_from_cluster")]
    pub adopt_in_tree: bool,

    /// Also permits to register targets in target groups of others whose owners permit it with the
    /// tag ballast.dev/targets-from (annotation aws.ballast.dev/target-groups).
    #[arg(long)]
    pub bind_target_groups: bool,
}

/// Prints the policy.
pub fn run(args: &IamPolicyArgs) -> Result<ExitCode> {
    for id in &args.node_security_groups {
        ensure!(
            id.starts_with("sg-"),
            "--node-security-group is \"{id}\": the ID of a security group begins with sg-"
        );
    }
    let scope = Scope {
        cluster: args.cluster_uid.clone(),
        node_groups: args.node_security_groups.iter().cloned().collect(),
        takes_over: args.adopt_from_cluster.clone(),
        in_tree: args.adopt_in_tree,
        binds: args.bind_target_groups,
    };
    for warning in warnings(args) {
        say(warning);
    }
    print(&serde_json::to_string_pretty(&policy(&scope))?)?;
    Ok(ExitCode::SUCCESS)
}

/// What reaches further than necessary. It is no part of the document.
fn warnings(args: &IamPolicyArgs) -> Vec<&'static str> {
    let rules = args.node_security_groups.is_empty().then_some(
        "Warning: without --node-security-group this policy permits rules in every security group of the account.\n",
    );
    let listeners = args.adopt_in_tree.then_some(
        "Warning: with --adopt-in-tree this policy permits to take each listener of a Network Load Balancer of the account that has neither tags of the AWS Load Balancer Controller nor Ballast's. Remove that part after the migration.\n",
    );
    rules.into_iter().chain(listeners).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_reach_far_have_a_warning() {
        let of = |groups: &[&str], in_tree| {
            let all = warnings(&IamPolicyArgs {
                cluster_uid: None,
                adopt_from_cluster: Some("prod".into()),
                adopt_in_tree: in_tree,
                bind_target_groups: false,
                node_security_groups: groups.iter().map(|id| (*id).to_owned()).collect(),
            });
            all.concat()
        };
        assert!(of(&[], false).contains("--node-security-group"));
        assert_eq!(of(&["sg-1"], false), "");
        assert!(of(&["sg-1"], true).contains("--adopt-in-tree"));
    }
}
