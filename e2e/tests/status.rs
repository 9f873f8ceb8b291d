//! `ballast status` on a real cluster: what it shows of Services and pools, for users with
//! different rights, its output formats, and its exit status.

mod proxy;

use anyhow::{Context, Result, ensure};
use ballast_crds::AddressPool;
use ballast_e2e::installation::binary;
use ballast_e2e::{Reach, eventually};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::command::{Ballast, help_is_true};
use crate::common::{CLASS, OF_CLASS, Plan, SOON, Site, load_balancer, service_yaml};

const PORTS: &str = "selector: {app: web}, ports: [{name: http, port: 80}]";

#[tokio::test(flavor = "multi_thread")]
async fn status_says_how_everything_is() -> Result<()> {
    Plan {
        nodes: 1,
        class: None,
        ..Plan::new("t-status")
    }
    .run(async |site| {
        let admin = Ballast::of(&site.lab.kubeconfig());
        an_empty_cluster(site, &admin).await?;
        services(site, &admin).await?;
        one_service(site, &admin).await?;
        a_service_that_goes(site, &admin).await?;
        // The controller writes the status of pools; in this test, the test does.
        site.ballast.stop("ballast-1").await?;
        pools(site, &admin).await?;
        site.lab.start_again("ballast-1").await?;
        users_with_few_rights(site).await?;
        as_a_plugin_of_kubectl(site).await?;
        proxy::through_a_proxy(site).await?;
        proxy::broken_credentials(site).await?;
        without_the_crds(site, &admin).await
    })
    .await
}

async fn an_empty_cluster(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let said = admin.run(&["status"]).await?;
    ensure!(said.code == Some(0) && said.out.is_empty(), "{said:?}");
    ensure!(
        said.err == "no Services with a load balancer of Ballast found\n",
        "{said:?}"
    );
    site.apply(&load_balancer("unheard", PORTS)).await?;
    let said = admin.run(&["status"]).await?;
    ensure!(
        said.err.starts_with("Service default/unheard has no class"),
        "{said:?}"
    );
    let said = admin.run(&["status", "unheard"]).await?;
    ensure!(
        said.code == Some(0) && said.out.contains("NotServed"),
        "{said:?}"
    );
    site.delete("unheard").await
}

/// One that works, one without a class, one that is refused, one of another controller.
async fn services(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    site.ballast.mock_class(CLASS, "default: true").await?;
    let (sctp, port) = ("ports: [{port: 9, protocol: SCTP}]", "selector: {app: web}");
    let foreign = format!("loadBalancerClass: example.com/other, {PORTS}");
    for (name, spec) in [
        (
            "web",
            format!("{OF_CLASS}, {PORTS}, ipFamilyPolicy: RequireDualStack"),
        ),
        ("classless", PORTS.to_owned()),
        ("refused", format!("{OF_CLASS}, {port}, {sctp}")),
        ("foreign", foreign),
    ] {
        site.apply(&load_balancer(name, &spec)).await?;
    }
    site.apply(&service_yaml(
        "inner",
        "",
        &format!("type: ClusterIP, {PORTS}"),
    ))
    .await?;
    site.programmed("web").await?;
    site.programmed("classless").await?;
    site.says("refused", crate::common::ACCEPTED, "False", "Unsupported")
        .await?;
    let whole = admin.out(&["status"]).await?;
    // After it come the classes.
    let (table, classes) = whole.split_once("\n\n").context("no classes")?;
    ensure!(
        classes.starts_with("CLASS") && classes.contains("so much would the same cost on AWS"),
        "{whole}"
    );
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let header = [
        "NAMESPACE",
        "NAME",
        "CLASS",
        "ADDRESS",
        "SINCE",
        "STATE",
        "WHY",
    ];
    ensure!(rows.len() == 4 && rows[0] == header, "{table}");
    let addresses: Vec<String> = crate::common::addresses(&site.get("web").await?)
        .iter()
        .map(ToString::to_string)
        .collect();
    let names: Vec<&str> = rows[1..].iter().map(|row| row[1]).collect();
    ensure!(names == ["classless", "refused", "web"], "{table}");
    let web = &rows[3];
    ensure!(web[2] == CLASS && web[3] == addresses.join(","), "{table}");
    ensure!(web[5] == "Ready" && web.len() == 6, "{table}");
    let refused = &rows[2];
    ensure!(refused[3] == "-" && refused[5] == "Unsupported", "{table}");
    ensure!(table.contains("only TCP and UDP are supported"), "{table}");
    let said = admin.run(&["status"]).await?;
    let hint =
        "1 of 3 Services is not ready; details of the first: ballast status refused -n default\n";
    ensure!(said.err == hint, "{said:?}");
    let said = admin.run(&["status", "-n", "kube-system"]).await?;
    ensure!(said.out.is_empty() && said.code == Some(0), "{said:?}");
    both_forms_say_the_same(admin).await
}

