//! AWS's limits for the rate of calls: token buckets of the whole account. Pure.
//!
//! Elastic Load Balancing has one bucket for each category of actions, and one for all of them; a
//! call takes a token out of both. EC2 has one for each action. A call that finds no token is
//! refused, and takes none. Source: "Request throttling for the Elastic Load Balancing API" and
//! "Request throttling for the Amazon EC2 API" \[docs\].

use std::collections::BTreeMap;

use crate::state::Moment;
use crate::wire::Service;

/// The size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The tokens in a full one.
    pub burst: f64,
    /// The tokens that it gets in a second.
    pub per_second: f64,
}

/// The sizes of all buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// `CreateLoadBalancer`, `SetSubnets`.
    pub intensive: Bucket,
    /// `RegisterTargets`, `DeregisterTargets`.
    pub registration: Bucket,
    /// `Describe…` of Elastic Load Balancing.
    pub read: Bucket,
    /// All other actions of Elastic Load Balancing.
    pub write: Bucket,
    /// All actions of Elastic Load Balancing together.
    pub account: Bucket,
    /// `Describe…` of EC2, each action for itself.
    pub ec2_read: Bucket,
    /// The same, for those that would list all instances, security groups or interfaces at once.
    pub ec2_list: Bucket,
    /// Other actions of EC2, each for itself.
    pub ec2_write: Bucket,
    /// `CreateTags`, `DeleteTags`, each for itself.
    pub ec2_tags: Bucket,
}

/// The buckets as they are.
#[derive(Debug)]
pub(crate) struct Buckets {
    sizes: Throttle,
    /// The tokens in each at a time.
    levels: BTreeMap<String, (f64, Moment)>,
}

// === impl Bucket ===

impl Bucket {
    /// A size.
    pub const fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second }
    }
}

// === impl Throttle ===

impl Throttle {
    /// AWS's own limits.
    pub const AWS: Self = Self {
        intensive: Bucket::new(10.0, 0.2),
        registration: Bucket::new(20.0, 4.0),
        read: Bucket::new(40.0, 10.0),
        write: Bucket::new(20.0, 3.0),
        account: Bucket::new(40.0, 10.0),
        ec2_read: Bucket::new(100.0, 20.0),
        ec2_list: Bucket::new(50.0, 10.0),
        ec2_write: Bucket::new(50.0, 5.0),
        ec2_tags: Bucket::new(100.0, 10.0),
    };

    /// The names and sizes of the buckets of a call. `whole` says that it lists everything.
    fn buckets(&self, service: Service, action: &str, whole: bool) -> Vec<(String, Bucket)> {
        let reads = action.starts_with("Describe");
        if service == Service::Ec2 {
            let size = match action {
                "DescribeInstances" | "DescribeSecurityGroups" | "DescribeNetworkInterfaces"
                    if whole =>
                {
                    return vec![(format!("{action} of all"), self.ec2_list)];
                }
                "CreateTags" | "DeleteTags" => self.ec2_tags,
                _ if reads => self.ec2_read,
                _ => self.ec2_write,
            };
            return vec![(action.to_owned(), size)];
        }
        let (name, size) = match action {
            "CreateLoadBalancer" | "SetSubnets" => ("intensive", self.intensive),
            "RegisterTargets" | "DeregisterTargets" => ("registration", self.registration),
            _ if reads => ("read", self.read),
            _ => ("write", self.write),
        };
        vec![
            (name.to_owned(), size),
            ("account".to_owned(), self.account),
        ]
    }
}

// === impl Buckets ===

impl Buckets {
    pub(crate) const fn new(sizes: Throttle) -> Self {
        Self {
            sizes,
            levels: BTreeMap::new(),
        }
    }

    /// Takes the tokens of a call, if there are any.
    pub(crate) fn take(
        &mut self,
        service: Service,
        action: &str,
        whole: bool,
        now: Moment,
    ) -> bool {
        let mut after = Vec::new();
        for (name, size) in self.sizes.buckets(service, action, whole) {
            let (level, at) = self.levels.get(&name).copied().unwrap_or((size.burst, now));
            let gained = now.saturating_sub(at).as_secs_f64() * size.per_second;
            let level = (level + gained).min(size.burst);
            // Rounding must not cost a token.
            if level < 1.0 - 1e-9 {
                return false;
            }
            after.push((name, (level - 1.0, now)));
        }
        self.levels.extend(after);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many of `calls` calls go at each second.
    fn goes(service: Service, actions: &[&str], calls: usize, seconds: &[u64]) -> Vec<usize> {
        let mut buckets = Buckets::new(Throttle::AWS);
        let mut go = |second: u64| {
            (0..calls)
                .flat_map(|_| actions)
                .filter(|action| buckets.take(service, action, true, Duration::from_secs(second)))
                .count()
        };
        seconds.iter().map(|second| go(*second)).collect()
    }

    #[test]
    fn each_category_has_its_bucket() {
        type Row<'a> = (Service, &'a [&'a str], &'a [u64], &'a [usize]);
        let table: &[Row<'_>] = &[
            (
                Service::Elb,
                &["CreateLoadBalancer"],
                &[0, 4, 5, 10],
                &[10, 0, 1, 1],
            ),
            (
                Service::Elb,
                &["CreateLoadBalancer", "SetSubnets"],
                &[0, 5],
                &[10, 1],
            ),
            (
                Service::Elb,
                &["RegisterTargets"],
                &[0, 1, 60],
                &[20, 4, 20],
            ),
            (Service::Elb, &["DescribeTags"], &[0, 1], &[40, 10]),
            (Service::Elb, &["CreateListener"], &[0, 1], &[20, 3]),
            // The account's bucket holds all of them back.
            (
                Service::Elb,
                &["CreateListener", "DescribeTags"],
                &[0, 1],
                &[40, 10],
            ),
            (Service::Ec2, &["DescribeSubnets"], &[0, 1], &[100, 20]),
            (Service::Ec2, &["DescribeInstances"], &[0, 1], &[50, 10]),
            (
                Service::Ec2,
                &["CreateSecurityGroup", "DeleteSecurityGroup"],
                &[0, 1],
                &[100, 10],
            ),
        ];
        for (service, actions, seconds, expected) in table {
            assert_eq!(
                goes(*service, actions, 150, seconds),
                *expected,
                "{actions:?}"
            );
        }
    }
}
