//! Brings one Service's load balancer to the desired state, with at most one read; without a
//! difference it makes no change.
//!
//! A requested address that the cloud refuses does not block the rest: a load balancer with
//! another address keeps it and gets all other settings, and the status of its Service says
//! why. The address is requested again when it may be available.

use ballast_provider::{Member, Observed, Refusal};
use jiff::Timestamp;

use super::cache::Known;
use super::client::{Failed, reason};
use super::{Inner, shape};
use crate::api::{Code, Desired, LifecycleState, LoadBalancerView, Problem, PutLoadBalancer};

/// What a Service requests, in the cloud's terms.
struct Request<'a> {
    member: &'a Member,
    name: String,
    desired: Desired,
    /// The fingerprint of `desired`.
    fingerprint: String,
}

// === impl Request ===

impl Request<'_> {
    /// The desired state without requested addresses; `None` if it has none.
    fn without_addresses(&self) -> Option<Desired> {
        let mut desired = self.desired.clone();
        desired.requested_addresses.clear();
        (desired != self.desired).then_some(desired)
    }
}

// === impl Inner ===

impl Inner {
    /// A cloud that has restarted refuses the first change. After the list that follows, the
    /// second attempt knows its state, so the Service does not report a delay.
    pub(super) async fn ensure(&self, member: &Member) -> Result<Observed, Failed> {
        if let Some(observed) = self.attempt(member).await? {
            return Ok(observed);
        }
        let again = self.attempt(member).await?;
        Ok(again.unwrap_or_else(shape::later))
    }

    /// `None` if the cloud has restarted and its state was listed.
    async fn attempt(&self, member: &Member) -> Result<Option<Observed>, Failed> {
        let desired = shape::desired(&self.mark, member);
        let request = Request {
            member,
            name: shape::name_of(&self.mark, &member.load_balancer.id),
            fingerprint: shape::fingerprint(&desired),
            desired,
        };
        let known = self.cache().known(&request.name);
        let present = match known {
            Known::Fresh(entry) => match self.settled(&request, &entry.view) {
                Some(observed) if entry.view.state == LifecycleState::Active => {
                    return Ok(Some(observed));
                }
                Some(_) => self.look(&request.name).await?,
                None => Some(entry.view),
            },
            Known::Doubtful => self.look(&request.name).await?,
            Known::Absent => None,
        };
        let settled = present
            .as_ref()
            .and_then(|view| self.settled(&request, view));
        match settled {
            Some(observed) => Ok(Some(observed)),
            None => self.change(&request, present.as_ref()).await,
        }
    }

    /// The observation of a load balancer that has the desired state, or comes as close to it
    /// as is possible now. `None` if it must be changed.
    fn settled(&self, request: &Request<'_>, view: &LoadBalancerView) -> Option<Observed> {
        let have = shape::fingerprint(&view.desired);
        let mut observed = self.observed(request.member, view);
        if have == request.fingerprint {
            let again = shape::lacks_address(view) && self.cache().may_hope(&request.name);
            return (!again).then_some(observed);
        }
        let objection = self
            .cache()
            .objection(&request.name, &request.fingerprint)?;
        let rest = shape::fingerprint(&request.without_addresses()?);
        shape::object(&mut observed, objection);
        (have == rest).then_some(observed)
    }

    fn observed(&self, member: &Member, view: &LoadBalancerView) -> Observed {
        let nodes = self.cache().nodes();
        shape::observed(member, view, &nodes)
    }

    /// Creates or changes the load balancer.
    async fn change(
        &self,
        request: &Request<'_>,
        present: Option<&LoadBalancerView>,
    ) -> Result<Option<Observed>, Failed> {
        let failed = match self.put(request, request.desired.clone(), present).await {
            Ok(observed) => return Ok(observed),
            Err(failed) => failed,
        };
        let serves = present.is_some_and(|view| !view.addresses.is_empty());
        match (&failed, request.without_addresses()) {
            (Failed::Refused { problem, .. }, Some(rest))
                if serves && is_about_address(problem) =>
            {
                let objection = Refusal::new(reason(problem.code), problem.message.clone());
                let Some(mut observed) = self.put(request, rest, present).await? else {
                    return Ok(None);
                };
                let id = &request.member.load_balancer.id;
                let wanted = request.fingerprint.clone();
                self.cache()
                    .object(&request.name, id, wanted, objection.clone());
                shape::object(&mut observed, objection);
                Ok(Some(observed))
            }
            _ => Err(failed),
        }
    }

    async fn put(
        &self,
        request: &Request<'_>,
        mut desired: Desired,
        present: Option<&LoadBalancerView>,
    ) -> Result<Option<Observed>, Failed> {
        let (name, id) = (request.name.as_str(), &request.member.load_balancer.id);
        let notes = match present {
            None => self.mark.birth(Timestamp::now()),
            Some(view) => shape::notes(&view.desired.tags),
        };
        desired.tags.extend(notes);
        let replaced = shape::replaces(request.member, present, &self.cache().nodes());
        let before = present.and_then(|view| view.desired.tags.get(shape::REPLACED).cloned());
        if let Some(replaced) = replaced.or(before) {
            desired.tags.insert(shape::REPLACED.to_owned(), replaced);
        }
        self.cache().tries(name);
        let reserved = self.cache().reserved(&id.uid);
        let requested = &desired.requested_addresses;
        if let Some(ip) = requested.iter().find(|ip| reserved.contains(ip)) {
            self.cache().wait_for_room(name, id);
            return Err(published(*ip));
        }
        let complete = present.is_some_and(|view| !shape::lacks_address(view));
        let body = PutLoadBalancer {
            desired,
            preferred_addresses: request.member.published.clone(),
            avoid_addresses: if complete { Vec::new() } else { reserved },
        };
        let flight = self.fly(name);
        let life = self.cache().position();
        let failed = match self.client.put(name, &body, life.as_ref()).await {
            Ok(view) => {
                let observed = self.observed(request.member, &view);
                self.cache().store(view);
                return Ok(Some(observed));
            }
            Err(failed) => failed,
        };
        match failed.code() {
            Some(Code::Deleting) => {
                self.cache().doubt(name);
                Ok(Some(shape::going()))
            }
            // The cloud has restarted and may have lost state. A list must first show whose
            // addresses must be kept free.
            Some(Code::SequenceUnknown) => {
                self.cache().doubt(name);
                drop(flight);
                self.relist(life).await?;
                Ok(None)
            }
            Some(Code::QuotaExceeded | Code::AddressInUse | Code::NoAddressAvailable) => {
                self.cache().wait_for_room(name, id);
                Err(failed)
            }
            _ => {
                self.cache().doubt(name);
                Err(failed)
            }
        }
    }
}

/// Another Service publishes this address, and its load balancer does not exist again yet.
fn published(ip: std::net::IpAddr) -> Failed {
    let message = format!("the requested address {ip} is published by another Service");
    Failed::Refused {
        problem: Problem::new(Code::AddressInUse, message),
        retry_after: None,
    }
}

fn is_about_address(problem: &Problem) -> bool {
    matches!(problem.code, Code::AddressInUse | Code::NoAddressAvailable)
}
