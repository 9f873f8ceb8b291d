//! Requests that a cloud may be unable to meet: the Service gets what is available, and its
//! status says what is missing.

use super::fixtures;
use super::run::{Run, addresses};
use super::{Lab, Outcome};
use crate::model::{Family, FamilyPolicy};

pub(super) async fn a_wish_for_two_families_does_not_block(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "a_wish_for_two_families_does_not_block").await;
    let provider = run.start(&[]).await?;
    let mut service = fixtures::service(1);
    service.families = vec![Family::V4, Family::V6];
    let mut published = Vec::new();
    for edit in 0..2 {
        if edit > 0 {
            service = fixtures::edited(service, edit);
        }
        let key = provider.key(&service);
        let mut balancer = fixtures::alone(key, service.clone(), &published);
        balancer.members[0].placement.family_policy = FamilyPolicy::PreferDualStack;
        let observed = run.settle(&provider, &balancer).await?;
        for (id, observed) in &observed {
            let now = addresses(observed);
            if now.len() < service.families.len() && observed.remarks.is_empty() {
                return run.fail(format!(
                    "{id} prefers two families, has {now:?}, and no remark says why"
                ));
            }
            if !published.is_empty() && published != now {
                return run.fail(format!(
                    "{id}: the address was {published:?} and is {now:?}"
                ));
            }
            published = now;
        }
        let before = run.harness.effects().await;
        run.settle(&provider, &balancer).await?;
        run.unchanged_since(before, "the second ensure").await?;
    }
    Ok(())
}
