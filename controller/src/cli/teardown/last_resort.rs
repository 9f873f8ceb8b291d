//! `ballast teardown --release-finalizers`: lets go of Services and classes without touching the
//! cloud, when neither a controller nor the cloud can help, and says what stays behind.
//!
//! [`behind`] and [`without_ours`] choose (pure). The classes drain first, so a controller that
//! comes later makes nothing new, and releases what it still finds in the cloud.

use std::collections::{BTreeMap, BTreeSet};

use ballast_aws::adopt::UNNAMED;
use ballast_crds::{LoadBalancerClass, ProviderSettings, class_of_key};
use ballast_mock::MockProvider;
use ballast_provider::{Mark, ServiceId, mark};
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use serde::Serialize;

use super::report::{Cluster, Selection};
use crate::class::IN_USE_FINALIZER;
use crate::cli::service::addresses;
use crate::cli::text::{Cell, Look, NOTHING, Table, Tone};
use crate::cluster::translate::SHARE_KEY;
use crate::cluster::view::STANDARD_FINALIZER;
use crate::run::factory::Providers;

/// What stays behind. `-o json` prints it, so fields may be added, but never renamed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Behind {
    /// The UID of the cluster, as in the tags.
    pub cluster: String,
    /// The Services that lose finalizers, sorted.
    pub services: Vec<Held>,
    /// The classes that lose theirs, sorted.
    pub classes: Vec<String>,
}

/// A Service with finalizers of Ballast, and what it may have in a cloud: one of each class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The namespace.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// The class.
    pub class: String,
    /// `mock`, `aws` or `l2`; `None`: the class does not exist or cannot be read.
    pub provider: Option<String>,
    /// The addresses and host names that the Service publishes.
    pub addresses: Vec<String>,
    /// The name in the cloud, where it is known.
    pub cloud_name: Option<String>,
    /// The tags under which it is found; empty if nothing is outside of the cluster.
    pub tags: BTreeMap<String, String>,
}

/// What stays behind if the finalizers of these classes are removed.
pub fn behind(cluster: &Cluster, selection: &Selection, uid: &str) -> Behind {
    let classes = cluster.classes.as_deref().unwrap_or_default();
    let settings: BTreeMap<String, ProviderSettings> = classes
        .iter()
        .filter_map(|DeserializeGuard(class)| class.as_ref().ok())
        .filter_map(|it| Some((it.metadata.name.clone()?, it.spec.provider().ok()?)))
        .collect();
    let mut services: Vec<Held> = Vec::new();
    for service in &cluster.services {
        for class in ours(service, selection) {
            services.push(held(service, class, settings.get(class), uid));
        }
    }
    services.sort();
    let guarded = classes.iter().filter(|it| is_guarded(it));
    let mut names: Vec<String> = guarded.filter_map(name_of).collect();
    names.retain(|name| selection.has(name));
    names.sort();
    Behind {
        cluster: uid.to_owned(),
        services,
        classes: names,
    }
}

/// The finalizers that remain; `None`: nothing changes. The standard one is Ballast's if Ballast
/// has a finalizer on the Service, and goes with the last of them.
pub fn without_ours(service: &Service, selection: &Selection) -> Option<Vec<String>> {
    let all = service.metadata.finalizers.as_deref().unwrap_or_default();
    let ours: BTreeSet<&str> = ours(service, selection).collect();
    if ours.is_empty() {
        return None;
    }
    let class = |it: &String| class_of_key(it).map(str::to_owned);
    let kept = |it: &&String| class(it).is_none_or(|class| !ours.contains(class.as_str()));
    let mut rest: Vec<String> = all.iter().filter(kept).cloned().collect();
    if rest.iter().all(|it| class(it).is_none()) {
        rest.retain(|it| it != STANDARD_FINALIZER);
    }
    Some(rest)
}

