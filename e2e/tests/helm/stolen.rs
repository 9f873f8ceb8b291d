//! What a token that was taken from an announcer's pod can write: the Announcer and the Lease of
//! its node, and nothing of other nodes, even if its role allowed that. And what follows from what
//! it writes there: nothing.

use anyhow::{Context, Result, bail, ensure};
use ballast_crds::Announcer;
use ballast_e2e::{Host, eventually};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::cluster::{Cluster, Release, SOON};
use super::kernel;

const ANNOUNCERS: &str = "/apis/ballast.dev/v1alpha1/announcers";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
/// Where the pod has its token.
const TOKEN: &str = "root/var/run/secrets/kubernetes.io/serviceaccount/token";
/// A right to everything that the policy is about, so that the policy alone decides.
const EVERYTHING: &str = "
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: more-than-the-chart}, rules: [
  {apiGroups: [ballast.dev], resources: [announcers, announcers/status], verbs: ['*']},
  {apiGroups: [coordination.k8s.io], resources: [leases], verbs: ['*']}]}
";

/// Connects as a client that does not know the MAC address of an address, and prints it.
const MAC: &str = "ip neigh flush to $0 && curl -gsSf -m 5 -o /dev/null http://$0/hostname && \
    ip neigh show to $0 | grep -o 'lladdr [0-9a-f:]*'";
/// How often the thief writes. The node corrects its object meanwhile.
const FORGERIES: u32 = 20;

/// A request that would change something; it is never carried out (`dryRun`).
struct Write {
    what: String,
    method: Method,
    path: String,
    content: &'static str,
    body: Value,
}

/// With the token of one node's announcer, and with one that belongs to no pod.
pub(crate) async fn a_token_writes_what_is_its_nodes(cluster: &Cluster, of: Release) -> Result<()> {
    let lab = &cluster.lab;
    let account = format!("system:serviceaccount:{}:ballast-announcer", of.namespace);
    lab.apply(EVERYTHING).await?;
    let bind = [
        "create",
        "clusterrolebinding",
        "more-than-the-chart",
        "--clusterrole=more-than-the-chart",
        &format!("--serviceaccount={}:ballast-announcer", of.namespace),
    ];
    lab.kubectl(&bind).await?;
    let may = ["auth", "can-i", "delete", "leases", "--as", &account];
    eventually(SOON, || lab.kubectl(&may)).await?;

    let pods = cluster.pods(of, "announcer").await?;
    let mut nodes = vec![];
    for pod in &pods {
        nodes.push(node(pod)?);
    }
    let [mine, theirs] = nodes[..] else {
        bail!("announcers on {nodes:?}");
    };
    let thief = lab.kube_with_token(&token(&pods[0])?).await?;
    let all = Writes { cluster, of };
    for write in all.of_node(mine).await? {
        let said = refused(cluster, &thief, &write).await?;
        ensure!(said.is_none(), "{} of its node: {said:?}", write.what);
    }
    let mut others = all.of_node(theirs).await?;
    others.extend(all.of_nobody().await?);
    ensure!(others.len() >= 15, "only {} writes", others.len());
    for write in &others {
        let said = refused(cluster, &thief, write).await?;
        let words = format!("the announcer of node {mine} may write only ");
        let by_policy = said.as_ref().is_some_and(|it| it.contains(&words));
        ensure!(by_policy, "{} of {theirs}: {said:?}", write.what);
    }
    let nobody = lab
        .token_of_service_account(of.namespace, "ballast-announcer")
        .await?;
    let nobody = lab.kube_with_token(&nobody).await?;
    others.extend(all.of_node(mine).await?);
    for write in &others {
        let said = refused(cluster, &nobody, write).await?;
        let by_policy = said.as_ref().is_some_and(|it| it.contains("names no node"));
        ensure!(by_policy, "{} without a node: {said:?}", write.what);
    }
    println!("{} writes with two tokens", others.len());
    for kind in ["clusterrolebinding", "clusterrole"] {
        lab.kubectl(&["delete", kind, "more-than-the-chart"])
            .await?;
    }
    Ok(())
}

