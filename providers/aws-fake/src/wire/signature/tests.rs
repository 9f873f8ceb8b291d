use http::{HeaderName, HeaderValue};

use super::*;

/// The credentials of AWS's test suite for signatures of version 4.
fn suite() -> Credentials {
    Credentials {
        access_key: "AKIDEXAMPLE".into(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        session_token: None,
    }
}

fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
    all.iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        })
        .collect()
}

fn sign(
    method: &Method,
    uri: &str,
    signed: &str,
    extra: &[(&'static str, &str)],
    body: &str,
) -> String {
    let mut all = headers(&[
        ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ]);
    all.extend(headers(extra));
    let uri: Uri = uri.parse().unwrap();
    let it = Authorization {
        access_key: "AKIDEXAMPLE",
        date: "20150830",
        region: "us-east-1",
        service: "service",
        headers: signed,
        signature: "",
    };
    let request = Signed {
        method,
        uri: &uri,
        headers: &all,
        body: body.as_bytes(),
    };
    signature(&suite(), &it, "20150830T123600Z", request).unwrap()
}

/// AWS's published test suite: get-vanilla, get-vanilla-query-order-key-case, post-vanilla,
/// post-x-www-form-urlencoded, and get-header-value-trim.
#[test]
fn published_vectors() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let trimmed = [("my-header1", "value1"), ("my-header2", "\"a   b   c\"")];
    let table = [
        (
            Method::GET,
            "/",
            "host;x-amz-date",
            &[][..],
            "",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            Method::GET,
            "/?Param2=value2&Param1=value1",
            "host;x-amz-date",
            &[],
            "",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            Method::POST,
            "/",
            "host;x-amz-date",
            &[],
            "",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            Method::POST,
            "/",
            "content-type;host;x-amz-date",
            &form,
            "Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            Method::GET,
            "/",
            "host;my-header1;my-header2;x-amz-date",
            &trimmed,
            "",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
    ];
    for (method, uri, signed, extra, body, expected) in table {
        assert_eq!(
            sign(&method, uri, signed, extra, body),
            expected,
            "{uri} {signed}"
        );
    }
}
