use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::client::http::Http;

fn ec2() -> Ec2 {
    let http = Http::new(|_| None).unwrap();
    Ec2::new("http://127.0.0.1:1/", "eu-west-1", http.connector())
}

/// The service, the region and the time are part of the signature, and the token of temporary
/// credentials is signed.
#[tokio::test]
async fn a_signed_request() {
    let token = Some("token".to_owned());
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", token, None, "test");
    let query = Query::new(Action::DescribeSubnets);
    let now = UNIX_EPOCH + Duration::from_secs(1_764_160_000);
    let request = ec2().request(credentials, &query, now).unwrap();
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "http://127.0.0.1:1/");
    let body = request.body().bytes().unwrap();
    assert_eq!(body, b"Action=DescribeSubnets&Version=2016-11-15");
    let headers: BTreeMap<_, _> = request.headers().iter().collect();
    let (_, signature) = headers["authorization"].rsplit_once('=').unwrap();
    assert_eq!(signature.len(), 64);
    let signed = headers["authorization"].replace(signature, "…");
    assert_eq!(
        signed,
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251126/eu-west-1/ec2/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=…"
    );
    assert_eq!(headers["x-amz-security-token"], "token");
    assert!(headers["user-agent"].starts_with("ballast/"));
}

#[test]
fn a_filter_with_many_values_takes_several_calls() {
    let ids = |from: usize, to: usize| (from..to).map(|id| format!("i-{id}"));
    let vpc = Filter::new("vpc-id", ["vpc-1"]);
    let chunks = chunks(&[vpc.clone(), Filter::new("instance-id", ids(0, 450))]);
    let expected = [(0, 200), (200, 400), (400, 450)]
        .map(|(from, to)| vec![vpc.clone(), Filter::new("instance-id", ids(from, to))]);
    assert_eq!(chunks, expected);
    assert_eq!(super::chunks(&[]), [Vec::new()], "everything, in one call");
}
