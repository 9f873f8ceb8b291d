//! The IAM policy of the controller, made from the table of actions. Pure.
//!
//! Reading is permitted everywhere. What changes something is permitted only on objects with the
//! tag of this cluster: asked for at creation (`aws:RequestTag`), present later
//! (`aws:ResourceTag`). One right reaches further: the rule in the security groups of the nodes,
//! which carry no tag of Ballast's. It can be restricted to those groups.
//!
//! Source: "Actions, resources, and condition keys" for Elastic Load Balancing V2 and Amazon EC2 in
//! the Service Authorization Reference. AWS has never seen this policy: no account was at hand.

use std::collections::BTreeSet;

use ballast_provider::mark::CLUSTER;
use serde_json::{Value, json};

use crate::client::{Action, Service};

/// Whom the policy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The UID of the cluster's namespace `kube-system`; `None` permits the objects of each cluster
    /// with Ballast.
    pub cluster: Option<String>,
    /// The IDs of the nodes' security groups; empty permits the rule in every group.
    pub node_groups: BTreeSet<String>,
}

/// Actions that make an object, which gets its tags with them.
const CREATIONS: [Action; 3] = [
    Action::CreateLoadBalancer,
    Action::CreateTargetGroup,
    Action::CreateSecurityGroup,
];

/// Actions that change the rules of a security group.
const RULES: [Action; 2] = [
    Action::AuthorizeSecurityGroupIngress,
    Action::RevokeSecurityGroupIngress,
];

/// Actions that change tags.
const TAGS: [Action; 4] = [
    Action::AddTags,
    Action::RemoveTags,
    Action::CreateTags,
    Action::DeleteTags,
];

/// The right to make the role with which AWS makes network interfaces.
const ROLE: &str = "iam:CreateServiceLinkedRole";

/// The policy as a JSON document.
pub fn policy(scope: &Scope) -> Value {
    let (mut reads, mut changes) = (BTreeSet::new(), BTreeSet::new());
    for action in Action::ALL {
        let right = action.right();
        if !action.writes() {
            reads.insert(right);
        } else if ![&CREATIONS[..], &RULES, &TAGS]
            .iter()
            .any(|all| all.contains(action))
        {
            changes.insert(right);
        }
        let looks = action.also().iter().filter(|right| is_read(right));
        reads.extend(looks.map(|right| (*right).to_owned()));
    }
    let balancers = CREATIONS
        .iter()
        .filter(|it| it.service() == Service::LoadBalancing);
    let creations: Vec<String> = balancers.map(|it| it.right()).collect();
    let tagging = TAGS.map(Action::right);
    let rules = RULES.map(Action::right);
    let group = Action::CreateSecurityGroup.right();
    let tag = Action::AddTags.right();
    let tag_group = Action::CreateTags.right();
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Read",
                "Effect": "Allow",
                "Action": reads,
                "Resource": "*"
            },
            {
                "Sid": "RoleOfLoadBalancers",
                "Effect": "Allow",
                "Action": ROLE,
                "Resource": "*",
                "Condition": {"StringEquals": {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}}
            },
            {
                "Sid": "CreateWithTag",
                "Effect": "Allow",
                "Action": creations,
                "Resource": "*",
                "Condition": scope.tagged("aws:RequestTag")
            },
            {
                "Sid": "CreateGroupWithTag",
                "Effect": "Allow",
                "Action": group,
                "Resource": "arn:*:ec2:*:*:security-group/*",
                "Condition": scope.tagged("aws:RequestTag")
            },
            {
                "Sid": "CreateGroupInVpc",
                "Effect": "Allow",
                "Action": group,
                "Resource": "arn:*:ec2:*:*:vpc/*"
            },
            {
                "Sid": "TagAtCreation",
                "Effect": "Allow",
                "Action": tag,
                "Resource": "*",
                "Condition": scope.at_creation("elasticloadbalancing:CreateAction", &["CreateLoadBalancer", "CreateTargetGroup", "CreateListener"])
            },
            {
                "Sid": "TagGroupAtCreation",
                "Effect": "Allow",
                "Action": tag_group,
                "Resource": "arn:*:ec2:*:*:security-group/*",
                "Condition": scope.at_creation("ec2:CreateAction", &["CreateSecurityGroup"])
            },
            {
                "Sid": "TagOwn",
                "Effect": "Allow",
                "Action": tagging,
                "Resource": "*",
                "Condition": scope.tagged("aws:ResourceTag")
            },
            {
                "Sid": "ChangeOwn",
                "Effect": "Allow",
                "Action": changes,
                "Resource": "*",
                "Condition": scope.tagged("aws:ResourceTag")
            },
            {
                "Sid": "RulesOfOwnGroups",
                "Effect": "Allow",
                "Action": rules,
                "Resource": "arn:*:ec2:*:*:security-group/*",
                "Condition": scope.tagged("aws:ResourceTag")
            },
            {
                "Sid": "RuleOfNodes",
                "Effect": "Allow",
                "Action": rules,
                "Resource": scope.node_groups()
            }
        ]
    })
}

