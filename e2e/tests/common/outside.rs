//! Services whose server is on a host that is not a node: no failure of a node takes an endpoint
//! with it. The server is that of [`Lab::serve`].

use anyhow::Result;
use ballast_e2e::failover::bed::endpoint_slice;
use ballast_e2e::segment::SERVER_PORT;
use ballast_e2e::{Host, Lab};
use serde_json::{Value, json};

/// Starts the server of [`service`] on a guest.
pub(crate) async fn serve(lab: &Lab, guest: u8) -> Result<Host> {
    let host = lab.add_guest(guest).await?;
    lab.serve(host, None).await?;
    Ok(host)
}

/// A load balancer on port 80 without a selector, and its `EndpointSlice`s, as documents of YAML.
/// `spec` is added to the Service's.
pub(crate) fn service(name: &str, families: &[&str], server: Host, spec: &Value) -> String {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": families,
            "ipFamilyPolicy": if families.len() == 1 { "SingleStack" } else { "RequireDualStack" },
            "ports": [{"name": "echo", "port": 80, "targetPort": SERVER_PORT}],
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    let mut all = vec![service.to_string()];
    for family in families {
        let address = match *family {
            "IPv4" => server.v4().to_string(),
            _ => server.v6().to_string(),
        };
        let endpoint = json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
        });
        let slice = endpoint_slice(name, family, &[endpoint]);
        all.push(slice.to_string());
    }
    all.join("\n---\n") + "\n---\n"
}
