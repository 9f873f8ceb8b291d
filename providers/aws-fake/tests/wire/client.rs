//! A client that signs literal requests. It has its own signing code, and shares none with the fake.

use std::fmt::Write as _;

use ballast_aws_fake::{Config, Credentials, Fake};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use ring::{digest, hmac};

/// Everything that a signature depends on.
pub(crate) struct Signer {
    pub(crate) credentials: Credentials,
    pub(crate) region: String,
    pub(crate) service: &'static str,
    pub(crate) time: Timestamp,
}

pub(crate) struct Client {
    pub(crate) fake: Fake,
    http: Http<HttpConnector, Full<Bytes>>,
    /// What was asked and answered.
    pub(crate) transcript: String,
}

pub(crate) const ELB: &str = "elasticloadbalancing";
pub(crate) const EC2: &str = "ec2";

impl Client {
    pub(crate) async fn new(config: Config) -> Self {
        Self {
            fake: Fake::start(config).await.unwrap(),
            http: Http::builder(TokioExecutor::new()).build_http(),
            transcript: String::new(),
        }
    }

    pub(crate) async fn start() -> Self {
        Self::new(Config::default()).await
    }

    pub(crate) fn signer(&self, service: &'static str) -> Signer {
        Signer {
            credentials: self.fake.credentials()[0].clone(),
            region: self.fake.region(),
            service,
            time: Timestamp::now(),
        }
    }

    /// Posts a body. An error means that the connection was closed without an answer.
    pub(crate) async fn send(
        &self,
        signer: &Signer,
        body: &str,
    ) -> Result<(StatusCode, String), hyper_util::client::legacy::Error> {
        self.send_to(&self.fake.url(), signer, body).await
    }

    /// The same to another address.
    pub(crate) async fn send_to(
        &self,
        url: &str,
        signer: &Signer,
        body: &str,
    ) -> Result<(StatusCode, String), hyper_util::client::legacy::Error> {
        let request = signer.sign(url, body);
        let response = self.http.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Calls Elastic Load Balancing.
    pub(crate) async fn elb(&mut self, body: &str) -> String {
        let body = format!("{body}&Version=2015-12-01");
        self.call(ELB, &body).await
    }

    /// Calls EC2.
    pub(crate) async fn ec2(&mut self, body: &str) -> String {
        let body = format!("{body}&Version=2016-11-15");
        self.call(EC2, &body).await
    }

    async fn call(&mut self, service: &'static str, body: &str) -> String {
        let (status, answer) = self.send(&self.signer(service), body).await.unwrap();
        let lines = answer.replace("><", ">\n<");
        let _ = write!(
            self.transcript,
            "POST {}\n{}\n{lines}\n\n",
            body.replace('&', "\n  &"),
            status.as_u16()
        );
        answer
    }
}

impl Signer {
    fn sign(&self, url: &str, body: &str) -> Request<Full<Bytes>> {
        let host = url.trim_start_matches("http://");
        let time = self.time.strftime("%Y%m%dT%H%M%SZ").to_string();
        let date = &time[..8];
        let kind = "application/x-www-form-urlencoded";
        let mut headers = vec![
            ("content-type", kind),
            ("host", host),
            ("x-amz-date", &time),
        ];
        if let Some(token) = &self.credentials.session_token {
            headers.push(("x-amz-security-token", token));
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .fold(String::new(), |mut out, (name, value)| {
                let _ = writeln!(out, "{name}:{value}");
                out
            });
        let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", sha256(body));
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(&canonical));
        let secret = format!("AWS4{}", self.credentials.secret);
        let key = hash_with(secret.as_bytes(), date);
        let key = hash_with(&key, &self.region);
        let key = hash_with(&key, self.service);
        let key = hash_with(&key, "aws4_request");
        let signature = hex(&hash_with(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.credentials.access_key
        );
        let request = headers
            .iter()
            .fold(Request::post(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        request
            .header("authorization", authorization)
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap()
    }
}

fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hash_with(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The text of the first element of this name.
pub(crate) fn text<'a>(xml: &'a str, name: &str) -> &'a str {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let from = xml
        .find(&start)
        .unwrap_or_else(|| panic!("no {name} in {xml}"))
        + start.len();
    let length = xml[from..].find(&end).unwrap();
    &xml[from..from + length]
}

/// The code of an error.
pub(crate) fn code(xml: &str) -> &str {
    text(xml, "Code")
}
