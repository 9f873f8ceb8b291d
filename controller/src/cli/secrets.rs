//! `ballast secrets`: creates the Secrets that Ballast's processes share, each with a random
//! value. A Job of the chart runs it at install and upgrade.
//!
//! It is a separate command so that the controller needs no right to Secrets: whoever may
//! create and read a Secret in a namespace can obtain the token of every `ServiceAccount` there
//! (type `kubernetes.io/service-account-token`). For the same reason this command never reads a
//! Secret; it leaves an existing one unchanged.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::cluster::ClusterArgs;
use super::print;
use super::retry::retry;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Create the token that the controller and the mock cloud share, unless it exists:
  ballast secrets ballast-mock-token -n ballast-system

  # Create the key that announcers share, as `keys` of its Secret:
  ballast secrets ballast-gossip-key:keys -n ballast-system

Exit status:
  0  success
  1  error
  2  invalid usage";

/// Random bytes of a value. The value has twice as many hexadecimal digits.
const BYTES: usize = 32;
/// The key of a value without a key of its own.
const KEY: &str = "token";

/// Flags of `ballast secrets`.
#[derive(Clone, Debug, Args)]
pub struct SecretsArgs {
    /// Names of the Secrets. KEY is the key of the random value; the default is `token`.
    #[arg(required = true, value_name = "NAME[:KEY]", value_parser = wanted)]
    pub secrets: Vec<Wanted>,

    /// Namespace of the Secrets. Default: the namespace of the kubeconfig context or of the pod.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// A Secret, as an argument names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The key of the random value.
    pub key: String,
}

/// The result for one Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Exists,
}

/// Creates each Secret, unless it exists.
pub async fn run(args: SecretsArgs) -> Result<ExitCode> {
    let client = args.cluster.client()?;
    let namespace = args
        .namespace
        .unwrap_or_else(|| client.default_namespace().to_owned());
    for Wanted { name, key } in &args.secrets {
        // One value for all tries: the first request may have succeeded.
        let secret = secret(name, key, &rand::random::<[u8; BYTES]>());
        let outcome = retry(async || create(&client, &namespace, &secret).await).await;
        let outcome =
            outcome.with_context(|| format!("cannot create the Secret {namespace}/{name}"))?;
        print(&format!("Secret {namespace}/{name} {}\n", outcome.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (name, key) = text.split_once(':').unwrap_or((text, KEY));
    if name.is_empty() || key.is_empty() {
        return Err("expected NAME or NAME:KEY".to_owned());
    }
    Ok(Wanted {
        name: name.to_owned(),
        key: key.to_owned(),
    })
}

async fn create(client: &Client, namespace: &str, secret: &Secret) -> kube::Result<Outcome> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), secret).await {
        Ok(_) => Ok(Outcome::Created),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Outcome::Exists),
        Err(error) => Err(error),
    }
}

fn secret(name: &str, key: &str, value: &[u8]) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app.kubernetes.io/part-of".to_owned(), "ballast".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([(key.to_owned(), ByteString(hex(value).into_bytes()))].into()),
        ..Secret::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// === impl Outcome ===

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Exists => "exists; left unchanged",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::response::Response;
    use serde_json::Value;

    use super::*;
    use crate::fixtures::{client, failure, reply};

    /// An API server that stores Secrets by name.
    #[derive(Default)]
    struct Server {
        secrets: Mutex<Vec<Value>>,
        verbs: Mutex<Vec<String>>,
    }

    impl Server {
        fn client(self: &Arc<Self>) -> Client {
            let server = Arc::clone(self);
            client(move |parts, body| {
                let answer = server.answer(&parts, &body);
                async move { answer }
            })
        }

        fn answer(&self, parts: &http::request::Parts, body: &Value) -> Response {
            let path = parts.uri.path().to_owned();
            assert!(
                path.starts_with("/api/v1/namespaces/shop/secrets"),
                "{path}"
            );
            self.verbs.lock().unwrap().push(parts.method.to_string());
            let mut secrets = self.secrets.lock().unwrap();
            let name = &body["metadata"]["name"];
            let exists = secrets.iter().any(|it| it["metadata"]["name"] == *name);
            match (parts.method.as_str(), exists) {
                ("POST", true) => failure(409),
                ("POST", false) => {
                    secrets.push(body.clone());
                    reply(201, body)
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn created(server: &Arc<Server>, value: &[u8]) -> kube::Result<Outcome> {
        let (client, secret) = (server.client(), secret("mock-token", "token", value));
        retry(async || create(&client, "shop", &secret).await).await
    }

    #[tokio::test]
    async fn a_secret_is_created_once_and_never_read() {
        let server = Arc::new(Server::default());
        assert_eq!(
            created(&server, &[0xab; BYTES]).await.unwrap(),
            Outcome::Created
        );
        assert_eq!(
            created(&server, &[0xcd; BYTES]).await.unwrap(),
            Outcome::Exists
        );
        let found: Secret =
            serde_json::from_value(server.secrets.lock().unwrap()[0].clone()).unwrap();
        let token = &found.data.unwrap()["token"].0;
        assert_eq!(std::str::from_utf8(token).unwrap(), "ab".repeat(BYTES));
        assert_eq!(found.type_.as_deref(), Some("Opaque"));
        let verbs = server.verbs.lock().unwrap().clone();
        assert_eq!(verbs, ["POST", "POST"]);
    }

    #[test]
    fn an_argument_names_the_secret_and_the_key_of_its_value() {
        for (text, expected) in [
            ("mock-token", Ok(("mock-token", "token"))),
            ("gossip-key:keys", Ok(("gossip-key", "keys"))),
            ("", Err(())),
            (":keys", Err(())),
            ("gossip-key:", Err(())),
        ] {
            let found = wanted(text).map_err(drop);
            let expected = expected.map(|(name, key)| Wanted {
                name: name.to_owned(),
                key: key.to_owned(),
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
