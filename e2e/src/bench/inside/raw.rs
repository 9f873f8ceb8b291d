//! The raw loop: what the API server can do at most. The same two patches per Service as
//! Ballast makes, one after the other, and no decision, no provider, no event.

use std::sync::Arc;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::Client;
use serde_json::json;
use tokio::sync::Semaphore;

use super::api::{self, Event, Object, Watch};
use crate::bench::CLASS;

/// The bodies for one Service.
struct Patches {
    name: String,
    first: Vec<u8>,
    second: Vec<u8>,
}

/// Works off the Services that there are. All bodies are made before the first is sent.
pub(super) async fn backlog(client: Client, concurrency: usize) -> Result<()> {
    let (objects, _) = api::list(&client).await?;
    let all: Vec<Patches> = objects
        .iter()
        .zip(0..)
        .map(|(it, n)| Patches::of(it, n))
        .collect();
    println!("ready");
    futures::stream::iter(all)
        .map(|patches| {
            let client = client.clone();
            async move { tokio::spawn(patches.send(client)).await? }
        })
        .buffer_unordered(concurrency)
        .try_collect::<Vec<()>>()
        .await?;
    println!("{{}}");
    Ok(())
}

/// Two patches for each Service that arrives; runs until it is killed.
pub(super) async fn follow(client: Client, concurrency: usize) -> Result<()> {
    let (_, version) = api::list(&client).await?;
    let mut events = Watch::from(&client, version).await?;
    println!("ready");
    let places = Arc::new(Semaphore::new(concurrency));
    let mut number = 0;
    loop {
        let Event::Added(object) = events.next().await? else {
            continue;
        };
        number += 1;
        let patches = Patches::of(&object, number);
        let place = Arc::clone(&places).acquire_owned().await?;
        let client = client.clone();
        tokio::spawn(async move {
            if let Err(error) = patches.send(client).await {
                eprintln!("{error:#}");
            }
            drop(place);
        });
    }
}

impl Patches {
    fn of(object: &Object, number: u32) -> Self {
        let uid = &object.metadata.uid;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({"type": format!("ballast.dev/{kind}"), "status": status, "reason": reason,
                "message": message, "lastTransitionTime": now})
        };
        let first = json!({
            "metadata": {"uid": uid, "finalizers":
                [format!("ballast.dev/{CLASS}"), "service.kubernetes.io/load-balancer-cleanup"]},
            "status": {"conditions": [
                condition("Accepted", "True", "Accepted",
                    &format!("LoadBalancerClass {CLASS} serves this Service")),
                condition("Programmed", "False", "Provisioning", "The load balancer is being made"),
            ]},
        });
        let [_, _, high, low] = number.to_be_bytes();
        let ports = [80, 443].map(|port| json!({"port": port, "protocol": "TCP"}));
        let second = json!({
            "metadata": {"uid": uid},
            "status": {
                "conditions":
                    [condition("Programmed", "True", "Programmed", "The load balancer is active")],
                "loadBalancer": {"ingress":
                    [{"ip": format!("198.18.{high}.{low}"), "ipMode": "Proxy", "ports": ports}]},
            },
        });
        Self {
            name: object.metadata.name.clone(),
            first: first.to_string().into_bytes(),
            second: second.to_string().into_bytes(),
        }
    }

    async fn send(self, client: Client) -> Result<()> {
        api::patch(&client, &self.name, self.first).await?;
        api::patch(&client, &self.name, self.second).await
    }
}
