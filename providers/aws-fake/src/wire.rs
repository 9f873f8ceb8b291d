//! The wire format, without I/O: from the body of a request to a call of the core, and from its
//! result to XML.
//!
//! Strict: a parameter that an action does not have, one that occurs twice, a list with a gap or
//! a value of the wrong form is refused. A slip of a client must not look like success.

use crate::state::{Cloud, Moment, Refusal};

pub(crate) mod ec2;
pub(crate) mod elb;
pub(crate) mod form;
pub(crate) mod signature;
mod time;
pub(crate) mod xml;

use self::form::Form;
use self::xml::Xml;

/// The services behind the one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Elastic Load Balancing, version 2.
    Elb,
    /// EC2.
    Ec2,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The XML.
    pub(crate) body: String,
}

// === impl Service ===

impl Service {
    /// Its name in the scope of a signature.
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Elb => "elasticloadbalancing",
            Self::Ec2 => "ec2",
        }
    }

    /// The service with this name in the scope of a signature.
    pub(crate) fn of(scope: &str) -> Option<Self> {
        [Self::Elb, Self::Ec2]
            .into_iter()
            .find(|service| service.scope() == scope)
    }

    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Elb => "2015-12-01",
            Self::Ec2 => "2016-11-15",
        }
    }

    /// Whether it knows an action.
    pub(crate) fn knows(self, action: &str) -> bool {
        match self {
            Self::Elb => elb::ACTIONS.contains(&action),
            Self::Ec2 => ec2::ACTIONS.contains(&action),
        }
    }

    /// The error for a call that came too soon after others.
    pub(crate) fn throttled(self) -> Refusal {
        match self {
            Self::Elb => Refusal::new("Throttling", "Rate exceeded"),
            Self::Ec2 => {
                Refusal::new("RequestLimitExceeded", "Request limit exceeded.").status(503)
            }
        }
    }
}

/// The action of a request, before anything else is looked at.
pub(crate) fn action(service: Service, form: &mut Form) -> Result<String, Refusal> {
    let version = form.take("Version");
    let action = form.take("Action");
    let Some(action) = action.filter(|action| service.knows(action)) else {
        let message = match service {
            Service::Elb => "Could not find the operation for version 2015-12-01",
            Service::Ec2 => "The action is not valid for this web service.",
        };
        return Err(Refusal::new("InvalidAction", message));
    };
    if version.as_deref() != Some(service.version()) {
        let message = format!("Could not find version {version:?} of this service");
        return Err(Refusal::new("NoSuchVersion", message));
    }
    Ok(action)
}

/// Makes a call.
pub(crate) fn call(
    service: Service,
    action: &str,
    form: Form,
    cloud: &mut Cloud,
    now: Moment,
) -> Result<Xml, Refusal> {
    cloud.tick(now);
    match service {
        Service::Elb => elb::call(action, form, cloud, now),
        Service::Ec2 => ec2::call(action, form, cloud, now),
    }
}

/// The answer to a call that succeeded.
pub(crate) fn success(service: Service, action: &str, result: &Xml, request_id: &str) -> Answer {
    let mut xml = Xml::default();
    match service {
        Service::Elb => {
            let namespace = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";
            xml.root(&format!("{action}Response"), namespace, |xml| {
                xml.node(&format!("{action}Result"), |xml| xml.append(result));
                xml.node("ResponseMetadata", |xml| xml.text("RequestId", request_id));
            });
        }
        Service::Ec2 => {
            let namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";
            xml.declaration();
            xml.root(&format!("{action}Response"), namespace, |xml| {
                xml.text("requestId", request_id);
                xml.append(result);
            });
        }
    }
    Answer {
        status: 200,
        body: xml.finish(),
    }
}

/// The answer to a call that was refused.
pub(crate) fn failure(service: Service, refusal: &Refusal, request_id: &str) -> Answer {
    let mut xml = Xml::default();
    let body = |xml: &mut Xml| {
        xml.text("Code", &refusal.code);
        xml.text("Message", &refusal.message);
    };
    match service {
        Service::Elb => {
            let namespace = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";
            xml.root("ErrorResponse", namespace, |xml| {
                xml.node("Error", |xml| {
                    let fault = refusal.status >= 500;
                    xml.text("Type", if fault { "Receiver" } else { "Sender" });
                    body(xml);
                });
                xml.text("RequestId", request_id);
            });
        }
        Service::Ec2 => {
            xml.declaration();
            xml.node("Response", |xml| {
                xml.node("Errors", |xml| xml.node("Error", body));
                xml.text("RequestID", request_id);
            });
        }
    }
    Answer {
        status: refusal.status,
        body: xml.finish(),
    }
}
