//! A release that takes time says what it waits for, and says the same on each try: the text
//! goes to the condition of a Service, where each difference is a write.

use std::collections::BTreeSet;

use super::fixtures;
use super::run::{PATIENCE, Run};
use super::{Lab, Outcome};
use crate::provider::{Released, Removal};
use crate::text::bounded;

/// A load balancer has a few objects, which go one after another.
const STEPS: usize = 8;

pub(super) async fn a_release_says_what_it_waits_for(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "a_release_says_what_it_waits_for").await;
    let provider = run.start(&[]).await?;
    let service = fixtures::service(1);
    run.retarget(&provider, &fixtures::targets(1), &[]).await?;
    run.ensure(&provider, &service, &[]).await?;
    let key = provider.key(&service);
    let mut said = BTreeSet::new();
    for _ in 0..PATIENCE {
        match provider.release(&service.id, &key, Removal::Delete).await {
            Ok(Released::Gone) => return Ok(()),
            Ok(Released::InProgress {
                waits_for: Some(text),
                ..
            }) => {
                if text.is_empty() || text != bounded(&text) {
                    return run.fail(format!("a release waits for {text:?}"));
                }
                said.insert(text);
            }
            Ok(Released::InProgress { .. }) | Err(_) => {}
        }
        if said.len() > STEPS {
            return run.fail(format!(
                "what a release waits for differs on each try: {said:?}"
            ));
        }
        run.harness.pause().await;
    }
    run.fail("a release never ends")
}
