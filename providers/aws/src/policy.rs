//! The IAM policy of the controller, made from the table of actions. Pure.
//!
//! Reading is permitted everywhere. What changes something is permitted only on objects with the
//! tag of this cluster: asked for at creation (`aws:RequestTag`), present later
//! (`aws:ResourceTag`). Nobody with this policy can change that tag, and so take what is another
//! cluster's, or give away what is its own. One right reaches further: the rule in the security groups
//! of the nodes, which carry no tag of Ballast's. It can be restricted to those groups.
//!
//! Two additions permit the first tags on load balancers of other controllers, which Ballast may change from then on.
//! Those of the AWS Load Balancer Controller name their cluster ([`Scope::takes_over`]). Listeners of
//! cloud-provider-aws have no tags, so that one ([`Scope::in_tree`]) reaches **every** listener of a Network Load
//! Balancer of the account that has neither the tag of the AWS Load Balancer Controller nor Ballast's, whoever made it.
//!
//! Another addition ([`Scope::binds`]) permits to register targets in target groups of others that have the tag with
//! which their owners permit it.
//!
//! Source: "Actions, resources, and condition keys" for Elastic Load Balancing V2 and Amazon EC2 in
//! the Service Authorization Reference. AWS has never seen this policy: no account was at hand.

use std::collections::BTreeSet;

use ballast_provider::mark::CLUSTER;
use serde_json::{Value, json};

use crate::bind::TARGETS_FROM;
use crate::client::{Action, Service};

/// Whom the policy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The UID of the cluster's namespace `kube-system`; `None` permits the objects of each cluster
    /// with Ballast.
    pub cluster: Option<String>,
    /// The IDs of the nodes' security groups; empty permits the rule in every group.
    pub node_groups: BTreeSet<String>,
    /// The name of the cluster in the tags of the AWS Load Balancer Controller, whose load balancers Services may take
    /// over.
    pub takes_over: Option<String>,
    /// Services may register targets in target groups of others whose owners permit it.
    pub binds: bool,
    /// Also those of cloud-provider-aws, and each listener without tags. Without [`Scope::takes_over`] it says nothing.
    pub in_tree: bool,
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

