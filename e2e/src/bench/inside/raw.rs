//! The raw loop: the maximum that the API server can do. It sends the same patches per Service
//! as Ballast, one after the other, without decisions, providers or events.

use std::sync::Arc;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Mode;
use super::api::{self, Event, Object, Watch};
use crate::bench::lan;
use crate::bench::terms::CLASS;

/// The patches for one Service.
struct Patches {
    name: String,
    bodies: Vec<Vec<u8>>,
}

/// Patches the existing Services. All patches are built before the first is sent.
pub(super) async fn backlog(client: Client, concurrency: usize, mode: Mode) -> Result<()> {
    let (objects, _) = api::list(&client).await?;
    let all: Vec<Patches> = objects
        .iter()
        .zip(0..)
        .map(|(it, n)| Patches::of(it, n, mode))
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

/// Two patches for each new Service; runs until it is killed.
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
        let patches = Patches::of(&object, number, Mode::Follow);
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
    fn of(object: &Object, number: u32, mode: Mode) -> Self {
        let bodies = match mode {
            Mode::Follow | Mode::Backlog => of_a_cloud(object, number),
            Mode::Addresses => vec![of_a_pool(object, number)],
        };
        let bodies = bodies.iter().map(|body| body.to_string().into_bytes());
        Self {
            name: object.metadata.name.clone(),
            bodies: bodies.collect(),
        }
    }

    async fn send(self, client: Client) -> Result<()> {
        for body in self.bodies {
            api::patch(&client, &self.name, body).await?;
        }
        Ok(())
    }
}

/// Finalizers and first conditions, then the address.
fn of_a_cloud(object: &Object, number: u32) -> Vec<Value> {
    let uid = &object.metadata.uid;
    let first = json!({
        "metadata": {"uid": uid, "finalizers":
            [format!("ballast.dev/{CLASS}"), "service.kubernetes.io/load-balancer-cleanup"]},
        "status": {"conditions": [
            accepted(CLASS),
            condition("Programmed", "False", "Provisioning", "The load balancer is being created"),
        ]},
    });
    let second = json!({
        "metadata": {"uid": uid},
        "status": {
            "conditions":
                [condition("Programmed", "True", "Programmed", "The load balancer is active")],
            "loadBalancer": ingress(number, "Proxy"),
        },
    });
    vec![first, second]
}

/// Address and conditions together, over the version that the watch delivered.
fn of_a_pool(object: &Object, number: u32) -> Value {
    let meta = &object.metadata;
    json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {
            "conditions": [
                accepted(lan::CLASS),
                condition("Programmed", "False", "NotAnnounced",
                    "The address is assigned; no node announces it yet"),
            ],
            "loadBalancer": ingress(number, "VIP"),
        },
    })
}

fn accepted(class: &str) -> Value {
    let message = format!("LoadBalancerClass {class} serves this Service");
    condition("Accepted", "True", "Accepted", &message)
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"type": format!("ballast.dev/{kind}"), "status": status, "reason": reason,
        "message": message, "lastTransitionTime": now})
}

fn ingress(number: u32, mode: &str) -> Value {
    let [_, _, high, low] = number.to_be_bytes();
    let ports = [80, 443].map(|port| json!({"port": port, "protocol": "TCP"}));
    json!({"ingress":
        [{"ip": format!("198.18.{high}.{low}"), "ipMode": mode, "ports": ports}]})
}