fn is_read(right: &str) -> bool {
    let action = right.split_once(':').map_or(right, |(_, action)| action);
    action.starts_with("Describe") || action.starts_with("Get")
}

// === impl Scope ===

impl Scope {
    /// The objects of this cluster.
    fn tagged(&self, key: &str) -> Value {
        let key = format!("{key}/{CLUSTER}");
        match &self.cluster {
            Some(cluster) => json!({"StringEquals": {key: cluster}}),
            None => json!({"Null": {key: "false"}}),
        }
    }

    /// The same for tags that come with one of these actions.
    fn at_creation(&self, key: &str, actions: &[&str]) -> Value {
        let mut condition = self.tagged("aws:RequestTag");
        condition["StringEquals"][key] = json!(actions);
        condition
    }

    fn node_groups(&self) -> Value {
        let arn = |id: &str| format!("arn:*:ec2:*:*:security-group/{id}");
        if self.node_groups.is_empty() {
            return json!(arn("*"));
        }
        json!(
            self.node_groups
                .iter()
                .map(|id| arn(id))
                .collect::<Vec<_>>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(policy: &Value) -> BTreeSet<String> {
        let statements = policy["Statement"].as_array().expect("a list");
        let of = |statement: &Value| -> Vec<String> {
            match &statement["Action"] {
                Value::String(one) => vec![one.clone()],
                Value::Array(all) => {
                    let all = all.iter().filter_map(Value::as_str);
                    all.map(str::to_owned).collect()
                }
                other => panic!("{other}"),
            }
        };
        statements.iter().flat_map(of).collect()
    }

    /// An action in the code without a right here would fail in AWS, and a right that no code uses
    /// is one too many.
    #[test]
    fn it_has_the_rights_of_all_actions_and_no_other() {
        let used: BTreeSet<String> = Action::ALL
            .iter()
            .flat_map(|action| {
                let also = action.also().iter().map(|right| (*right).to_owned());
                also.chain([action.right()])
            })
            .collect();
        assert_eq!(rights(&policy(&Scope::default())), used);
    }

    #[test]
    fn whatever_changes_something_has_a_condition_or_is_the_rule_of_nodes() {
        let policy = policy(&Scope {
            cluster: Some("uid-1".into()),
            node_groups: BTreeSet::from(["sg-1".to_owned()]),
        });
        for statement in policy["Statement"].as_array().expect("a list") {
            let text = statement.to_string();
            match statement["Sid"].as_str().expect("a name") {
                "Read" => assert!(
                    !text.contains("Create") && !text.contains("Delete"),
                    "{text}"
                ),
                "RoleOfLoadBalancers" => assert!(text.contains("iam:AWSServiceName")),
                "CreateGroupInVpc" => assert!(text.contains(":vpc/*")),
                "RuleOfNodes" => assert!(text.contains("security-group/sg-1")),
                _ => assert!(
                    text.contains("Tag/ballast.dev/cluster\":\"uid-1\""),
                    "{text}"
                ),
            }
        }
    }

    #[test]
    fn the_document() {
        let scope = Scope {
            cluster: Some("6f7c1f0e-0000-4000-8000-000000000000".into()),
            node_groups: BTreeSet::from(["sg-0123".to_owned()]),
        };
        insta::assert_json_snapshot!(policy(&scope));
    }
}
