//! What a lab wants to know of the fake: its objects and the calls so far. Changes nothing.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use ballast_aws_fake::Fake;
use ballast_aws_fake::state::Snapshot;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Answers every request with the report, for ever.
pub(crate) async fn serve(address: SocketAddr, fake: Arc<Fake>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let fake = Arc::clone(&fake);
        let answer = service_fn(move |_| {
            let body = Full::new(Bytes::from(report(&fake).to_string()));
            async move { Ok::<_, Infallible>(http::Response::new(body)) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

fn report(fake: &Fake) -> Value {
    let all = fake.snapshot();
    let now = fake.now();
    let counts = fake.counts();
    let balancers = all.load_balancers.values().map(|one| {
        let listeners = all.listeners.values();
        let listeners = listeners.filter(|it| it.load_balancer == one.arn);
        let listeners = listeners.map(|it| json!({"port": it.port, "protocol": it.protocol}));
        json!({
            "name": one.name,
            "hostname": one.dns_name,
            "scheme": one.scheme,
            "state": one.state(now),
            "tags": one.tags,
            "listeners": listeners.collect::<Vec<_>>(),
            "targetGroups": groups_of(fake, &all, &one.arn),
        })
    });
    let security = all
        .security_groups
        .values()
        .map(|one| json!({"name": one.name, "tags": one.tags, "rules": one.ingress.len()}));
    json!({
        "loadBalancers": balancers.collect::<Vec<_>>(),
        "targetGroups": all.target_groups.len(),
        "securityGroups": security.collect::<Vec<_>>(),
        "calls": counts.actions,
        "total": counts.total(),
        "mutating": counts.writes(),
    })
}

/// The target groups of a load balancer, with the targets that traffic goes to.
fn groups_of(fake: &Fake, all: &Snapshot, balancer: &str) -> Vec<Value> {
    let listeners = all.listeners.values();
    let used = listeners.filter(|it| it.load_balancer == balancer);
    let actions = used.flat_map(|it| {
        let rules = all.rules.values().filter(|rule| rule.listener == it.arn);
        std::iter::once(&it.forward).chain(rules.map(|rule| &rule.forward))
    });
    let arns = actions.flat_map(|forward| forward.iter().map(|(arn, _)| arn));
    arns.filter_map(|arn| {
        let group = all.target_groups.get(arn)?;
        let health = fake.edit(|cloud, now| cloud.describe_target_health(now, arn, &[]));
        let targets = health.unwrap_or_default().into_iter();
        let targets = targets.filter(|it| it.state != "draining");
        let targets = targets.map(|it| {
            let there = group.targets.get(&(it.id.clone(), it.port));
            let registered = there.map(|there| there.registered.as_secs_f64());
            json!({"id": it.id, "port": it.port, "state": it.state, "registered": registered})
        });
        Some(json!({
            "name": group.name,
            "port": group.port,
            "targetType": group.target_type,
            "targets": targets.collect::<Vec<_>>(),
        }))
    })
    .collect()
}