/// The finalizers of a class that remain; `None`: nothing changes.
pub fn unguarded(class: &DeserializeGuard<LoadBalancerClass>) -> Option<Vec<String>> {
    let mut rest = finalizers(class).to_vec();
    rest.retain(|it| it != IN_USE_FINALIZER);
    is_guarded(class).then_some(rest)
}

/// `metadata.name`
pub fn name_of(class: &DeserializeGuard<LoadBalancerClass>) -> Option<String> {
    match &class.0 {
        Ok(class) => class.metadata.name.clone(),
        Err(invalid) => invalid.metadata.name.clone(),
    }
}

fn finalizers(class: &DeserializeGuard<LoadBalancerClass>) -> &[String] {
    let finalizers = match &class.0 {
        Ok(class) => &class.metadata.finalizers,
        Err(invalid) => &invalid.metadata.finalizers,
    };
    finalizers.as_deref().unwrap_or_default()
}

fn is_guarded(class: &DeserializeGuard<LoadBalancerClass>) -> bool {
    finalizers(class).iter().any(|it| it == IN_USE_FINALIZER)
}

/// The selected classes whose finalizers a Service has.
fn ours<'a>(service: &'a Service, selection: &'a Selection) -> impl Iterator<Item = &'a str> {
    let all = service.metadata.finalizers.as_deref().unwrap_or_default();
    let classes = all.iter().filter_map(|it| class_of_key(it));
    classes.filter(|class| selection.has(class))
}

fn held(service: &Service, class: &str, settings: Option<&ProviderSettings>, uid: &str) -> Held {
    let meta = &service.metadata;
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let id = ServiceId {
        namespace: text(&meta.namespace).into(),
        name: text(&meta.name).into(),
        uid: text(&meta.uid).into(),
    };
    let mark = Mark {
        cluster: uid.to_owned(),
        cluster_name: UNNAMED.to_owned(),
        class: class.to_owned(),
        writer: String::new(),
    };
    let published = addresses(service);
    let (cloud_name, tags) = match settings {
        Some(ProviderSettings::L2(_)) => (None, BTreeMap::new()),
        Some(ProviderSettings::Mock(_)) => {
            let name = MockProvider::name_of(&mark, &id);
            (Some(name), tags(&mark, &id))
        }
        Some(ProviderSettings::Aws(aws)) => {
            let everywhere = Providers::aws_settings(aws).is_ok_and(|it| it.share_everywhere);
            let shared = share_tag(service, everywhere);
            let tags = match shared {
                // It can have the tags of another Service that shares it.
                Some(key) => [
                    (mark::CLUSTER.to_owned(), mark.cluster.clone()),
                    (mark::CLASS.to_owned(), mark.class.clone()),
                    (mark::SHARE_KEY.to_owned(), key),
                ]
                .into(),
                None => tags(&mark, &id),
            };
            (published.iter().find_map(|it| aws_name(it)), tags)
        }
        None => (None, tags(&mark, &id)),
    };
    Held {
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        uid: id.uid.to_string(),
        class: class.to_owned(),
        provider: settings.map(|it| it.kind().as_str().to_owned()),
        addresses: published,
        cloud_name,
        tags,
    }
}

/// All tags that are certain: the name of the cluster is for people only.
fn tags(mark: &Mark, id: &ServiceId) -> BTreeMap<String, String> {
    let mut tags = mark.tags(id);
    tags.remove(mark::CLUSTER_NAME);
    tags
}

fn share_tag(service: &Service, everywhere: bool) -> Option<String> {
    let key = service.metadata.annotations.as_ref()?.get(SHARE_KEY)?;
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    Some(if everywhere {
        format!("/{key}")
    } else {
        format!("{namespace}/{key}")
    })
}

/// The name of a Network Load Balancer begins its host name: `NAME-ID.elb.REGION.amazonaws.com`.
fn aws_name(hostname: &str) -> Option<String> {
    let (label, rest) = hostname.split_once('.')?;
    let (name, _) = label.rsplit_once('-')?;
    rest.starts_with("elb.").then(|| name.to_owned())
}

