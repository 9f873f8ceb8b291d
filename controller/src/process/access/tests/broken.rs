//! Files that a kubeconfig names and that cannot be used. Each message names the kubeconfig,
//! its entries, the server and the file, and each cause once.

use super::*;

const GONE: &str = "No such file or directory (os error 2)";

/// The files of a kubeconfig, each of them valid.
struct Folder {
    folder: tempfile::TempDir,
    server: Server,
}

impl Folder {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start("200 OK", EMPTY).await;
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let it = Self { folder, server };
        it.write("ca.crt", &it.server.authority);
        it.write("me.crt", &certificate.pem());
        it.write("me.key", &key.serialize_pem());
        it.write("token", "secret\n");
        it.write("empty", "");
        it.write("half.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
        let certificate = |content: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
        };
        it.write("base64.pem", &certificate("!!!!"));
        it.write("der.pem", &certificate("AAAA"));
        it.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        it.write("two-lines", "a\nb");
        it
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// The number of Services that the user with these fields finds, or the text of the error.
    async fn services(&self, cluster: &Value, user: &Value) -> Result<usize, String> {
        let server = format!("https://{}", self.server.address);
        let mut fields = json!({"server": server, "certificate-authority": "ca.crt"});
        let more = cluster.as_object().cloned().unwrap_or_default();
        fields.as_object_mut().unwrap().extend(more);
        let kubeconfig = json!({
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "lab", "user": "me"}}],
            "clusters": [{"name": "lab", "cluster": fields}],
            "users": [{"name": "me", "user": user}],
        });
        self.write("config", &kubeconfig.to_string());
        let files = Files::read(&Chosen::File(self.folder.path().join("config"))).unwrap();
        let access = of_kubeconfig(&files, None, &Environment::default());
        let client = access.and_then(Access::client).map_err(|it| causes(&it))?;
        let list = Api::<Service>::all(client)
            .list(&ListParams::default())
            .await;
        list.map(|it| it.items.len()).map_err(|it| causes(&it))
    }

    /// A user with a plugin that is this script.
    fn plugin(&self, script: &str) -> Value {
        use std::os::unix::fs::PermissionsExt as _;
        self.write("plugin", &format!("#!/bin/sh\n{script}\n"));
        let path = self.folder.path().join("plugin");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never",
            "env": [{"name": "PASSWORD", "value": "secret-1"}], "installHint": "apt-get install plugin",
        }})
    }

    /// `DIR` in the text is the folder.
    async fn check(&self, cluster: &Value, user: &Value, says: &str) {
        let told = self.services(cluster, user).await.unwrap_err();
        let folder = self.folder.path().display().to_string();
        let says = says.replace("DIR", &folder);
        assert!(told.contains(&says), "{told:?} says not {says:?}");
        let start =
            format!("cannot use the kubeconfig {folder}/config (context here, cluster lab, ");
        assert!(told.starts_with(&start), "{told}");
        let server = format!("server https://{})", self.server.address);
        assert!(told.contains(&server), "{told}");
        assert!(!told.contains("secret-1"), "{told}");
        let parts: Vec<&str> = told.split(": ").collect();
        for part in &parts {
            assert_eq!(parts.iter().filter(|it| *it == part).count(), 1, "{told}");
        }
    }

    async fn check_user(&self, user: &Value, says: &str) {
        self.check(&Value::Null, user, says).await;
    }
}

#[tokio::test]
async fn what_a_kubeconfig_names_is_used() {
    let folder = Folder::new().await;
    let identity = json!({"client-certificate": "me.crt", "client-key": "me.key"});
    let credential = r#"{"kind": "ExecCredential", "status": {"token": "t"}}"#;
    let empty = json!({"proxy-url": "", "certificate-authority-data": ""});
    for (cluster, user) in [
        (json!({}), json!({"tokenFile": "token"})),
        (json!({}), identity),
        (json!({}), folder.plugin(&format!("echo '{credential}'"))),
        (empty, json!({"token": ""})),
    ] {
        assert_eq!(folder.services(&cluster, &user).await, Ok(0), "{user}");
    }
}