/// What Ballast makes in Elastic Load Balancing.
const TAGGED: [&str; 4] = [
    "arn:*:elasticloadbalancing:*:*:loadbalancer/net/*/*",
    "arn:*:elasticloadbalancing:*:*:listener/net/*/*/*",
    "arn:*:elasticloadbalancing:*:*:targetgroup/*/*",
    "arn:*:elasticloadbalancing:*:*:listener-rule/net/*/*/*/*",
];
/// Every security group.
const GROUPS: &str = "arn:*:ec2:*:*:security-group/*";

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
    let tagging = |service: Service| -> Vec<String> {
        let those = TAGS.iter().filter(|it| it.service() == service);
        those.map(|it| it.right()).collect()
    };
    let rules = RULES.map(Action::right);
    let group = Action::CreateSecurityGroup.right();
    let tag = Action::AddTags.right();
    let tag_group = Action::CreateTags.right();
    let mut policy = json!({
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
                "Resource": GROUPS,
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
                "Condition": scope.at_creation("elasticloadbalancing:CreateAction", &["CreateLoadBalancer", "CreateTargetGroup", "CreateListener", "CreateRule"])
            },
            {
                "Sid": "TagGroupAtCreation",
                "Effect": "Allow",
                "Action": tag_group,
                "Resource": GROUPS,
                "Condition": scope.at_creation("ec2:CreateAction", &["CreateSecurityGroup"])
            },
            {
                "Sid": "TagOwn",
                "Effect": "Allow",
                "Action": tagging(Service::LoadBalancing),
                "Resource": TAGGED,
                "Condition": scope.but_the_cluster()
            },
            {
                "Sid": "TagOwnGroups",
                "Effect": "Allow",
                "Action": tagging(Service::Ec2),
                "Resource": GROUPS,
                "Condition": scope.but_the_cluster()
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
                "Resource": GROUPS,
                "Condition": scope.tagged("aws:ResourceTag")
            },
            {
                "Sid": "RuleOfNodes",
                "Effect": "Allow",
                "Action": rules,
                "Resource": scope.node_groups()
            }
        ]
    });
    if let Some(statements) = policy["Statement"].as_array_mut() {
        statements.extend(scope.taking_over());
        statements.extend(scope.binding());
    }
    policy
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

    /// Tags of the objects of this cluster, except for the one that says so.
    fn but_the_cluster(&self) -> Value {
        let mut condition = self.tagged("aws:ResourceTag");
        condition["ForAllValues:StringNotEquals"] = json!({"aws:TagKeys": [CLUSTER]});
        condition
    }

    /// The first tags on load balancers of other controllers and their listeners: those of this cluster, and none
    /// that anybody with Ballast has. cloud-provider-aws gives listeners no tags.
    fn taking_over(&self) -> Vec<Value> {
        let Some(name) = &self.takes_over else {
            return Vec::new();
        };
        let [balancers, listeners, ..] = TAGGED;
        let in_tree = format!("aws:ResourceTag/kubernetes.io/cluster/{name}");
        let lbc = "aws:ResourceTag/elbv2.k8s.aws/cluster";
        let statement = |sid: &str, resources: &[&str], equals: Value, absent: &[&str]| {
            let mut condition = self.tagged("aws:RequestTag");
            if let Some(equals) = equals.as_object() {
                for (key, value) in equals {
                    condition["StringEquals"][key] = value.clone();
                }
            }
            condition["Null"][format!("aws:ResourceTag/{CLUSTER}")] = json!("true");
            for key in absent {
                condition["Null"][*key] = json!("true");
            }
            json!({
                "Sid": sid,
                "Effect": "Allow",
                "Action": Action::AddTags.right(),
                "Resource": resources,
                "Condition": condition
            })
        };
        let mut statements = vec![statement(
            "TakeOver",
            &[balancers, listeners],
            json!({lbc: name}),
            &[],
        )];
        if self.in_tree {
            let owned = json!({in_tree: "owned"});
            statements.push(statement("TakeOverInTree", &[balancers], owned, &[]));
            // Nothing on them says whose they are.
            let listeners = statement("TakeOverListeners", &[listeners], json!({}), &[lbc]);
            statements.push(listeners);
        }
        statements
    }

    /// Targets in target groups whose owners permit some Service to register them. Ballast compares the Service; IAM
    /// cannot.
    fn binding(&self) -> Option<Value> {
        let [.., groups, _] = TAGGED;
        let rights = [Action::RegisterTargets, Action::DeregisterTargets].map(Action::right);
        self.binds.then(|| {
            json!({
                "Sid": "TargetsInGroupsOfOthers",
                "Effect": "Allow",
                "Action": rights,
                "Resource": groups,
                "Condition": {"Null": {format!("aws:ResourceTag/{TARGETS_FROM}"): "false"}}
            })
        })
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
            takes_over: Some("prod".into()),
            in_tree: true,
            binds: true,
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
                "TargetsInGroupsOfOthers" => {
                    assert!(text.contains("ResourceTag/ballast.dev/targets-from\":\"false"));
                    assert!(
                        !text.contains("Delete") && !text.contains("Modify"),
                        "{text}"
                    );
                }
                _ => assert!(
                    text.contains("Tag/ballast.dev/cluster\":\"uid-1\""),
                    "{text}"
                ),
            }
        }
    }

    /// Otherwise one cluster could take or give away objects, and tag what is not Ballast's at all.
    #[test]
    fn tags_are_changed_by_service_and_never_that_of_the_cluster() {
        for cluster in [Some("uid-1".to_owned()), None] {
            let policy = policy(&Scope {
                cluster,
                ..Scope::default()
            });
            let statements = policy["Statement"].as_array().expect("a list");
            let mut own = 0;
            for statement in statements {
                let text = statement.to_string();
                let sid = statement["Sid"].as_str().expect("a name");
                let tags = TAGS.iter().any(|action| text.contains(&action.right()));
                if !tags || sid.ends_with("AtCreation") || sid.starts_with("TakeOver") {
                    continue;
                }
                own += 1;
                let condition = &statement["Condition"];
                let keys = &condition["ForAllValues:StringNotEquals"]["aws:TagKeys"];
                assert_eq!(*keys, json!([CLUSTER]), "{text}");
                assert!(
                    text.contains("aws:ResourceTag/ballast.dev/cluster"),
                    "{text}"
                );
                let service = if text.contains("ec2:") {
                    ":ec2:"
                } else {
                    ":elasticloadbalancing:"
                };
                let resources = statement["Resource"].to_string();
                let all = resources.split(',').all(|one| one.contains(service));
                assert!(all && !resources.contains("\"*\""), "{text}");
            }
            assert_eq!(own, 2);
        }
    }

    /// Only what no Ballast has, and only with the tag of this cluster.
    #[test]
    fn taking_over_is_a_right_of_its_own() {
        let sids = |policy: &Value| {
            let all = policy["Statement"].as_array().expect("a list").iter();
            let all = all.filter(|it| {
                it["Sid"]
                    .as_str()
                    .is_some_and(|it| it.starts_with("TakeOver"))
            });
            all.cloned().collect::<Vec<_>>()
        };
        assert_eq!(sids(&policy(&Scope::default())), [Value::Null; 0]);
        let alone = Scope {
            in_tree: true,
            ..Scope::default()
        };
        assert_eq!(sids(&policy(&alone)), [Value::Null; 0]);
        for (cluster, in_tree) in [
            (Some("uid-1".to_owned()), false),
            (Some("uid-1".to_owned()), true),
            (None, false),
            (None, true),
        ] {
            let scope = Scope {
                cluster,
                takes_over: Some("prod".into()),
                in_tree,
                ..Scope::default()
            };
            let all = sids(&policy(&scope));
            assert_eq!(all.len(), if in_tree { 3 } else { 1 });
            for one in all {
                let text = one.to_string();
                // Only whoever asks for it may mark listeners of which nothing says whose they are.
                let names = text.contains("\"prod\"") || text.contains("cluster/prod");
                assert!(names || in_tree, "{text}");
                assert!(
                    text.contains("aws:RequestTag/ballast.dev/cluster"),
                    "{text}"
                );
                let own = "aws:ResourceTag/ballast.dev/cluster";
                assert_eq!(one["Condition"]["Null"][own], "true", "{text}");
                assert_eq!(one["Action"], "elasticloadbalancing:AddTags");
                assert!(names || !text.contains(":loadbalancer/"), "{text}");
            }
        }
    }

    #[test]
    fn the_document() {
        let scope = Scope {
            cluster: Some("6f7c1f0e-0000-4000-8000-000000000000".into()),
            node_groups: BTreeSet::from(["sg-0123".to_owned()]),
            takes_over: None,
            in_tree: false,
            binds: false,
        };
        insta::assert_json_snapshot!(policy(&scope));
    }
}
