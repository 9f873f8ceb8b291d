//! Where credentials come from: each source of the chain that Ballast uses, as the SDK asks it.
//! The sources are told by environment variables, so the client runs in a process of its own: this
//! test program, which runs [`child`] alone.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use ballast_aws::client::{CallerIdentity, Client, Connection, Endpoints};
use ballast_aws_fake::{Config, Credentials, Fake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::bed::manner;

const KEY: &str = "ASIATEMPORARY";
const SECRET: &str = "temporary/secret";
const TOKEN: &str = "session/token+of=role";

/// A source of credentials: what it answers to the first line of a request, and to all of it.
type Answer = fn(&str, &str) -> Option<String>;

/// The answer of the instance and of the container.
fn json() -> String {
    format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"{KEY}\",\
         \"SecretAccessKey\":\"{SECRET}\",\"Token\":\"{TOKEN}\",\
         \"LastUpdated\":\"2026-11-26T00:00:00Z\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}"
    )
}

/// Serves one request on each connection.
async fn serve(listener: TcpListener, answer: Answer) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4_096];
        // All requests fit into one piece, or their bodies come at once.
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            request.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let name = name.eq_ignore_ascii_case("content-length");
                name.then(|| value.trim().parse::<usize>().unwrap())
            });
            if read == 0 || body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let first = request.lines().next().unwrap_or_default();
        let (status, body) = match answer(first, &request) {
            Some(body) if first.contains("/denied") => ("403 Forbidden", body),
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", String::new()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// A fake that knows only the temporary credentials, and the source that gives them.
async fn bed(answer: Answer) -> (Fake, SocketAddr) {
    let config = Config {
        credentials: vec![Credentials {
            access_key: KEY.into(),
            secret: SECRET.into(),
            session_token: Some(TOKEN.into()),
        }],
        ..Config::default()
    };
    let fake = Fake::start(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, answer));
    (fake, address)
}

/// Runs [`child`] with these variables. Returns what it printed.
async fn run(fake: &Fake, variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--ignored", "--exact", "credentials::child", "--nocapture"])
        .env_clear()
        .env("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", fake.url())
        .env("AWS_ENDPOINT_URL_EC2", fake.url())
        .env("AWS_REGION", fake.region())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn succeeds(fake: &Fake, variables: &[(&str, &str)]) {
    let printed = run(fake, variables).await;
    assert!(printed.contains("subnets: 6, balancers: 0"), "{printed}");
}

#[tokio::test]
#[ignore = "only in a process of its own"]
async fn child() {
    // Without the variables of its parent it is run by hand, and has nothing to do.
    if std::env::var("AWS_ENDPOINT_URL_EC2").is_err() {
        return;
    }
    let client = Client::connect(&Connection::default()).await.unwrap();
    match client.subnets(&[], manner()).await {
        Ok(subnets) => {
            let balancers = client.all_load_balancers(manner()).await.unwrap();
            println!("subnets: {}, balancers: {}", subnets.len(), balancers.len());
        }
        Err(error) => println!("{:?}: {error}", error.cause),
    }
}

#[tokio::test]
async fn the_environment() {
    let (fake, _) = bed(|_, _| None).await;
    let keys = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    succeeds(&fake, &keys).await;
}

#[tokio::test]
async fn a_profile_of_the_shared_files_and_its_endpoints() {
    let (fake, _) = bed(|_, _| None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let text = format!(
        "[team]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n\
         aws_session_token = {TOKEN}\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let profile = [
        ("AWS_PROFILE", "team"),
        ("AWS_SHARED_CREDENTIALS_FILE", file),
    ];
    succeeds(&fake, &profile).await;
}

fn write(folder: &Path, text: &str) -> String {
    let file = folder.join("token");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn eks_pod_identity() {
    let (fake, source) = bed(|first, request| {
        let token = request
            .lines()
            .any(|line| line.eq_ignore_ascii_case("authorization: pod-token"));
        (first.starts_with("GET /v1/credentials ") && token).then(json)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let token = write(folder.path(), "pod-token");
    let uri = format!("http://{source}/v1/credentials");
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.as_str()),
        // Sources of credentials on the node are never asked through a proxy.
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    succeeds(&fake, &variables).await;
}

#[tokio::test]
async fn a_role_for_the_service_account() {
    let (fake, source) = bed(|first, request| {
        let asked = first.starts_with("POST / ")
            && request.contains("Action=AssumeRoleWithWebIdentity")
            && request.contains("WebIdentityToken=account-token")
            && request.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fballast");
        asked.then(|| {
            format!(
                "<AssumeRoleWithWebIdentityResponse \
                 xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>\
                 <SessionToken>{TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/b/s</Arn>\
                 <AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>\
                 </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            )
        })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let token = write(folder.path(), "account-token");
    let sts = format!("http://{source}");
    let variables = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ballast"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ENDPOINT_URL_STS", sts.as_str()),
    ];
    succeeds(&fake, &variables).await;
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed() {
    let (fake, source) = bed(|_, request| {
        // Another ID each time.
        let id = request.len();
        Some(format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
             <Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error>\
             <RequestId>{id}</RequestId></ErrorResponse>"
        ))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let token = write(folder.path(), "account-token");
    let sts = format!("http://{source}/denied");
    let variables = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ballast"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ENDPOINT_URL_STS", sts.as_str()),
    ];
    let printed = run(&fake, &variables).await;
    let expected = "no credentials for AWS: Not authorized to perform \
                    sts:AssumeRoleWithWebIdentity (AccessDenied)\n";
    assert!(printed.contains(expected), "{printed}");
}

#[tokio::test]
async fn the_profile_of_the_instance() {
    let (fake, source) = bed(|first, _| {
        let path = first.split(' ').nth(1)?;
        match path.trim_end_matches('/') {
            "/latest/api/token" => Some("metadata-token".into()),
            path if path.ends_with("/security-credentials")
                || path.ends_with("/security-credentials-extended") =>
            {
                Some("node-role".into())
            }
            path if path.ends_with("/node-role") => Some(json()),
            _ => None,
        }
    })
    .await;
    let endpoint = format!("http://{source}");
    succeeds(&fake, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]).await;
}

#[tokio::test]
async fn no_credentials_at_all() {
    let (fake, _) = bed(|_, _| None).await;
    let printed = run(&fake, &[("AWS_EC2_METADATA_DISABLED", "true")]).await;
    let expected = "Credentials: DescribeSubnets: no credentials for AWS: ";
    assert!(printed.contains(expected), "{printed}");
    assert_eq!(fake.counts().total(), 0);
}

#[tokio::test]
async fn the_region_is_needed() {
    let connection = Connection {
        region: Some(String::new()),
        endpoints: Endpoints::default(),
        identity: CallerIdentity::Fixed {
            key: KEY.into(),
            secret: SECRET.into(),
        },
        ..Connection::default()
    };
    let error = Client::connect(&connection).await.unwrap_err();
    assert!(error.to_string().starts_with("no region"), "{error}");
}
