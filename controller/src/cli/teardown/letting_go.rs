//! The steps of `--release-finalizers`: reads, asks, writes. [`super::last_resort`] chooses.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use super::ask::typed;
use super::last_resort::{self as choice, Behind};
use super::pulse::Liveness;
use super::report::{Cluster, Report, Selection};
use super::{ONE_SECOND, SIGN, Stop, Teardown};
use crate::cli::text::Look;
use crate::cli::{look, note, print, program};
use crate::cluster::writer::MANAGER;
use crate::process::causes::causes;
use crate::run::cluster_uid;

/// Somebody else changes a Service at the same time only by chance.
const TRIES: u32 = 5;

/// Drains, makes sure that no controller runs, shows what stays behind, asks, and removes.
pub(super) async fn run(
    teardown: &mut Teardown,
    asks: bool,
    mut stop: Stop<'_>,
) -> Result<ExitCode> {
    if !asks && !teardown.args.yes && !teardown.args.dry_run {
        bail!("--release-finalizers leaves load balancers behind: it needs a terminal, or --yes");
    }
    let uid = cluster_uid(&teardown.client).await?;
    let cluster = super::cluster::read(&teardown.client).await?;
    if teardown.args.dry_run {
        let behind = choice::behind(&cluster, &teardown.selection, &uid);
        show(teardown, &behind)?;
        note("nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    is_dead(teardown, stop.as_mut()).await?;
    let behind = choice::behind(&cluster, &teardown.selection, &uid);
    show(teardown, &behind)?;
    if behind.services.is_empty() && behind.classes.is_empty() {
        note("nothing has a finalizer of Ballast");
        return Ok(ExitCode::SUCCESS);
    }
    if asks {
        let name = teardown.args.cluster.name()?;
        let question = format!(
            "{}. To go on, type the name of the cluster ({name}): ",
            choice::intent(&behind)
        );
        let answer = typed(&question, stop.as_mut()).await?;
        if answer.as_deref() != Some(name.as_str()) {
            bail!("cancelled; nothing was changed");
        }
        // A controller may have started in the meantime.
        is_still_dead(teardown).await?;
    }
    if cluster.classes.is_some() {
        teardown.record().await?;
        let controller = teardown.controller().await;
        let report = Report::of(&cluster, &teardown.selection, controller);
        teardown.put_on(&report).await?;
    }
    let failed = remove(&teardown.client, cluster, &teardown.selection).await;
    note(format_args!(
        "removed the finalizers of Ballast from {} of {} objects",
        objects(&behind) - failed,
        objects(&behind)
    ));
    if behind.services.iter().any(|it| !it.tags.is_empty()) {
        note(choice::afterwards(&behind, program()));
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn objects(behind: &Behind) -> usize {
    choice::services(behind) + behind.classes.len()
}

fn show(teardown: &Teardown, behind: &Behind) -> Result<()> {
    let machine = teardown.args.output.machine(behind)?;
    let look = Look {
        whole: true,
        ..look(std::io::stdout().is_terminal())
    };
    print(&machine.unwrap_or_else(|| choice::table(behind, look)))
}

/// Waits until the Lease has stood still for twice its duration. An error if it is renewed: the
/// controller would put the finalizers back, and can release the load balancers itself.
async fn is_dead(teardown: &mut Teardown, mut stop: Stop<'_>) -> Result<()> {
    note(
        "making sure that no controller is running: its Lease must not change for twice its duration",
    );
    let mut said = Instant::now();
    loop {
        let controller = teardown.controller().await;
        let told = controller.told(&teardown.lease);
        if controller.holder.is_some() && teardown.pulse.has_changed() {
            bail!(
                "{told}, so a controller is running; it would put the finalizers back. Use {} teardown --wait",
                program()
            );
        }
        match controller.state {
            Liveness::Dead => return Ok(()),
            Liveness::Unknown => {
                bail!("{told}; without it nobody knows whether a controller is running")
            }
            _ if teardown.began.elapsed() >= teardown.limits.timeout => {
                bail!("{told}; it has not stood still for long enough")
            }
            _ => {}
        }
        if said.elapsed() >= SIGN {
            note(format_args!("waiting; {told}"));
            said = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(ONE_SECOND) => {}
            () = stop.as_mut() => bail!("stopped; nothing was changed"),
        }
    }
}

async fn is_still_dead(teardown: &mut Teardown) -> Result<()> {
    let controller = teardown.controller().await;
    if controller.state != Liveness::Dead {
        bail!("{}; nothing was changed", controller.told(&teardown.lease));
    }
    Ok(())
}

/// Removes the finalizers, and returns how many objects still have theirs.
async fn remove(client: &Client, cluster: Cluster, selection: &Selection) -> usize {
    let mut failed = 0;
    for service in cluster.services {
        if choice::without_ours(&service, selection).is_none() {
            continue;
        }
        let meta = &service.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        match of_service(client, service, selection).await {
            Ok(()) => note(format_args!("{namespace}/{name}: finalizers removed")),
            Err(error) => {
                failed += 1;
                let error = causes(error.as_ref());
                note(format_args!("{namespace}/{name}: {error}"));
            }
        }
    }
    for class in cluster.classes.iter().flatten() {
        let (Some(name), Some(rest)) = (choice::name_of(class), choice::unguarded(class)) else {
            continue;
        };
        if !selection.has(&name) {
            continue;
        }
        match of_class(client, &name, rest).await {
            Ok(()) => note(format_args!("class {name}: finalizer removed")),
            Err(error) => {
                failed += 1;
                note(format_args!("class {name}: {}", causes(error.as_ref())));
            }
        }
    }
    failed
}

/// Writes over what was read, and reads again if somebody else wrote in between.
async fn of_service(client: &Client, read: Service, selection: &Selection) -> Result<()> {
    let namespace = read.metadata.namespace.clone().unwrap_or_default();
    let name = read.metadata.name.clone().unwrap_or_default();
    let api: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let mut service = read;
    for _ in 0..TRIES {
        let Some(rest) = choice::without_ours(&service, selection) else {
            return Ok(());
        };
        let body = json!({"metadata": {
            "resourceVersion": service.metadata.resource_version,
            "finalizers": rest,
        }});
        match api.patch(&name, &params(), &Patch::Merge(&body)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            done => return done.map(drop).context("cannot remove its finalizers"),
        }
        let again = api.get_opt(&name).await.context("cannot read it again")?;
        match again {
            Some(again) => service = again,
            None => return Ok(()),
        }
    }
    bail!("somebody else keeps changing it")
}

async fn of_class(client: &Client, name: &str, rest: Vec<String>) -> Result<()> {
    let api: Api<DeserializeGuard<ballast_crds::LoadBalancerClass>> = Api::all(client.clone());
    // Not over a version: the drain switch was set just now. Nobody else writes finalizers here.
    let body = json!({"metadata": {"finalizers": rest}});
    match api.patch(name, &params(), &Patch::Merge(&body)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop).context("cannot remove its finalizer"),
    }
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned() + "-teardown"),
        ..PatchParams::default()
    }
}