#[tokio::test]
async fn a_certificate_authority_is_named() {
    let folder = Folder::new().await;
    for (file, says) in [
        (
            "gone",
            format!("cannot read certificate-authority DIR/gone: {GONE}"),
        ),
        (
            ".",
            "cannot read certificate-authority DIR/.: Is a directory".to_owned(),
        ),
        (
            "empty",
            "certificate-authority DIR/empty contains no certificate in PEM format".to_owned(),
        ),
        (
            "me.key",
            "certificate-authority DIR/me.key contains no certificate in PEM format".to_owned(),
        ),
        (
            "half.pem",
            "certificate-authority DIR/half.pem is not valid PEM: ".to_owned(),
        ),
        (
            "base64.pem",
            "certificate-authority DIR/base64.pem is not valid PEM: ".to_owned(),
        ),
        (
            "der.pem",
            "cannot use certificate-authority DIR/der.pem: failed to add a root certificate: "
                .to_owned(),
        ),
    ] {
        let cluster = json!({"certificate-authority": file});
        folder.check(&cluster, &Value::Null, &says).await;
    }
    for (field, value, says) in [
        (
            "certificate-authority-data",
            "AAAA",
            "certificate-authority-data contains no certificate",
        ),
        (
            "certificate-authority-data",
            "?",
            "certificate-authority-data is not valid Base64",
        ),
        ("tls-server-name", "a b", "cannot use tls-server-name a b: "),
    ] {
        folder
            .check(&json!({ field: value }), &Value::Null, says)
            .await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_named() {
    let folder = Folder::new().await;
    for (certificate, key, says) in [
        (
            "gone",
            "me.key",
            format!("cannot read client-certificate DIR/gone: {GONE}"),
        ),
        (
            "me.crt",
            "gone",
            format!("cannot read client-key DIR/gone: {GONE}"),
        ),
        (
            "empty",
            "me.key",
            "client-certificate DIR/empty contains no certificate in PEM format".to_owned(),
        ),
        (
            "base64.pem",
            "me.key",
            "client-certificate DIR/base64.pem is not valid PEM: ".to_owned(),
        ),
        (
            "me.crt",
            "empty",
            "client-key DIR/empty contains no private key".to_owned(),
        ),
        (
            "me.crt",
            "me.crt",
            "client-key DIR/me.crt contains no private key".to_owned(),
        ),
        (
            "me.crt",
            "other.key",
            "cannot use client-certificate DIR/me.crt and client-key DIR/other.key: ".to_owned(),
        ),
        (
            "der.pem",
            "me.key",
            "cannot use client-certificate DIR/der.pem and client-key DIR/me.key: ".to_owned(),
        ),
        (
            "",
            "me.key",
            "the user has a client-key and no client-certificate".to_owned(),
        ),
        (
            "me.crt",
            "",
            "the user has a client-certificate and no client-key".to_owned(),
        ),
    ] {
        let user = json!({"client-certificate": certificate, "client-key": key});
        folder.check_user(&user, &says).await;
    }
    let user = json!({"client-certificate": "me.crt", "client-key-data": "?"});
    folder
        .check_user(&user, "client-key-data is not valid Base64")
        .await;
}

#[tokio::test]
async fn a_token_and_a_plugin_are_named() {
    let folder = Folder::new().await;
    for (user, says) in [
        (
            json!({"tokenFile": "gone"}),
            format!("cannot read tokenFile DIR/gone: {GONE}"),
        ),
        (
            json!({"tokenFile": "empty"}),
            "tokenFile DIR/empty does not contain a token".to_owned(),
        ),
        (
            json!({"tokenFile": "two-lines"}),
            "tokenFile DIR/two-lines does not contain a token".to_owned(),
        ),
        (
            json!({"token": "secret-1\n"}),
            "the user's token contains a line break".to_owned(),
        ),
        (
            json!({"auth-provider": {"name": "oidc", "config": {"id-token": "secret-1\n"}}}),
            "the user's id-token contains a line break".to_owned(),
        ),
        (
            json!({"auth-provider": {"name": "oidc", "config": {}}}),
            "the auth-provider oidc is not supported; use a credential plugin (exec)".to_owned(),
        ),
        (
            json!({"auth-provider": {"name": "gcp", "config": {"access-token": "secret-1"}}}),
            "the auth-provider gcp is not supported; use a credential plugin (exec)".to_owned(),
        ),
        (
            json!({"exec": {"args": []}}),
            "cannot use the credentials of user me: ".to_owned(),
        ),
        (
            json!({"exec": {"command": "no-such-plugin"}}),
            format!("the credential plugin no-such-plugin does not start: {GONE}"),
        ),
        (
            json!({"exec": {"command": "./gone", "installHint": "apt-get install plugin"}}),
            format!(
                "the credential plugin DIR/./gone does not start (apt-get install plugin): {GONE}"
            ),
        ),
    ] {
        folder.check_user(&user, &says).await;
    }
    // The same file, so one after the other.
    let nothing = "did not print an ExecCredential with credentials";
    for (script, says) in [
        ("echo ohno >&2; exit 7", "failed with exit status: 7: ohno"),
        ("exit 1", "failed with exit status: 1"),
        ("echo secret-1", nothing),
        ("echo '{}'", nothing),
    ] {
        let says = format!("the credential plugin DIR/./plugin {says}");
        folder.check_user(&folder.plugin(script), &says).await;
    }
}