async fn both_forms_say_the_same(admin: &Ballast) -> Result<()> {
    let json: Value = serde_json::from_str(&admin.out(&["status", "-o", "json"]).await?)?;
    let yaml: Value = serde_saphyr::from_str(&admin.out(&["status", "-o", "yaml"]).await?)?;
    ensure!(json == yaml, "{json} is not {yaml}");
    let ready: Vec<&Value> = json["services"]
        .as_array()
        .context("no services")?
        .iter()
        .filter(|one| one["ready"] == true)
        .map(|one| &one["name"])
        .collect();
    ensure!(ready == ["classless", "web"], "{json}");
    ensure!(json["services"][0]["provider"] == "mock", "{json}");
    Ok(())
}

async fn one_service(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    eventually(SOON, || async {
        let text = admin.out(&["status", "web", "-n", "default"]).await?;
        for words in [
            "Service     default/web\n",
            "Class       local (mock)\n",
            "State       Ready, since 20",
            "Ports       http 80/TCP (node port 3",
        ] {
            ensure!(text.contains(words), "no \"{words}\" in:\n{text}");
        }
        // As wide as the widest cell.
        for row in [
            "ballast.dev/Programmed True Programmed",
            "Normal EnsuredLoadBalancer",
        ] {
            let mut rows = text.lines().map(|line| {
                let cells: Vec<&str> = line.split_whitespace().collect();
                cells.join(" ")
            });
            ensure!(
                rows.any(|line| line.contains(row)),
                "no \"{row}\" in:\n{text}"
            );
        }
        Ok(())
    })
    .await?;
    // Without a namespace: in any namespace.
    let json = admin.out(&["status", "refused", "-o", "json"]).await?;
    let json: Value = serde_json::from_str(&json)?;
    let one = &json["services"][0];
    ensure!(
        one["state"] == "Unsupported" && one["ready"] == false,
        "{one}"
    );
    ensure!(
        one["events"][0]["reason"] == "SyncLoadBalancerFailed",
        "{one}"
    );
    let foreign = admin.out(&["status", "foreign"]).await?;
    ensure!(
        foreign.contains("spec.loadBalancerClass is example.com/other"),
        "{foreign}"
    );
    for arguments in [
        vec!["status", "nobody"],
        vec!["status", "web", "-n", "kube-system"],
    ] {
        let said = admin.run(&arguments).await?;
        ensure!(
            said.code == Some(4) && said.err.contains("not found"),
            "{said:?}"
        );
    }
    for name in ["refused", "foreign", "inner"] {
        site.delete(name).await?;
    }
    Ok(())
}

/// The cloud is down, so its load balancer cannot be released.
async fn a_service_that_goes(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let cloud = ballast_e2e::installation::CLOUD;
    site.lab.stop(cloud).await?;
    site.services()
        .delete("classless", &kube::api::DeleteParams::default())
        .await?;
    eventually(SOON, || async {
        let table = admin.out(&["status"]).await?;
        let row = table.lines().find(|line| line.contains("classless"));
        let row = row.with_context(|| table.clone())?;
        ensure!(row.contains("Releasing"), "{row}");
        ensure!(
            !row.contains("has not yet deleted"),
            "the reason comes from the cloud: {row}"
        );
        Ok(())
    })
    .await?;
    site.lab.start_again(cloud).await?;
    site.ballast.cloud_answers().await?;
    eventually(SOON, || async {
        let gone = site.services().get_opt("classless").await?.is_none();
        ensure!(gone, "still there");
        Ok(())
    })
    .await
}

