//! Calls to EC2: a small client of its Query API, because the SDK's crate for EC2 takes ten
//! minutes and nine gigabytes to compile. It signs with the credentials, and sends through the
//! connections, of the SDK. Encoding ([`query`]) and decoding ([`decode`]) are pure.
//!
//! Reads are complete: all pages, and any number of filter values. They name objects only by
//! filters, so an object that does not exist is absent from the answer, not an error.

use std::collections::BTreeSet;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError};

use super::actions::Action;
use super::error::{CallError, Fault};
use super::values::{Filter, Instance, PrefixList, RouteTable, SecurityGroup, Subnet, Tags};
use super::{Answered, Client, Manner, USER_AGENT};
use crate::desired::Rule;

mod decode;
mod query;
mod xml;

use self::decode::Page;
use self::query::{MOST_VALUES, Query};

/// More pages than any region has: an answer that always names a next page must not run forever.
const MOST_PAGES: usize = 1_000;

/// Reads one page.
type Decode<T> = fn(&[u8]) -> Result<Page<T>, String>;

/// Signs and sends.
#[derive(Debug)]
pub(super) struct Ec2 {
    /// With scheme, without a path.
    endpoint: String,
    region: String,
    connector: SharedHttpConnector,
}

// === impl Ec2 ===

impl Ec2 {
    pub(super) fn new(endpoint: &str, region: &str, connector: SharedHttpConnector) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            region: region.to_owned(),
            connector,
        }
    }

    /// Sends one request. Returns the body of the answer.
    async fn send(&self, credentials: &Credentials, query: &Query) -> Result<Vec<u8>, Fault> {
        let request = self.request(credentials.clone(), query, SystemTime::now());
        let request = request.map_err(Fault::unsent)?;
        let answer =
            (self.connector.call(request).await).map_err(|error| Fault::unanswered(&error))?;
        let status = answer.status();
        let header = answer.headers().get("x-amzn-requestid").map(str::to_owned);
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| Fault {
            request: header.clone(),
            ..if error.is::<LengthLimitError>() {
                Fault::unreadable(error)
            } else {
                Fault::unanswered(error.as_ref())
            }
        })?;
        let body = body.to_bytes().to_vec();
        if status.is_success() {
            return Ok(body);
        }
        let failure = decode::failure(&body);
        Err(Fault {
            code: failure.code,
            message: failure.message,
            request: failure.request.or(header),
            status: Some(status.as_u16()),
        })
    }

    /// The signed request.
    fn request(
        &self,
        credentials: Credentials,
        query: &Query,
        now: SystemTime,
    ) -> Result<HttpRequest, String> {
        let uri = format!("{}/", self.endpoint);
        let body = query.encode();
        let headers = [
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("user-agent", USER_AGENT),
        ];
        let text = |error: &dyn std::error::Error| error.to_string();
        let identity = Identity::from(credentials);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ec2")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| text(&error))?
            .into();
        let signable = SignableRequest::new(
            "POST",
            uri.as_str(),
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signable = signable.map_err(|error| text(&error))?;
        let signed = sign(signable, &params).map_err(|error| text(&error))?;
        let (instructions, _) = signed.into_parts();
        let mut request = http::Request::post(&uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(SdkBody::from(body));
        let mut request = request.map_err(|error| text(&error))?;
        instructions.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|error| text(&error))
    }
}

// === impl Client: reads ===

impl Client {
    /// Subnets.
    pub async fn subnets(
        &self,
        filters: &[Filter],
        manner: Manner,
    ) -> Result<Vec<Subnet>, CallError> {
        self.pages(Action::DescribeSubnets, filters, manner, decode::subnets)
            .await
    }

    /// Route tables.
    pub async fn route_tables(
        &self,
        filters: &[Filter],
        manner: Manner,
    ) -> Result<Vec<RouteTable>, CallError> {
        self.pages(
            Action::DescribeRouteTables,
            filters,
            manner,
            decode::route_tables,
        )
        .await
    }

    /// Instances. Those that have ended stay visible for about an hour.
    pub async fn instances(
        &self,
        filters: &[Filter],
        manner: Manner,
    ) -> Result<Vec<Instance>, CallError> {
        self.pages(
            Action::DescribeInstances,
            filters,
            manner,
            decode::instances,
        )
        .await
    }

    /// Security groups with their rules for incoming traffic.
    pub async fn security_groups(
        &self,
        filters: &[Filter],
        manner: Manner,
    ) -> Result<Vec<SecurityGroup>, CallError> {
        self.pages(
            Action::DescribeSecurityGroups,
            filters,
            manner,
            decode::security_groups,
        )
        .await
    }

    /// Prefix lists, AWS's own among them.
    pub async fn prefix_lists(
        &self,
        filters: &[Filter],
        manner: Manner,
    ) -> Result<Vec<PrefixList>, CallError> {
        self.pages(
            Action::DescribeManagedPrefixLists,
            filters,
            manner,
            decode::prefix_lists,
        )
        .await
    }

