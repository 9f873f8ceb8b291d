//! Checks the signature of a request, AWS's version 4. Source: "Create a signed AWS API request"
//! \[docs\].

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ring::{digest, hmac};

use super::Service;
use super::form::decode;
use crate::state::Refusal;

/// What a client signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The ID of the access key.
    pub access_key: String,
    /// The secret access key.
    pub secret: String,
    /// The token of temporary credentials; a request must have it, too.
    pub session_token: Option<String>,
}

/// A request as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The parts of the header `Authorization`.
#[derive(Debug, PartialEq, Eq)]
struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    headers: &'a str,
    signature: &'a str,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The most by which clocks may differ.
const SKEW: Duration = Duration::from_mins(5);

/// The service that a request is signed for, as far as it says so.
pub(crate) fn service(headers: &HeaderMap) -> Option<Service> {
    Service::of(Authorization::of(headers)?.service)
}

/// Checks a request. Returns the access key.
pub(crate) fn check<'a>(
    service: Service,
    region: &str,
    known: &'a [Credentials],
    now: Timestamp,
    request: Signed<'_>,
) -> Result<&'a Credentials, Refusal> {
    let Some(it) = Authorization::of(request.headers) else {
        return Err(match service {
            Service::Elb => {
                Refusal::new("MissingAuthenticationToken", "Missing Authentication Token")
            }
            Service::Ec2 => Refusal::new(
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
            ),
        }
        .status(403));
    };
    let known = known.iter().find(|one| one.access_key == it.access_key);
    let known = known.ok_or_else(|| unknown_key(service))?;
    if it.region != region {
        let wanted = format!(
            "Credential should be scoped to a valid region, not '{}'.",
            it.region
        );
        return Err(mismatch(service, &wanted));
    }
    if it.service != service.scope() {
        let wanted = format!(
            "Credential should be scoped to correct service: '{}'.",
            service.scope()
        );
        return Err(mismatch(service, &wanted));
    }
    let time = header(request.headers, "x-amz-date").unwrap_or_default();
    let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", &time)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map_err(|_| mismatch(service, "Date must be in ISO-8601 'basic format'."))?
        .timestamp();
    if !time.starts_with(it.date) {
        return Err(mismatch(
            service,
            "Date in Credential scope does not match the date of the request.",
        ));
    }
    if signed_at.duration_since(now).unsigned_abs() > SKEW {
        let message = format!("Signature expired: {time} is too far from {now}");
        return Err(match service {
            Service::Elb => mismatch(service, &message),
            Service::Ec2 => Refusal::new("RequestExpired", message),
        });
    }
    let token = header(request.headers, "x-amz-security-token");
    if token != known.session_token {
        return Err(unknown_key(service));
    }
    let expected = signature(known, &it, &time, request);
    if expected.as_deref() != Some(it.signature) {
        return Err(mismatch(
            service,
            "The request signature we calculated does not match the signature you provided.",
        ));
    }
    Ok(known)
}

fn unknown_key(service: Service) -> Refusal {
    match service {
        Service::Elb => Refusal::new(
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
        .status(403),
        Service::Ec2 => Refusal::new(
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
        .status(401),
    }
}

fn mismatch(service: Service, message: &str) -> Refusal {
    match service {
        Service::Elb => Refusal::new("SignatureDoesNotMatch", message).status(403),
        Service::Ec2 => Refusal::new("AuthFailure", message).status(401),
    }
}

/// The signature that a request should have; `None` if it does not sign what it must.
fn signature(
    known: &Credentials,
    it: &Authorization<'_>,
    time: &str,
    request: Signed<'_>,
) -> Option<String> {
    let mut canonical = format!("{}\n", request.method);
    let _ = writeln!(canonical, "{}", request.uri.path());
    let _ = writeln!(canonical, "{}", canonical_query(request.uri.query())?);
    let names: Vec<&str> = it.headers.split(';').collect();
    let must = ["host", "x-amz-date", "x-amz-security-token"];
    let present = |name: &&&str| request.headers.contains_key(**name);
    let signs_all = must.iter().filter(present).all(|name| names.contains(name));
    if !names.is_sorted() || !signs_all || !names.contains(&"host") {
        return None;
    }
    for name in &names {
        let _ = writeln!(canonical, "{name}:{}", header(request.headers, name)?);
    }
    let hash = hex(digest::digest(&digest::SHA256, request.body).as_ref());
    let stated = header(request.headers, "x-amz-content-sha256");
    if stated.is_some_and(|stated| stated != hash) {
        return None;
    }
    let _ = write!(canonical, "\n{}\n{hash}", it.headers);
    let scope = format!("{}/{}/{}/aws4_request", it.date, it.region, it.service);
    let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{canonical}");
    let mut key = format!("AWS4{}", known.secret).into_bytes();
    for part in [it.date, it.region, it.service, "aws4_request", &text] {
        key = hash_with(&key, part);
    }
    Some(hex(&key))
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

/// The values of a header, with single spaces.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Option<Vec<String>> = headers
        .get_all(name)
        .iter()
        .map(|value| {
            let words = value.to_str().ok()?.split_whitespace();
            Some(words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    values
        .filter(|all| !all.is_empty())
        .map(|all| all.join(","))
}

fn canonical_query(query: Option<&str>) -> Option<String> {
    let pairs = query.unwrap_or_default().split('&');
    let mut pairs: Vec<(String, String)> = pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((encode(&decode(key)?), encode(&decode(value)?)))
        })
        .collect::<Option<_>>()?;
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Some(pairs.join("&"))
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

// === impl Authorization ===

impl<'a> Authorization<'a> {
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let text = headers.get("authorization")?.to_str().ok()?;
        let text = text.strip_prefix(ALGORITHM)?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in text.split(',') {
            match part.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => headers = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        let parts: Vec<&str> = credential?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = parts[..] else {
            return None;
        };
        Some(Self {
            access_key,
            date,
            region,
            service,
            headers: headers?,
            signature: signature?,
        })
    }
}

#[cfg(test)]
mod tests;
