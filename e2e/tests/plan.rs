//! `ballast plan` and deletions that wait, on a real cluster with the mock cloud.

use anyhow::{Context as _, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::CLOUD;
use serde_json::Value;

use crate::common::command::{Ballast, help_is_true};
use crate::common::{CLASS, OF_CLASS, PROGRAMMED, Plan, SOON, load_balancer, version};

const PORTS: &str = "selector: {app: web}, ports: [{name: http, port: 80}]";

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_comes_true() -> Result<()> {
    Plan {
        nodes: 1,
        class: Some("maxLoadBalancers: 2"),
        ..Plan::new("t-plan")
    }
    .run(async |site| {
        let admin = Ballast::of(&site.lab.kubeconfig());
        help_is_true(&["plan"]).await?;
        site.apply(&load_balancer("here", &format!("{OF_CLASS}, {PORTS}")))
            .await?;
        let here = version(&site.programmed("here").await?).to_owned();
        let manifests = ["here", "web", "late"]
            .map(|name| load_balancer(name, &format!("{OF_CLASS}, {PORTS}")))
            .join("---\n");
        let calls = site.ballast.calls().await?.mutating;

        let said = admin
            .run_with(&["plan", "-f", "-", "-o", "json"], &manifests)
            .await?;
        ensure!(said.code == Some(5), "{said:?}");
        let plan: Value = serde_json::from_str(&said.out)?;
        let of = |name: &str| -> Result<Value> {
            let mut all = plan["services"].as_array().into_iter().flatten();
            let found = all.find(|one| one["name"] == name);
            found.cloned().with_context(|| format!("no {name}: {plan}"))
        };
        ensure!(of("here")?["result"] == "Unchanged", "{plan}");
        ensure!(of("web")?["result"] == "Create", "{plan}");
        ensure!(of("late")?["reason"] == "QuotaExceeded", "{plan}");
        ensure!(plan["calls"] == 1, "{plan}");

        // It changed nothing.
        ensure!(
            site.ballast.calls().await?.mutating == calls,
            "calls were made"
        );
        ensure!(
            version(&site.get("here").await?) == here,
            "a Service changed"
        );
        ensure!(site.services().get_opt("web").await?.is_none());
        ensure!(site.ballast.load_balancers().await?.len() == 1);

        // It comes true.
        site.apply(&manifests).await?;
        site.programmed("web").await?;
        let refused = site
            .says("late", crate::common::ACCEPTED, "False", "QuotaExceeded")
            .await?;
        let planned = of("late")?["why"].as_str().unwrap_or_default().to_owned();
        ensure!(refused == planned, "{refused}\n{planned}");
        ensure!(refused.contains("here, web use them"), "{refused}");
        let made = site.ballast.calls().await?.mutating - calls;
        ensure!(made == 1, "{made} calls instead of one");
        let said = admin
            .run_with(
                &["plan", "-f", "-"],
                &load_balancer("web", &format!("{OF_CLASS}, {PORTS}")),
            )
            .await?;
        ensure!(
            said.code == Some(0) && said.out.contains("default/web changes nothing"),
            "{said:?}"
        );
        without_a_cluster().await
    })
    .await
}

async fn without_a_cluster() -> Result<()> {
    let class = "apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {name: aws}\nspec: {aws: {region: eu-central-1, scheme: internet-facing}}\n";
    let web = load_balancer(
        "web",
        &format!("loadBalancerClass: ballast.dev/aws, {PORTS}"),
    );
    let input = format!("{class}---\n{web}");
    let alone = Ballast::alone();
    let said = alone
        .run_with(&["plan", "--offline", "-f", "-"], &input)
        .await?;
    ensure!(
        said.code == Some(0) && said.out.contains("$27.38 a month more"),
        "{said:?}"
    );
    let said = alone
        .run_with(&["plan", "--offline", "-f", "-"], class)
        .await?;
    ensure!(said.code == Some(4), "{said:?}");
    Ok(())
}

/// In a namespace that is deleted while the cloud is down, and with another controller's finalizer.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn deletions_that_wait_explain_themselves() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &["--deletion-latency", "50s"],
        ..Plan::new("t-deletions")
    }
    .run(async |site| {
        let admin = Ballast::of(&site.lab.kubeconfig());
        site.lab.kubectl(&["create", "namespace", "stuck"]).await?;
        let stuck = site.within("stuck");
        let web = load_balancer("web", &format!("{OF_CLASS}, {PORTS}"));
        let in_stuck = web.replacen("namespace: default", "namespace: stuck", 1);
        ensure!(in_stuck != web, "{web}");
        site.apply(&in_stuck).await?;
        stuck.programmed("web").await?;
        let held = in_stuck.replacen(
            "name: web",
            "name: held, finalizers: [example.com/backup]",
            1,
        );
        site.apply(&held).await?;
        stuck.programmed("held").await?;

        // The cloud is down.
        site.ballast.kill(CLOUD).await?;
        let flags = ["delete", "namespace", "stuck", "--wait=false"];
        site.lab.kubectl(&flags).await?;
        let said = stuck
            .says("web", PROGRAMMED, "Unknown", "CloudError")
            .await?;
        ensure!(said.starts_with("Since 2"), "{said}");
        ensure!(said.contains("Ballast tries again by itself"), "{said}");
        let listed = waiting(&admin, "web").await?;
        ensure!(listed["namespace"] == "stuck", "{listed}");
        ensure!(
            listed["reason"] == "CloudError" && listed["why"] == said.as_str(),
            "{listed}"
        );
        let text = admin.out(&["status"]).await?;
        ensure!(text.contains("Deletions that wait:"), "{text}");

        // It is back, and takes its time.
        site.lab.start_again(CLOUD).await?;
        let said = stuck
            .says("web", PROGRAMMED, "Unknown", "Releasing")
            .await?;
        ensure!(said.contains("the mock cloud is deleting it"), "{said}");

        // Ballast is done, and somebody else is not.
        let said = stuck.says("held", PROGRAMMED, "False", "Released").await?;
        ensure!(said.ends_with("example.com/backup"), "{said}");
        site.cloud_is_empty().await?;
        let listed = waiting(&admin, "held").await?;
        ensure!(
            listed["next"]
                .as_str()
                .is_some_and(|it| it.contains("finalizer")),
            "{listed}"
        );
        let patch = serde_json::json!({"metadata": {"finalizers": null}});
        stuck.patch("held", patch).await?;
        eventually(SOON, || async {
            let names = site
                .lab
                .kubectl(&["get", "namespaces", "-o", "name"])
                .await?;
            ensure!(!names.contains("stuck"), "{names}");
            Ok(())
        })
        .await?;

        // The class is gone by force.
        site.apply(&web).await?;
        site.programmed("web").await?;
        let free = r#"{"metadata":{"finalizers":null}}"#;
        site.ballast.stop("ballast-1").await?;
        for argv in [
            &["delete", "loadbalancerclass", CLASS, "--wait=false"][..],
            &[
                "patch",
                "loadbalancerclass",
                CLASS,
                "--type=merge",
                "-p",
                free,
            ],
            &["delete", "service", "web", "--wait=false"],
        ] {
            site.lab.kubectl(argv).await?;
        }
        site.lab.start_again("ballast-1").await?;
        site.says("web", PROGRAMMED, "Unknown", "ClassNotFound")
            .await?;
        let listed = waiting(&admin, "web").await?;
        ensure!(
            listed["next"]
                .as_str()
                .is_some_and(|it| it.starts_with("Create LoadBalancerClass")),
            "{listed}"
        );
        site.ballast.mock_class(CLASS, "").await?;
        eventually(SOON, || async {
            ensure!(
                site.services().get_opt("web").await?.is_none(),
                "still there"
            );
            Ok(())
        })
        .await?;
        site.cloud_is_empty().await
    })
    .await
}

/// The deletion of a Service that `ballast status` lists.
async fn waiting(admin: &Ballast, name: &str) -> Result<Value> {
    eventually(SOON, || async {
        let out = admin.out(&["status", "-o", "json"]).await?;
        let report: Value = serde_json::from_str(&out)?;
        let mut all = report["deletions"].as_array().into_iter().flatten();
        let found = all.find(|one| one["name"] == name).cloned();
        found.with_context(|| format!("{name} does not wait: {report}"))
    })
    .await
}