/// The announcer of a node that does not hold the address says that it holds every address, with
/// the highest epoch and an interface of the thief. The clients of the address notice nothing,
/// no holding changes, and the other announcers say which object they ignore.
pub(crate) async fn a_token_takes_no_address(
    cluster: &Cluster,
    of: Release,
    address: &str,
) -> Result<()> {
    let lab = &cluster.lab;
    let before = holdings(cluster).await?;
    let (holder, _) = before
        .iter()
        .find(|(_, held)| held.starts_with(&format!("{address} ")))
        .context("nobody holds the address")?;
    let pods = cluster.pods(of, "announcer").await?;
    let thief = pods
        .iter()
        .find(|pod| node(pod).is_ok_and(|it| it != holder));
    let thief = thief.context("all pods are on the node with the address")?;
    let mine = node(thief)?;
    let client = lab.kube_with_token(&token(thief)?).await?;
    reads_no_secret(cluster, of).await?;

    let mac = async || {
        let shown = lab.exec(Host::Client, ["bash", "-c", MAC, address]).await?;
        shown.ok()
    };
    let owner = mac().await?;
    let path = format!("{ANNOUNCERS}/{mine}");
    let now: Value = lab
        .kube()
        .request(Request::get(&path).body(vec![])?)
        .await?;
    let held = before.iter().map(|(_, held)| held);
    let all: Vec<Value> = held
        .filter_map(|held| held.split(' ').next())
        .map(|address| {
            json!({"address": address, "epoch": i64::MAX, "revision": 0, "interface": "eth0",
                "mac": "02:00:00:00:00:66"})
        })
        .collect();
    let apply = format!("{path}/status?fieldManager=ballast-announcer&force=true");
    for round in 0..FORGERIES {
        let mut status = now["status"].clone();
        status["holdings"] = json!(all);
        status["serial"] = json!(i64::MAX);
        if round % 2 == 0 {
            status.as_object_mut().context("a status")?.remove("seals");
        }
        let body = json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "Announcer",
            "metadata": {"name": mine}, "status": status,
        });
        let request = Request::patch(&apply)
            .header("content-type", APPLY)
            .body(body.to_string().into_bytes())?;
        client.request::<Value>(request).await?;
        let now = mac().await?;
        ensure!(
            now == owner,
            "round {round}: {address} is at {now}, before at {owner}"
        );
    }
    eventually(SOON, || async {
        let now = holdings(cluster).await?;
        ensure!(now == before, "{before:?} became {now:?}");
        Ok(())
    })
    .await?;
    let api: Api<Announcer> = Api::all(lab.kube());
    for object in api.list(&ListParams::default()).await?.items {
        let status = object.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        let said = conditions.find(|it| it.type_ == "UntrustedAnnouncer");
        let says = |it: &Condition| it.status == "True" && it.message.contains(mine);
        let named = status.problems.untrusted.iter().any(|it| it.0 == mine);
        ensure!(
            said.is_some_and(says) && named,
            "{:?} does not name {mine}: {said:?}",
            object.metadata.name
        );
    }
    println!("{FORGERIES} forged statuses of {mine}: {address} stayed on {holder}");
    Ok(())
}

/// The key is in a Secret. Asked, not tried: the audit log is what shows which rights are used.
async fn reads_no_secret(cluster: &Cluster, of: Release) -> Result<()> {
    for verb in ["get", "list", "watch"] {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{}:ballast-announcer", of.namespace),
                "groups": ["system:authenticated", "system:serviceaccounts",
                    format!("system:serviceaccounts:{}", of.namespace)],
                "resourceAttributes": {"verb": verb, "resource": "secrets",
                    "namespace": of.namespace, "name": "ballast-gossip-key"},
            },
        });
        let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .header("content-type", JSON)
            .body(review.to_string().into_bytes())?;
        let said: Value = cluster.lab.kube().request(request).await?;
        let allowed = said["status"]["allowed"].as_bool();
        ensure!(allowed == Some(false), "{verb} the key: {said}");
    }
    Ok(())
}

/// What each Announcer says that it holds: the node, and `ADDRESS EPOCH`. Sorted.
async fn holdings(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let api: Api<Announcer> = Api::all(cluster.lab.kube());
    let mut all = vec![];
    for object in api.list(&ListParams::default()).await?.items {
        let name = object.metadata.name.unwrap_or_default();
        let holdings = object.status.unwrap_or_default().holdings;
        let held = holdings
            .iter()
            .map(|it| format!("{} {}", it.address, it.epoch));
        all.extend(held.map(|held| (name.clone(), held)));
    }
    all.sort();
    Ok(all)
}

fn node(pod: &Pod) -> Result<&str> {
    let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
    node.context("a pod without a node")
}

/// As a process of the node with its rights would take it.
fn token(pod: &Pod) -> Result<String> {
    let status = kernel::process(pod).context("no process")?;
    let pid = status.get("Pid").context("no pid")?;
    let path = format!("/proc/{pid}/{TOKEN}");
    std::fs::read_to_string(&path).context(path)
}

