//! Complete reads: all pages, and any number of names or ARNs. A read by names or ARNs leaves out
//! what does not exist. AWS answers such a call with an error if anything in it is missing, so the
//! list is halved until what is missing stands alone.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::types::MinimumLoadBalancerCapacity;

use super::{CHUNK, PAGE, answered, fault};
use crate::client::values::{
    Listener, ListenerRule, LoadBalancer, Tags, TargetGroup, TargetHealth,
};
use crate::client::{Action, Answered, CallError, Cause, Client, Fault, Manner, Soon};
use crate::observed::{Arn, Reservation};

pub(super) mod decode;

use decode::{failed, health, listener, load_balancer, pair, rule, target_group};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of<'a> {
    All,
    Arns(&'a [String]),
    Names(&'a [String]),
    /// What belongs to the load balancer with this ARN.
    LoadBalancer(&'a str),
}

/// The most pages of a list: 100,000 objects. AWS permits far fewer in a region.
const MOST_PAGES: usize = 250;

/// A page, and the marker of the next one.
type Page<T> = (Vec<T>, Option<String>);

impl Client {
    /// All load balancers of the region, of whatever kind and owner.
    pub async fn all_load_balancers(&self, manner: Manner) -> Result<Vec<LoadBalancer>, CallError> {
        self.load_balancers_of(Of::All, manner).await
    }

    /// The load balancers with these ARNs, as far as they exist.
    pub async fn load_balancers(
        &self,
        arns: &[Arn],
        manner: Manner,
    ) -> Result<Vec<LoadBalancer>, CallError> {
        let read =
            |some| -> Soon<_, _> { Box::pin(self.load_balancers_of(Of::Arns(some), manner)) };
        existing(arns, read).await
    }

    /// The load balancers with these names, as far as they exist.
    pub async fn load_balancers_named(
        &self,
        names: &[String],
        manner: Manner,
    ) -> Result<Vec<LoadBalancer>, CallError> {
        let read =
            |some| -> Soon<_, _> { Box::pin(self.load_balancers_of(Of::Names(some), manner)) };
        existing(names, read).await
    }

    /// All target groups of the region, of whatever kind and owner.
    pub async fn all_target_groups(&self, manner: Manner) -> Result<Vec<TargetGroup>, CallError> {
        self.target_groups_of(Of::All, manner).await
    }

    /// The target groups with these names, as far as they exist.
    pub async fn target_groups_named(
        &self,
        names: &[String],
        manner: Manner,
    ) -> Result<Vec<TargetGroup>, CallError> {
        let read =
            |some| -> Soon<_, _> { Box::pin(self.target_groups_of(Of::Names(some), manner)) };
        existing(names, read).await
    }

    /// The target groups with these ARNs, as far as they exist.
    pub async fn target_groups_with(
        &self,
        arns: &[Arn],
        manner: Manner,
    ) -> Result<Vec<TargetGroup>, CallError> {
        let read = |some| -> Soon<_, _> { Box::pin(self.target_groups_of(Of::Arns(some), manner)) };
        existing(arns, read).await
    }

    /// The target groups that a load balancer sends to; none if it does not exist.
    pub async fn target_groups_behind(
        &self,
        load_balancer: &str,
        manner: Manner,
    ) -> Result<Vec<TargetGroup>, CallError> {
        match self
            .target_groups_of(Of::LoadBalancer(load_balancer), manner)
            .await
        {
            Err(why) if why.cause == Cause::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// The listeners of a load balancer.
    pub async fn listeners(
        &self,
        load_balancer: &str,
        manner: Manner,
    ) -> Result<Vec<Listener>, CallError> {
        self.list(Action::DescribeListeners, manner, |from| {
            Box::pin(async move {
                let request = self.elb().describe_listeners();
                let request = request.load_balancer_arn(load_balancer);
                let request = request.page_size(PAGE).set_marker(from);
                let output = request.send().await.map_err(fault)?;
                let page = output.listeners().iter().filter_map(listener).collect();
                let next = output.next_marker().map(str::to_owned);
                Ok(answered((page, next), &output))
            })
        })
        .await
    }

    /// The listeners with these ARNs, as far as they exist.
    pub async fn listeners_with(
        &self,
        arns: &[Arn],
        manner: Manner,
    ) -> Result<Vec<Listener>, CallError> {
        let read = |some: &'_ [String]| -> Soon<'_, Vec<Listener>, CallError> {
            let some = some.to_vec();
            Box::pin(async move {
                let some = &some;
                self.perform(Action::DescribeListeners, manner, |_| {
                    Box::pin(async move {
                        let request = self.elb().describe_listeners();
                        let request = request.set_listener_arns(Some(some.clone()));
                        let output = request.send().await.map_err(fault)?;
                        let all = output.listeners().iter().filter_map(listener).collect();
                        Ok(answered(all, &output))
                    })
                })
                .await
            })
        };
        existing(arns, read).await
    }

    /// The rules of a listener beside its default action.
    pub async fn rules(
        &self,
        listener: &str,
        manner: Manner,
    ) -> Result<Vec<ListenerRule>, CallError> {
        self.list(Action::DescribeRules, manner, |from| {
            Box::pin(async move {
                let request = self.elb().describe_rules().listener_arn(listener);
                let request = request.page_size(PAGE).set_marker(from);
                let output = request.send().await.map_err(fault)?;
                let page = output.rules().iter().filter_map(rule).collect();
                let next = output.next_marker().map(str::to_owned);
                Ok(answered((page, next), &output))
            })
        })
        .await
    }

    /// The ARNs in the list of certificates of a listener that ends TLS. The default one is in this list
    /// only if somebody has added it.
    pub async fn listener_certificates(
        &self,
        listener: &str,
        manner: Manner,
    ) -> Result<BTreeSet<Arn>, CallError> {
        let all = self.list(Action::DescribeListenerCertificates, manner, |from| {
            Box::pin(async move {
                let request = self.elb().describe_listener_certificates();
                let request = request.listener_arn(listener);
                let request = request.page_size(PAGE).set_marker(from);
                let output = request.send().await.map_err(fault)?;
                let listed = output.certificates().iter();
                let listed = listed.filter(|one| one.is_default() != Some(true));
                let arns = listed.filter_map(|one| one.certificate_arn());
                let page: Vec<Arn> = arns.map(str::to_owned).collect();
                let next = output.next_marker().map(str::to_owned);
                Ok(answered((page, next), &output))
            })
        });
        Ok(all.await?.into_iter().collect())
    }

    /// The attributes of a listener.
    pub async fn listener_attributes(
        &self,
        listener: &str,
        manner: Manner,
    ) -> Result<BTreeMap<String, String>, CallError> {
        self.perform(Action::DescribeListenerAttributes, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_listener_attributes();
                let output = request.listener_arn(listener).send().await;
                let output = output.map_err(fault)?;
                let all = output.attributes().iter();
                let all = all.filter_map(|one| pair(one.key(), one.value())).collect();
                Ok(answered(all, &output))
            })
        })
        .await
    }

    /// The attributes of a load balancer.
    pub async fn load_balancer_attributes(
        &self,
        load_balancer: &str,
        manner: Manner,
    ) -> Result<BTreeMap<String, String>, CallError> {
        let action = Action::DescribeLoadBalancerAttributes;
        self.perform(action, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_load_balancer_attributes();
                let output = request.load_balancer_arn(load_balancer).send().await;
                let output = output.map_err(fault)?;
                let all = output.attributes().iter();
                let all = all.filter_map(|one| pair(one.key(), one.value())).collect();
                Ok(answered(all, &output))
            })
        })
        .await
    }

    /// The capacity that is reserved for a load balancer.
    pub async fn capacity_reservation(
        &self,
        load_balancer: &str,
        manner: Manner,
    ) -> Result<Option<Reservation>, CallError> {
        self.perform(Action::DescribeCapacityReservation, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_capacity_reservation();
                let output = request.load_balancer_arn(load_balancer).send().await;
                let output = output.map_err(fault)?;
                let minimum = output.minimum_load_balancer_capacity();
                let units = minimum.and_then(MinimumLoadBalancerCapacity::capacity_units);
                let units = units.and_then(|units| u32::try_from(units).ok());
                let mut zones = output.capacity_reservation_state().iter();
                let found = units.filter(|units| *units > 0).map(|units| Reservation {
                    units,
                    failed: zones.find_map(failed),
                });
                Ok(answered(found, &output))
            })
        })
        .await
    }

    /// The attributes of a target group.
    pub async fn target_group_attributes(
        &self,
        target_group: &str,
        manner: Manner,
    ) -> Result<BTreeMap<String, String>, CallError> {
        let action = Action::DescribeTargetGroupAttributes;
        self.perform(action, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_target_group_attributes();
                let output = request.target_group_arn(target_group).send().await;
                let output = output.map_err(fault)?;
                let all = output.attributes().iter();
                let all = all.filter_map(|one| pair(one.key(), one.value())).collect();
                Ok(answered(all, &output))
            })
        })
        .await
    }

    /// The tags of load balancers, listeners and target groups, by ARN, as far as they exist.
    pub async fn tags(
        &self,
        arns: &[Arn],
        manner: Manner,
    ) -> Result<BTreeMap<Arn, Tags>, CallError> {
        let read = |some| -> Soon<_, _> { Box::pin(self.tags_of(some, manner)) };
        Ok(existing(arns, read).await?.into_iter().collect())
    }

    /// The targets of a target group. Those that were deregistered stay visible while they drain.
    pub async fn target_health(
        &self,
        target_group: &str,
        manner: Manner,
    ) -> Result<Vec<TargetHealth>, CallError> {
        self.perform(Action::DescribeTargetHealth, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_target_health();
                let output = request.target_group_arn(target_group).send().await;
                let output = output.map_err(fault)?;
                let all = output.target_health_descriptions().iter();
                Ok(answered(all.filter_map(health).collect(), &output))
            })
        })
        .await
    }

    async fn tags_of(&self, arns: &[Arn], manner: Manner) -> Result<Vec<(Arn, Tags)>, CallError> {
        self.perform(Action::DescribeTags, manner, |_| {
            Box::pin(async move {
                let request = self.elb().describe_tags();
                let output = request.set_resource_arns(Some(arns.to_vec())).send().await;
                let output = output.map_err(fault)?;
                let all = output.tag_descriptions().iter().filter_map(|one| {
                    let tags = one.tags().iter();
                    let tags = tags.filter_map(|tag| pair(tag.key(), tag.value()));
                    Some((one.resource_arn()?.to_owned(), tags.collect()))
                });
                let all: Vec<(Arn, Tags)> = all.collect();
                Ok(answered(all, &output))
            })
        })
        .await
    }

    /// All pages of a list. `page` begins behind a marker.
    async fn list<'a, T>(
        &'a self,
        action: Action,
        manner: Manner,
        page: impl Fn(Option<String>) -> Soon<'a, Answered<Page<T>>, Fault>,
    ) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let from = |_| page(marker.clone());
            let (mut found, next) = self.perform(action, manner, from).await?;
            all.append(&mut found);
            marker = next;
            if marker.is_none() {
                return Ok(all);
            }
        }
        let why = format!("the list has more than {MOST_PAGES} pages");
        Err(CallError::unmade(action, Cause::Cloud, why))
    }

    async fn load_balancers_of(
        &self,
        of: Of<'_>,
        manner: Manner,
    ) -> Result<Vec<LoadBalancer>, CallError> {
        self.list(Action::DescribeLoadBalancers, manner, |from| {
            Box::pin(async move {
                let request = self.elb().describe_load_balancers();
                let request = match of {
                    Of::All => request.page_size(PAGE).set_marker(from),
                    Of::Arns(arns) => request.set_load_balancer_arns(Some(arns.to_vec())),
                    Of::Names(names) => request.set_names(Some(names.to_vec())),
                    Of::LoadBalancer(arn) => request.load_balancer_arns(arn),
                };
                let output = request.send().await.map_err(fault)?;
                let page = output.load_balancers().iter();
                let page = page.filter_map(load_balancer).collect();
                let next = output.next_marker().filter(|_| of == Of::All);
                Ok(answered((page, next.map(str::to_owned)), &output))
            })
        })
        .await
    }

    async fn target_groups_of(
        &self,
        of: Of<'_>,
        manner: Manner,
    ) -> Result<Vec<TargetGroup>, CallError> {
        self.list(Action::DescribeTargetGroups, manner, |from| {
            Box::pin(async move {
                let request = self.elb().describe_target_groups();
                let request = match of {
                    Of::All => request.page_size(PAGE).set_marker(from),
                    Of::Arns(arns) => request.set_target_group_arns(Some(arns.to_vec())),
                    Of::Names(names) => request.set_names(Some(names.to_vec())),
                    Of::LoadBalancer(arn) => {
                        let request = request.load_balancer_arn(arn);
                        request.page_size(PAGE).set_marker(from)
                    }
                };
                let output = request.send().await.map_err(fault)?;
                let page = output.target_groups().iter();
                let page = page.filter_map(target_group).collect();
                let paged = matches!(of, Of::All | Of::LoadBalancer(_));
                let next = output.next_marker().filter(|_| paged);
                Ok(answered((page, next.map(str::to_owned)), &output))
            })
        })
        .await
    }
}

/// Reads what exists of a list.
async fn existing<'a, T>(
    ids: &'a [String],
    read: impl Fn(&'a [String]) -> Soon<'a, Vec<T>, CallError>,
) -> Result<Vec<T>, CallError> {
    let mut all = Vec::new();
    let mut rest: Vec<&[String]> = ids.chunks(CHUNK).rev().collect();
    while let Some(some) = rest.pop() {
        match read(some).await {
            Ok(mut found) => all.append(&mut found),
            Err(error) if error.cause == Cause::NotFound => {
                if let (first @ [_, ..], second @ [_, ..]) = some.split_at(some.len() / 2) {
                    rest.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}
