//! Calls to Elastic Load Balancing through the SDK, in our vocabulary. Writes turn a
//! [`Call`](crate::call::Call) into a request, reads turn answers into [`super::values`]. Both say
//! exactly what they are given; AWS's defaults are never relied on where we have a value.

mod reads;
mod writes;

use aws_sdk_elasticloadbalancingv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_elasticloadbalancingv2::operation::RequestId;
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, Tag};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::Answered;
use super::error::{Fault, innermost};
use super::values::Tags;
use crate::desired::Transport;

pub(super) use self::writes::write;

/// The most names or ARNs of one read.
const CHUNK: usize = 20;
/// The field of a condition that is about the client's address.
const SOURCE_IP: &str = "source-ip";
/// The most objects on a page.
const PAGE: i32 = 400;

/// An answer with its request ID.
fn answered<T>(value: T, output: &impl RequestId) -> Answered<T> {
    Answered {
        value,
        request: output.request_id().map(str::to_owned),
    }
}

/// What the SDK says of a call that failed.
fn fault<E>(error: SdkError<E, HttpResponse>) -> Fault
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let request = error.request_id().map(str::to_owned);
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    match error {
        SdkError::ServiceError(refused) => {
            let meta = refused.err().meta();
            Fault {
                code: meta.code().map(str::to_owned),
                message: meta.message().unwrap_or_default().to_owned(),
                request,
                status,
            }
        }
        SdkError::ConstructionFailure(_) => Fault::unsent(innermost(&error)),
        SdkError::ResponseError(_) => Fault {
            request,
            ..Fault::unreadable(innermost(&error))
        },
        _ => Fault::unanswered(&error),
    }
}

fn tags(tags: &Tags) -> Option<Vec<Tag>> {
    let all = tags.iter();
    let all = all.map(|(key, value)| Tag::builder().key(key).value(value).build());
    let all: Vec<Tag> = all.collect();
    (!all.is_empty()).then_some(all)
}

/// AWS's name of a protocol.
fn protocol(transport: Transport, tls: bool) -> ProtocolEnum {
    ProtocolEnum::from(transport.protocol(tls))
}

/// The protocol of this name, and whether it is TLS, if Ballast makes such listeners.
fn transport(protocol: &ProtocolEnum) -> Option<(Transport, bool)> {
    Transport::of_protocol(protocol.as_str())
}