/// Why a write is refused, if the API server does not admit it.
async fn refused(cluster: &Cluster, client: &Client, write: &Write) -> Result<Option<String>> {
    eventually(SOON, || async {
        let mut body = write.body.clone();
        if write.method == Method::PUT {
            // Leases are renewed all the time, and of another version none is updated.
            let path = write.path.split('?').next().unwrap_or_default();
            let get = Request::get(path).body(vec![])?;
            let now: Value = cluster.lab.kube().request(get).await?;
            body["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        }
        let request = Request::builder()
            .method(&write.method)
            .uri(&write.path)
            .header("content-type", write.content)
            .body(body.to_string().into_bytes())?;
        match client.request::<Value>(request).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Some(status.message)),
            // Admitted, but it is there already.
            Err(kube::Error::Api(status)) if write.method == Method::POST && status.code == 409 => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| write.what.clone()),
        }
    })
    .await
}

/// Every way to write the objects of a node.
struct Writes<'a> {
    cluster: &'a Cluster,
    of: Release,
}

impl Writes<'_> {
    fn leases(&self) -> String {
        let namespace = self.of.namespace;
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    async fn of_node(&self, node: &str) -> Result<Vec<Write>> {
        let lease = format!("announcer-{node}");
        let mut all = self.of_object(ANNOUNCERS, node, "").await?;
        all.extend(self.of_object(ANNOUNCERS, node, "/status").await?);
        all.extend(self.of_object(&self.leases(), &lease, "").await?);
        Ok(all)
    }

    /// Objects of no node: the Lease of the controller, one that does not exist, all at once.
    async fn of_nobody(&self) -> Result<Vec<Write>> {
        let leases = self.leases();
        let mut all = self.of_object(&leases, "ballast-controller", "").await?;
        for (collection, kind, version) in [
            (ANNOUNCERS, "Announcer", "ballast.dev/v1alpha1"),
            (&leases, "Lease", "coordination.k8s.io/v1"),
        ] {
            let object = |metadata: Value| json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            let create = write("create", &Method::POST, collection, "", JSON);
            all.push(create(object(json!({"name": "announcer-ghost"}))));
            all.push(create(object(json!({"generateName": "announcer-"}))));
            let ghost = format!("{collection}/ghost");
            let more = "&fieldManager=thief&force=true";
            all.push(write("apply", &Method::PATCH, &ghost, more, APPLY)(object(
                json!({"name": "ghost"}),
            )));
            all.push(write("delete all", &Method::DELETE, collection, "", JSON)(
                options(),
            ));
        }
        Ok(all)
    }

    async fn of_object(&self, collection: &str, name: &str, part: &str) -> Result<Vec<Write>> {
        let path = format!("{collection}/{name}");
        let get = Request::get(&path).body(vec![])?;
        let kube = self.cluster.lab.kube();
        let mut now: Value = kube.request(get).await.with_context(|| path.clone())?;
        now["metadata"]["managedFields"].take();
        let path = path + part;
        let identity = json!({
            "apiVersion": now["apiVersion"], "kind": now["kind"], "metadata": {"name": name},
        });
        let change = if part.is_empty() {
            json!({"metadata": {"annotations": {"changed": "yes"}}})
        } else {
            json!({"status": {"interfaces": []}})
        };
        let apply = "&fieldManager=thief&force=true";
        let mut all = vec![
            write("apply", &Method::PATCH, &path, apply, APPLY)(merged(&identity, &change)),
            write("patch", &Method::PATCH, &path, "", MERGE)(change.clone()),
            write("update", &Method::PUT, &path, "", JSON)(now),
        ];
        if part.is_empty() {
            all.push(write("create", &Method::POST, collection, "", JSON)(
                identity,
            ));
            all.push(write("delete", &Method::DELETE, &path, "", JSON)(options()));
        }
        Ok(all)
    }
}

/// The API server ignores `dryRun` of the path of a deletion that has a body.
fn options() -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]})
}

/// A write of this body.
fn write<'a>(
    verb: &'a str,
    method: &'a Method,
    path: &'a str,
    more: &'a str,
    content: &'static str,
) -> impl Fn(Value) -> Write + 'a {
    move |body| Write {
        what: format!("{verb} {path}"),
        method: method.clone(),
        path: format!("{path}?dryRun=All{more}"),
        content,
        body,
    }
}

fn merged(one: &Value, other: &Value) -> Value {
    let mut all = one.clone();
    match (&mut all, other) {
        (Value::Object(all), Value::Object(other)) => {
            for (key, value) in other {
                let before = all.get(key).cloned().unwrap_or(Value::Null);
                all.insert(key.clone(), merged(&before, value));
            }
        }
        (all, other) => *all = other.clone(),
    }
    all
}
