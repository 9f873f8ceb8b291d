//! The hosts of a lab, and the readiness of the programs on them: steps that [`crate::boot`]
//! and [`crate::nodes`] share. Uses [`Lab`]; [`Lab`] does not use this.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Families;
use crate::components::{Component, node_mounts};
use crate::control::Request;
use crate::eventually::eventually;
use crate::lab::Lab;
use crate::launch::ended;
use crate::net::{self, Host};

/// The hosts that are not nodes.
pub(crate) const OTHERS: [Host; 4] = [
    Host::ControlPlane,
    Host::Cloud,
    Host::Client,
    Host::FarClient,
];

const API_TIME: Duration = Duration::from_secs(90);

pub(crate) fn hosts_file(families: Families, nodes: &[u8]) -> String {
    let mut lines = vec!["127.0.0.1 localhost".to_owned(), "::1 localhost".to_owned()];
    for host in OTHERS
        .into_iter()
        .chain(nodes.iter().map(|&node| Host::Node(node)))
    {
        lines.extend(
            host.addresses(families)
                .iter()
                .map(|address| format!("{address} {}", host.name())),
        );
    }
    lines.join("\n") + "\n"
}

impl Lab {
    /// Adds a machine to the nodes' segment, where nothing runs.
    pub async fn add_guest(&self, number: u8) -> Result<Host> {
        if !(1..=net::MAX_GUESTS).contains(&number) {
            bail!("guests have numbers from 1 to {}", net::MAX_GUESTS);
        }
        let guest = Host::Guest(number);
        add_host(self, guest).await?;
        Ok(guest)
    }
}

pub(crate) async fn add_host(lab: &Lab, host: Host) -> Result<()> {
    let mut spec = net::host_spec(host, lab.setup.families, &lab.nodes());
    if let Host::Node(node) = host {
        (spec.binds, spec.scratch) = node_mounts(&lab.setup.node_dir(node));
        spec.cgroup = lab.setup.node_cgroup(node);
    }
    lab.control
        .call(&Request::AddHost(spec))
        .await
        .with_context(|| format!("cannot make the host {}", host.name()))
}

/// Waits until the API server reports that it is ready, or has ended.
pub(crate) async fn api_ready(lab: &Lab) -> Result<()> {
    let ready = eventually(API_TIME, || async {
        if let Some(dead) = dead(lab, &[Component::Etcd, Component::ApiServer]).await? {
            return Ok(Err(dead));
        }
        let request = http::Request::get("/readyz").body(vec![])?;
        lab.client.request_text(request).await?;
        Ok(Ok(()))
    });
    ready
        .await
        .context("the API server does not get ready; see `lab logs kube-apiserver`")?
}

/// Why waiting is pointless: one of these processes has ended. The error has its last lines.
pub(crate) async fn dead(lab: &Lab, needed: &[Component]) -> Result<Option<anyhow::Error>> {
    let status = lab.status().await?;
    let names: Vec<String> = needed.iter().map(|component| component.name()).collect();
    let mut needed = status
        .processes
        .iter()
        .filter(|process| names.contains(&process.spec.name));
    let found = needed.find_map(|process| Some((&process.spec.name, process.exit?)));
    Ok(found.map(|(name, exit)| ended(name, exit, &lab.log(name).unwrap_or_default())))
}
