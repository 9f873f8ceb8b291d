//! Calls the provider for one balancer. Does I/O; cancelling a call has the same effect as a
//! crash.

use std::time::Duration;

use ballast_provider::{Balancer, Observed, ProviderError, Refusal, ServiceId};
use tokio::time::Instant;
use tracing::info;

use super::{Outcome, Performer, Report, Request, Served};
use crate::class::patience::in_time;
use crate::cluster::view::Name;
use crate::service::decide::{ARRIVAL_GRACE, lacks_pool};

/// What a provider reports of all members.
type Answer = Result<Vec<(ServiceId, Observed)>, ProviderError>;

// === impl Performer ===

impl Performer {
    /// Applies the desired state of the balancer and publishes the result.
    pub(super) async fn apply(&self, served: &Served<'_>, request: Request<'_>) -> Outcome {
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        let id = &served.service.id;
        let began = self.ledger.began(id, served.class, Instant::now());
        let (balancer, answer) = self.call(served, request).await;
        let all = match answer {
            Ok(all) => all,
            Err(error) => {
                let refusal = match &error {
                    ProviderError::Refused(refusal) => {
                        self.ledger.refused(id, served.class);
                        Some(refusal)
                    }
                    ProviderError::Throttled { .. } => None,
                    // The call may have created something.
                    ProviderError::Transient { .. } => {
                        self.ledger.occupied(id, served.class);
                        None
                    }
                };
                return match self.wait_for_pool(served, refusal) {
                    Some(wait) => Outcome::Pending(wait),
                    None => self.failed(served, &error, false).await,
                };
            }
        };
        for (id, _) in &all {
            self.ledger.occupied(id, served.class);
        }
        self.tell_members(served, balancer, &all);
        let mut members = balancer.members.iter();
        let observed = all.into_iter().find(|(reported, _)| reported == id);
        let (Some((_, observed)), Some(member)) =
            (observed, members.find(|of| of.load_balancer.id == *id))
        else {
            let silent =
                ProviderError::transient("the provider reported no state for this Service");
            return self.failed(served, &silent, false).await;
        };
        let report = Report {
            key: &balancer.key,
            member,
            observed,
        };
        self.observed(served, &report, began).await
    }

    /// How long the Service still waits for a pool to arrive before it reports the refusal.
    pub(super) fn wait_for_pool(
        &self,
        served: &Served<'_>,
        refusal: Option<&Refusal>,
    ) -> Option<Duration> {
        let traits = served.provider.traits();
        let lacks = refusal.is_some_and(|refusal| lacks_pool(served.service, traits, refusal));
        let id = &served.service.id;
        let missing_for = self.pool_missing.look(id, lacks, Instant::now());
        let wait = ARRIVAL_GRACE.saturating_sub(missing_for);
        (lacks && !wait.is_zero()).then_some(wait)
    }

    /// Calls the provider. If it refuses a balancer because of another member, that member
    /// must not harm this one: the fallbacks are tried.
    async fn call<'a>(&self, served: &Served<'_>, request: Request<'a>) -> (&'a Balancer, Answer) {
        let (mut balancer, mut fallbacks) = (request.balancer, request.fallbacks.iter());
        loop {
            let answer = in_time(served.provider.ensure(balancer)).await;
            match (&answer, fallbacks.next()) {
                (Err(ProviderError::Refused(refusal)), Some(less)) if self.writer.leads() => {
                    info!(service = %served.service.id, class = served.class, key = %balancer.key, %refusal,
                        "the shared load balancer is refused; trying it with less of its other members");
                    balancer = less;
                }
                _ => return (balancer, answer),
            }
        }
    }

    /// Wakes the other members for which the balancer reports something new. Each publishes it
    /// in a turn of its own.
    fn tell_members(
        &self,
        served: &Served<'_>,
        balancer: &Balancer,
        all: &[(ServiceId, Observed)],
    ) {
        let own = &served.service.id;
        if balancer.key.is_of(own) {
            return;
        }
        for (id, observed) in all {
            if self.ledger.reported(id, served.class, observed) && id != own {
                self.queue.add(Name::from(id));
            }
        }
    }
}