    /// All pages of a read, for any number of filter values.
    async fn pages<T>(
        &self,
        action: Action,
        filters: &[Filter],
        manner: Manner,
        decode: Decode<T>,
    ) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        for filters in chunks(filters) {
            let query = Query::new(action).filters(&filters);
            let query = query.with("MaxResults", page(action));
            let mut next: Option<String> = None;
            for _ in 0..MOST_PAGES {
                let query = match &next {
                    Some(token) => query.clone().with("NextToken", token),
                    None => query.clone(),
                };
                let mut page = self.ask(action, &query, manner, decode).await?;
                all.append(&mut page.items);
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn ask<T>(
        &self,
        action: Action,
        query: &Query,
        manner: Manner,
        decode: Decode<T>,
    ) -> Result<Page<T>, CallError> {
        self.perform(action, manner, |credentials| {
            Box::pin(async move {
                let body = self.ec2().send(&credentials, query).await?;
                let page = decode(&body).map_err(Fault::unreadable)?;
                Ok(Answered {
                    request: page.request.clone(),
                    value: page,
                })
            })
        })
        .await
    }
}

// === impl Client: writes ===

impl Client {
    /// Creates a security group without rules for incoming traffic. Returns its ID.
    pub async fn create_security_group(
        &self,
        name: &str,
        description: &str,
        vpc: &str,
        tags: &Tags,
        manner: Manner,
    ) -> Result<String, CallError> {
        let action = Action::CreateSecurityGroup;
        let query = Query::new(action)
            .with("GroupName", name)
            .with("GroupDescription", description)
            .with("VpcId", vpc)
            .tagged("security-group", tags);
        self.perform(action, manner, |credentials| {
            let query = &query;
            Box::pin(async move {
                let body = self.ec2().send(&credentials, query).await?;
                let (id, request) = decode::done(&body, "groupId").map_err(Fault::unreadable)?;
                let value = id.ok_or_else(|| Fault::unreadable("no groupId"))?;
                Ok(Answered { value, request })
            })
        })
        .await
    }

    /// Adds rules for incoming traffic. Fails with [`super::Cause::Duplicate`], and adds none, if
    /// one of them is there.
    pub async fn authorize_ingress(
        &self,
        group: &str,
        rules: &BTreeSet<Rule>,
        manner: Manner,
    ) -> Result<(), CallError> {
        let action = Action::AuthorizeSecurityGroupIngress;
        let query = Query::new(action).with("GroupId", group).permissions(rules);
        self.write(action, &query, manner).await
    }

    /// Removes rules for incoming traffic.
    pub async fn revoke_ingress(
        &self,
        group: &str,
        rules: &BTreeSet<Rule>,
        manner: Manner,
    ) -> Result<(), CallError> {
        let action = Action::RevokeSecurityGroupIngress;
        let query = Query::new(action).with("GroupId", group).permissions(rules);
        self.write(action, &query, manner).await
    }

    /// Deletes a security group. Fails with [`super::Cause::InUse`] while anything uses it.
    pub async fn delete_security_group(
        &self,
        group: &str,
        manner: Manner,
    ) -> Result<(), CallError> {
        let action = Action::DeleteSecurityGroup;
        let query = Query::new(action).with("GroupId", group);
        self.write(action, &query, manner).await
    }

    /// Sets tags of objects of EC2, by ID.
    pub async fn create_tags(
        &self,
        of: &[String],
        tags: &Tags,
        manner: Manner,
    ) -> Result<(), CallError> {
        let action = Action::CreateTags;
        let query = Query::new(action)
            .list("ResourceId", of.iter().cloned())
            .tags("Tag", tags);
        self.write(action, &query, manner).await
    }

    /// Removes tags of objects of EC2, by ID, whatever their values are.
    pub async fn delete_tags(
        &self,
        of: &[String],
        keys: &[String],
        manner: Manner,
    ) -> Result<(), CallError> {
        let action = Action::DeleteTags;
        let mut query = Query::new(action).list("ResourceId", of.iter().cloned());
        for (at, key) in (1..).zip(keys) {
            query = query.with(&format!("Tag.{at}.Key"), key);
        }
        self.write(action, &query, manner).await
    }

    async fn write(&self, action: Action, query: &Query, manner: Manner) -> Result<(), CallError> {
        self.perform(action, manner, |credentials| {
            Box::pin(async move {
                let body = self.ec2().send(&credentials, query).await?;
                let (answer, request) = decode::done(&body, "return").map_err(Fault::unreadable)?;
                match answer.as_deref() {
                    Some("false") => Err(Fault::unreadable("EC2 has not done it")),
                    _ => Ok(Answered { value: (), request }),
                }
            })
        })
        .await
    }
}

/// The objects on one page. An instance has about 8 KB.
const fn page(action: Action) -> &'static str {
    match action {
        // The most that EC2 permits for these.
        Action::DescribeRouteTables | Action::DescribeManagedPrefixLists => "100",
        _ => "200",
    }
}

/// The same filters with at most [`MOST_VALUES`] values each: for as many calls as it takes. Only
/// one filter of a read has many values.
fn chunks(filters: &[Filter]) -> Vec<Vec<Filter>> {
    let long = filters
        .iter()
        .position(|one| one.values.len() > MOST_VALUES);
    let Some((at, long)) = long.and_then(|at| Some((at, filters.get(at)?))) else {
        return vec![filters.to_vec()];
    };
    let chunks = long.values.chunks(MOST_VALUES).map(|values| {
        let mut some = filters.to_vec();
        if let Some(filter) = some.get_mut(at) {
            filter.values = values.to_vec();
        }
        some
    });
    chunks.flat_map(|some| self::chunks(&some)).collect()
}

#[cfg(test)]
mod tests;