/// The table for people.
pub fn table(behind: &Behind, look: Look) -> String {
    let mut table = Table::new(&["NAMESPACE", "NAME", "CLASS", "ADDRESS", "IN THE CLOUD"]);
    for it in &behind.services {
        let tags = it.tags.iter().map(|(key, value)| format!("{key}={value}"));
        let tags: Vec<String> = tags.collect();
        let place = match (&it.cloud_name, tags.as_slice()) {
            (_, []) => "nothing is outside of the cluster".to_owned(),
            (Some(name), tags) => format!("{name}, tags {}", tags.join(" ")),
            (None, tags) => format!("tags {}", tags.join(" ")),
        };
        let addresses = it.addresses.join(",");
        table.row(vec![
            Cell::new(&it.namespace),
            Cell::new(&it.name).toned(Tone::Bad),
            Cell::new(&it.class),
            Cell::new(if addresses.is_empty() {
                NOTHING
            } else {
                &addresses
            }),
            Cell::remark(&place),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    table.render(look)
}

/// What will happen, in a sentence.
pub fn intent(behind: &Behind) -> String {
    let cloud = behind.services.iter().filter(|it| !it.tags.is_empty());
    format!(
        "This removes the finalizers of Ballast from {} and {}. Up to {} in a cloud, where nothing deletes them and they cost money",
        count(services(behind), "Service", "Services"),
        count(behind.classes.len(), "class", "classes"),
        count(cloud.count(), "load balancer stays", "load balancers stay"),
    )
}

/// What to do afterwards.
pub fn afterwards(behind: &Behind, program: &str) -> String {
    format!(
        "to find and delete what stays in a cloud: {program} orphans --cluster {} (with credentials of the cloud; no cluster is needed)",
        behind.cluster
    )
}

/// The Services, each once.
pub fn services(behind: &Behind) -> usize {
    let uids: BTreeSet<(&str, &str)> = behind
        .services
        .iter()
        .map(|it| (it.namespace.as_str(), it.name.as_str()))
        .collect();
    uids.len()
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        more => format!("{more} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, finalizers: &[&str], address: &str, key: Option<&str>) -> Service {
        let entry = if address.contains("elb") {
            "hostname"
        } else {
            "ip"
        };
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": format!("u-{name}"),
                "finalizers": finalizers,
                "annotations": key.map(|key| json!({SHARE_KEY: key})),
            },
            "status": {"loadBalancer": {"ingress": [{entry: address}]}},
        }))
        .unwrap()
    }

    fn class(name: &str, settings: &serde_json::Value) -> DeserializeGuard<LoadBalancerClass> {
        let object = json!({
            "metadata": {"name": name, "finalizers": ["other.example/x", IN_USE_FINALIZER]},
            "spec": settings,
        });
        DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
    }

    fn all() -> Cluster {
        let host = "bl-0123-89ab.elb.eu-west-1.amazonaws.com";
        Cluster {
            classes: Some(vec![
                class(
                    "local",
                    &json!({"mock": {"endpoint": "http://127.0.0.1:1"}}),
                ),
                class("nlb", &json!({"aws": {"region": "eu-west-1"}})),
                class("metal", &json!({"l2": {}})),
            ]),
            services: vec![
                service(
                    "web",
                    &["ballast.dev/local", STANDARD_FINALIZER],
                    "10.0.0.1",
                    None,
                ),
                service("api", &["ballast.dev/nlb"], host, None),
                service("front", &["ballast.dev/nlb"], host, Some("edge")),
                service(
                    "old",
                    &["ballast.dev/gone", "x.example/y"],
                    "10.0.0.3",
                    None,
                ),
                service("metal", &["ballast.dev/metal"], "192.0.2.1", None),
                service("foreign", &[STANDARD_FINALIZER], "10.0.0.4", None),
            ],
        }
    }

    #[test]
    fn it_says_exactly_what_stays() {
        let behind = behind(&all(), &Selection::All, "uid-1");
        insta::assert_snapshot!(table(&behind, Look::default()), @r"
        NAMESPACE   NAME    CLASS   ADDRESS                                    IN THE CLOUD
        shop        api     nlb     bl-0123-89ab.elb.eu-west-1.amazonaws.com   bl-0123, tags ballast.dev/class=nlb ballast.dev/cluster=uid-1 ballast.dev/service=shop/api ballast.dev/service-uid=u-api
        shop        front   nlb     bl-0123-89ab.elb.eu-west-1.amazonaws.com   bl-0123, tags ballast.dev/class=nlb ballast.dev/cluster=uid-1 ballast.dev/share-key=shop/edge
        shop        metal   metal   192.0.2.1                                  nothing is outside of the cluster
        shop        old     gone    10.0.0.3                                   tags ballast.dev/class=gone ballast.dev/cluster=uid-1 ballast.dev/service=shop/old ballast.dev/service-uid=u-old
        shop        web     local   10.0.0.1                                   bl-bab19bddb2fbc28add277270, tags ballast.dev/class=local ballast.dev/cluster=uid-1 ballast.dev/service=shop/web ballast.dev/service-uid=u-web
        ");
        insta::assert_snapshot!(intent(&behind), @"This removes the finalizers of Ballast from 5 Services and 3 classes. Up to 4 load balancers stay in a cloud, where nothing deletes them and they cost money");
        insta::assert_snapshot!(afterwards(&behind, "ballast"), @"to find and delete what stays in a cloud: ballast orphans --cluster uid-1 (with credentials of the cloud; no cluster is needed)");
        insta::assert_snapshot!(serde_json::to_string_pretty(&Behind {
            services: behind.services[..1].to_vec(),
            ..behind
        }).unwrap(), @r#"
        {
          "cluster": "uid-1",
          "services": [
            {
              "namespace": "shop",
              "name": "api",
              "uid": "u-api",
              "class": "nlb",
              "provider": "aws",
              "addresses": [
                "bl-0123-89ab.elb.eu-west-1.amazonaws.com"
              ],
              "cloudName": "bl-0123",
              "tags": {
                "ballast.dev/class": "nlb",
                "ballast.dev/cluster": "uid-1",
                "ballast.dev/service": "shop/api",
                "ballast.dev/service-uid": "u-api"
              }
            }
          ],
          "classes": [
            "local",
            "metal",
            "nlb"
          ]
        }
        "#);
    }

    #[test]
    fn only_the_finalizers_of_ballast_go() {
        let one = Selection::Named(BTreeSet::from(["local".to_owned()]));
        let of = |finalizers: &[&str], selection: &Selection| {
            without_ours(&service("web", finalizers, "10.0.0.1", None), selection)
        };
        let (local, edge) = ("ballast.dev/local", "ballast.dev/edge");
        for (before, all, chosen) in [
            (
                &[local, STANDARD_FINALIZER][..],
                Some(&[][..]),
                Some(&[][..]),
            ),
            (
                &["x.example/y", local],
                Some(&["x.example/y"]),
                Some(&["x.example/y"]),
            ),
            // Another class still holds it, and with it the standard one.
            (
                &[local, edge, STANDARD_FINALIZER],
                Some(&[]),
                Some(&[edge, STANDARD_FINALIZER]),
            ),
            (&[edge], Some(&[]), None),
            // Another controller's.
            (&[STANDARD_FINALIZER], None, None),
            (&[], None, None),
        ] {
            let texts = |rest: Option<&[&str]>| {
                rest.map(|rest| rest.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
            };
            assert_eq!(of(before, &Selection::All), texts(all), "{before:?}");
            assert_eq!(of(before, &one), texts(chosen), "{before:?}");
        }
        let class = class("local", &json!({"l2": {}}));
        assert_eq!(unguarded(&class), Some(vec!["other.example/x".to_owned()]));
    }
}
