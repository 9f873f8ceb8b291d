//! A class is deleted, or changed into another one, while Services use it.

use anyhow::{Context, Result, bail, ensure};
use ballast_crds::LoadBalancerClass;
use ballast_e2e::eventually;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{ACCEPTED, CLASS, OF_CLASS, SOON, Site, load_balancer};

const IN_USE: &str = "ballast.dev/in-use";

pub(crate) async fn test(site: &Site<'_>) -> Result<()> {
    let spec = format!("{OF_CLASS}, ports: [{{port: 80}}]");
    for name in ["one", "two"] {
        site.apply(&load_balancer(name, &spec)).await?;
        site.programmed(name).await?;
    }
    says_who_uses_it(site, "Used by default/one, default/two").await?;
    edits_are_refused(site).await?;

    classes(site)
        .delete(CLASS, &DeleteParams::default())
        .await?;
    let class = classes(site).get(CLASS).await?;
    let finalizers = class.metadata.finalizers.clone().unwrap_or_default();
    ensure!(class.metadata.deletion_timestamp.is_some());
    ensure!(finalizers == [IN_USE], "{finalizers:?}");

    site.apply(&load_balancer("late", &spec)).await?;
    let why = site
        .says("late", ACCEPTED, "False", "ClassNotReady")
        .await?;
    ensure!(why.contains("local is being deleted"), "{why}");

    // Services with a load balancer keep it, and may still change it.
    site.patch("two", json!({"spec": {"ports": [{"port": 81}]}}))
        .await?;
    site.service("two", |service| {
        let status = serde_json::to_value(&service.status)?;
        let port = &status["loadBalancer"]["ingress"][0]["ports"][0]["port"];
        ensure!(*port == 81, "the port is {port}");
        Ok(())
    })
    .await?;
    site.delete("one").await?;
    says_who_uses_it(site, "Used by default/two").await?;
    site.delete("two").await?;
    eventually(SOON, || async {
        match classes(site).get_opt(CLASS).await? {
            None => Ok(()),
            Some(class) => bail!("nobody uses it, and it stays: {class:?}"),
        }
    })
    .await?;
    site.cloud_is_empty().await?;

    site.says("late", ACCEPTED, "False", "ClassNotFound")
        .await?;
    site.ballast.mock_class(CLASS, "").await?;
    site.programmed("late").await.map(drop)
}

fn classes(site: &Site<'_>) -> Api<LoadBalancerClass> {
    Api::all(site.lab.kube())
}

async fn says_who_uses_it(site: &Site<'_>, message: &str) -> Result<()> {
    // A class's status is written at most once in 5 s.
    eventually(SOON, || async {
        let status = classes(site).get(CLASS).await?.status.unwrap_or_default();
        let in_use = status.conditions.iter().find(|one| one.type_ == "InUse");
        let in_use = in_use.with_context(|| format!("no InUse: {status:?}"))?;
        ensure!(
            in_use.status == "True" && in_use.message == message,
            "{in_use:?}"
        );
        Ok(())
    })
    .await
}

async fn edits_are_refused(site: &Site<'_>) -> Result<()> {
    let kind =
        "the provider of a class cannot be changed: create another class and move the Services";
    let endpoint = "spec.mock.endpoint cannot be changed: the load balancers of the old cloud would be left behind; create another class and move the Services";
    let edits: [(Value, &str); 3] = [
        (json!({"mock": null, "l2": {}}), kind),
        (
            json!({"mock": null, "aws": {"region": "eu-central-1"}}),
            kind,
        ),
        (
            json!({"mock": {"endpoint": "http://10.89.0.3:1"}}),
            endpoint,
        ),
    ];
    for (spec, message) in edits {
        let patch = Patch::Merge(json!({"spec": spec}));
        let answer = classes(site)
            .patch(CLASS, &PatchParams::default(), &patch)
            .await;
        let error = answer.err().with_context(|| format!("{spec} was taken"))?;
        ensure!(error.to_string().contains(message), "{spec}: {error}");
    }
    Ok(())
}
