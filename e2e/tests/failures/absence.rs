//! Changes of Services while no controller runs, and Services that vanish without a finalizer.

use anyhow::{Result, ensure};
use ballast_e2e::{Signal, eventually};
use serde_json::json;

use crate::common::crowd::{LOCAL, Witness};
use crate::common::{ACCEPTED, CLASS, FINALIZER, Plan, SOON, Site, addresses, finalizers, told};

const REPLICA: &str = "ballast-1";

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_saw_is_made_up_for() -> Result<()> {
    Plan {
        nodes: 1,
        class: None,
        ..Plan::new("t-fail-absence")
    }
    .run(async |site| {
        let witness = Witness::of(site);
        class_after_its_services(site).await?;
        changed_while_the_controller_was_down(site).await?;
        replaced_while_the_controller_was_down(site).await?;
        stripped_and_gone(site).await?;
        stripped_and_replaced(site).await?;
        stripped_while_the_controller_was_down(site).await?;
        witness.is_content()?;
        site.converges(4).await
    })
    .await
}

/// Leaves `first` and `second`.
async fn class_after_its_services(site: &Site<'_>) -> Result<()> {
    for name in ["first", "second"] {
        site.create(name, LOCAL).await?;
        let said = site.says(name, ACCEPTED, "False", "ClassNotFound").await?;
        ensure!(said.contains(CLASS), "{said}");
        ensure!(
            finalizers(&site.get(name).await?).is_empty(),
            "held by nothing"
        );
    }
    // Only the cloud knows of some of them in the end.
    let orphans = "orphans: Delete, orphanGracePeriod: 2s";
    site.ballast.mock_class(CLASS, orphans).await?;
    site.converges(2).await?;
    for name in ["first", "second"] {
        let failed = site.events(name).await?;
        ensure!(failed.len() == 2, "one event a transition: {failed:?}");
    }
    Ok(())
}

/// Deleted, and changed to another type.
async fn changed_while_the_controller_was_down(site: &Site<'_>) -> Result<()> {
    for name in ["deleted", "turned"] {
        site.create(name, LOCAL).await?;
    }
    site.converges(4).await?;
    site.ballast.stop(REPLICA).await?;
    site.delete_all(&["deleted".to_owned()]).await?;
    let turned = site
        .patch("turned", json!({"spec": {"type": "ClusterIP"}}))
        .await?;
    ensure!(addresses(&turned).is_empty(), "{}", told(&turned));
    let held = site.get("deleted").await?;
    ensure!(
        held.metadata.deletion_timestamp.is_some() && finalizers(&held) == [FINALIZER],
        "the finalizer holds it: {}",
        told(&held)
    );
    ensure!(site.in_cloud("turned").await?.is_some());
    site.lab.start_again(REPLICA).await?;
    site.converges(2).await?;
    let turned = site.get("turned").await?;
    let status = turned.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    ensure!(
        conditions.unwrap_or_default().is_empty(),
        "{}",
        told(&turned)
    );
    ensure!(
        site.services().get_opt("deleted").await?.is_none(),
        "cleaned"
    );
    Ok(())
}

/// The name is free as soon as the old Service is released; its user waits for that.
async fn replaced_while_the_controller_was_down(site: &Site<'_>) -> Result<()> {
    site.create("replaced", LOCAL).await?;
    site.converges(3).await?;
    let old = site.get("replaced").await?.metadata.uid;
    site.ballast.stop(REPLICA).await?;
    site.delete_all(&["replaced".to_owned()]).await?;
    let again = eventually(SOON, || site.create("replaced", LOCAL));
    let start = site.lab.start_again(REPLICA);
    tokio::try_join!(again, start)?;
    site.converges(3).await?;
    ensure!(site.get("replaced").await?.metadata.uid != old);
    Ok(())
}

/// Removes all finalizers and deletes the Service.
async fn strip_and_delete(site: &Site<'_>, name: &str) -> Result<()> {
    let none = json!({"metadata": {"finalizers": null}});
    site.patch(name, none).await?;
    site.delete_all(&[name.to_owned()]).await
}

async fn stripped_and_gone(site: &Site<'_>) -> Result<()> {
    // A running controller puts its finalizer back, which is also correct.
    site.lab.kill(REPLICA, Signal::SIGSTOP).await?;
    strip_and_delete(site, "replaced").await?;
    ensure!(site.services().get_opt("replaced").await?.is_none());
    site.lab.kill(REPLICA, Signal::SIGCONT).await?;
    site.converges(2).await?;
    // Without finalizer but not deleted: it gets the finalizer back, and keeps its load
    // balancer.
    site.patch("first", json!({"metadata": {"finalizers": null}}))
        .await?;
    site.service("first", |service| {
        ensure!(finalizers(service) == [FINALIZER], "not held again");
        Ok(())
    })
    .await?;
    site.converges(2).await
}

/// Two Services with one name; the controller never saw the first one deleted.
async fn stripped_and_replaced(site: &Site<'_>) -> Result<()> {
    for name in ["heir", "heir-of-a-dead"] {
        site.create(name, LOCAL).await?;
    }
    site.converges(4).await?;
    site.lab.kill(REPLICA, Signal::SIGSTOP).await?;
    for name in ["heir", "heir-of-a-dead"] {
        strip_and_delete(site, name).await?;
        site.create(name, LOCAL).await?;
    }
    site.lab.kill(REPLICA, Signal::SIGCONT).await?;
    site.converges(4).await
}

/// Only the cloud still knows of them; one has a successor with the same name.
async fn stripped_while_the_controller_was_down(site: &Site<'_>) -> Result<()> {
    site.create("forgotten", LOCAL).await?;
    site.converges(5).await?;
    site.ballast.stop(REPLICA).await?;
    for name in ["heir", "forgotten"] {
        strip_and_delete(site, name).await?;
    }
    site.create("heir", LOCAL).await?;
    site.lab.start_again(REPLICA).await?;
    site.converges(4).await
}