/// The test writes the statuses: the output shows what is there, whoever wrote it.
async fn pools(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let said = admin.run(&["status", "--pools"]).await?;
    ensure!(
        said.out.is_empty() && said.err == "no AddressPools found\n",
        "{said:?}"
    );
    let web = crate::common::addresses(&site.get("web").await?);
    let [v4, v6] = [web[0].to_string(), web[1].to_string()];
    site.apply(&format!("apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: office}}\nspec: {{addresses: [{v4}, \"{v6}/64\", 192.0.2.0/24]}}\n").replace(&format!("{v6}/64"), &format!("{v6}-{v6}")))
        .await?;
    site.apply("apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: spare}\nspec: {addresses: [198.51.100.0/24]}\n")
        .await?;
    let status = json!({"status": {
        "ipv4": {"total": 257, "assigned": 1, "available": 254},
        "ipv6": {"total": 1, "assigned": 1, "available": 0},
        "next": ["192.0.2.1"],
        "resting": [{"address": "192.0.2.77", "until": "2099-01-01T00:00:00Z"}],
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    let api: Api<AddressPool> = Api::all(site.lab.kube());
    api.patch_status("office", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let text = admin.out(&["status", "--pools", "office"]).await?;
    let mut lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut next = || lines.next().unwrap_or_default().join(" ");
    ensure!(
        next() == "POOL FAMILY TOTAL USED FREE NEXT STATE WHY",
        "{text}"
    );
    ensure!(next() == "office IPv4 257 1 254 192.0.2.1 Ready", "{text}");
    ensure!(next() == "office IPv6 1 1 0 - Ready", "{text}");
    ensure!(next().is_empty() && next() == "ADDRESS POOL USE", "{text}");
    ensure!(next() == format!("{v4} office default/web"), "{text}");
    ensure!(next() == format!("{v6} office default/web"), "{text}");
    let rests = next();
    ensure!(
        rests.starts_with("192.0.2.77 office resting for ")
            && rests.ends_with("until 2099-01-01T00:00:00Z"),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&admin.out(&["status", "--pools", "-o", "json"]).await?)?;
    ensure!(
        json["pools"][0]["assigned"][0]["services"][0]["name"] == "web",
        "{json}"
    );
    ensure!(json["pools"][1]["name"] == "spare", "{json}");
    let said = admin.run(&["status", "--pools", "nobody"]).await?;
    ensure!(said.code == Some(4) && said.out.is_empty(), "{said:?}");
    Ok(())
}

async fn users_with_few_rights(site: &Site<'_>) -> Result<()> {
    let file = site
        .lab
        .kubeconfig_for_user("developer", &[], Reach::Machine)?;
    let developer = Ballast::of(&file);
    let said = developer.run(&["status"]).await?;
    ensure!(said.code == Some(1) && said.out.is_empty(), "{said:?}");
    ensure!(
        said.err.contains("-n NAMESPACE") && said.err.contains("not allowed to list Services"),
        "{said:?}"
    );
    site.lab
        .kubectl(&[
            "create",
            "rolebinding",
            "developer",
            "--clusterrole=view",
            "--user=developer",
            "-n",
            "default",
        ])
        .await?;
    eventually(SOON, || async {
        let said = developer.run(&["status", "-n", "default"]).await?;
        ensure!(said.code == Some(0) && said.out.contains("web"), "{said:?}");
        ensure!(
            said.err.contains("not allowed to list LoadBalancerClasses"),
            "{said:?}"
        );
        Ok(())
    })
    .await?;
    let said = developer.run(&["status", "--pools"]).await?;
    ensure!(
        said.code == Some(1) && said.err.contains("not allowed to list AddressPools"),
        "{said:?}"
    );
    Ok(())
}

async fn as_a_plugin_of_kubectl(site: &Site<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(binary()?, folder.path().join("kubectl-ballast"))?;
    let mut command = tokio::process::Command::new(site.lab.program("kubectl"));
    command.args(["ballast", "status", "-n", "kube-system"]);
    let path = std::env::var("PATH")?;
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    site.apply(
        &load_balancer(
            "waits",
            &format!("{OF_CLASS}, ports: [{{port: 9, protocol: SCTP}}]"),
        )
        .replace("namespace: default", "namespace: kube-system"),
    )
    .await?;
    let said = Ballast::of(&site.lab.kubeconfig())
        .finish(command, "")
        .await?;
    ensure!(
        said.code == Some(0) && said.out.contains("kube-system   waits"),
        "{said:?}"
    );
    ensure!(
        said.err
            .ends_with("kubectl ballast status waits -n kube-system\n"),
        "{said:?}"
    );
    Ok(())
}

async fn without_the_crds(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    site.lab
        .kubectl(&["delete", "crd", "addresspools.ballast.dev"])
        .await?;
    let said = admin.run(&["status", "--pools"]).await?;
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(
        said.err
            .contains("ballast crds | kubectl apply --server-side -f -"),
        "{said:?}"
    );
    Ok(())
}

#[tokio::test]
async fn help_and_usage() -> Result<()> {
    help_is_true(&["status"]).await?;
    let alone = Ballast::alone();
    for wrong in [
        vec!["status", "-o", "xml"],
        vec!["status", "one", "two"],
        vec!["status", "--pools", "-n", "shop"],
        vec!["status", "--no-such-flag"],
    ] {
        let said = alone.run(&wrong).await?;
        ensure!(
            said.code == Some(2) && !said.err.is_empty(),
            "{wrong:?}: {said:?}"
        );
    }
    for (wrong, words) in [
        (vec!["status"], "KUBECONFIG"),
        (
            vec!["status", "--kubeconfig", "/nonexistent/config"],
            "/nonexistent/config",
        ),
        (
            vec!["status", "--context", "elsewhere"],
            "/nonexistent/.kube/config",
        ),
    ] {
        let said = alone.run(&wrong).await?;
        ensure!(
            said.code == Some(1) && said.err.contains(words),
            "{wrong:?}: {said:?}"
        );
        ensure!(said.err.lines().count() == 1, "{said:?}");
    }
    Ok(())
}
