//! The checks without crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fixtures::{self, Dice};
use super::run::{Run, addresses, publishes};
use super::{Failure, Lab, Object, Outcome};
use crate::mark::{self, Mark};
use crate::model::{Address, Balancer, LoadBalancer, Member};
use crate::provider::{Provider, Published, Removal};

pub(super) async fn ensure_twice_is_ensure_once(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "ensure_twice_is_ensure_once").await;
    let provider = run.start(&[]).await?;
    let service = fixtures::service(1);
    run.retarget(&provider, &fixtures::targets(2), &[]).await?;
    let first = run.ensure(&provider, &service, &[]).await?;
    let contents = run.harness.contents().await;
    let before = run.harness.effects().await;
    // Before and after the addresses are published, there is nothing to do in the cloud.
    for published in [&[][..], &first[..]] {
        let again = run.ensure(&provider, &service, published).await?;
        run.unchanged_since(before, "the second ensure").await?;
        if again != first {
            return run.fail(format!("the address was {first:?} and is {again:?}"));
        }
    }
    run.expect_contents(&contents, "after the second ensure")
        .await
}

pub(super) async fn retarget_twice_is_retarget_once(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "retarget_twice_is_retarget_once").await;
    let provider = run.start(&[]).await?;
    let service = fixtures::service(1);
    let services = std::slice::from_ref(&service);
    let addresses = run.ensure(&provider, &service, &[]).await?;
    run.retarget(&provider, &fixtures::targets(2), services)
        .await?;
    let contents = run.harness.contents().await;
    let before = run.harness.effects().await;
    run.retarget(&provider, &fixtures::targets(2), services)
        .await?;
    run.unchanged_since(before, "the second retarget").await?;
    let provider = run.start(&[publishes(&service.id, &addresses)]).await?;
    run.retarget(&provider, &fixtures::targets(2), services)
        .await?;
    run.unchanged_since(before, "a retarget after a restart")
        .await?;
    run.expect_contents(&contents, "after the second retarget")
        .await?;
    run.retarget(&provider, &fixtures::targets(3), services)
        .await?;
    if run.harness.effects().await == before {
        return run.fail("a retarget to other targets makes no mutating call");
    }
    Ok(())
}

pub(super) async fn a_restart_changes_nothing(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "a_restart_changes_nothing").await;
    let provider = run.start(&[]).await?;
    run.retarget(&provider, &fixtures::targets(2), &[]).await?;
    let mut published: Vec<(LoadBalancer, Vec<Address>)> = Vec::new();
    for number in 1..=5 {
        let service = fixtures::service(number);
        let addresses = run.ensure(&provider, &service, &[]).await?;
        published.push((service, addresses));
    }
    let contents = run.harness.contents().await;
    let before = run.harness.effects().await;
    let all: Vec<Published> = published
        .iter()
        .map(|(service, addresses)| publishes(&service.id, addresses))
        .collect();
    let provider = run.start(&all).await?;
    run.retarget(&provider, &fixtures::targets(2), &[]).await?;
    for (service, addresses) in &published {
        let again = run.ensure(&provider, service, addresses).await?;
        if again != *addresses {
            let id = &service.id;
            return run.fail(format!(
                "{id}: the address was {addresses:?} and is {again:?}"
            ));
        }
    }
    run.unchanged_since(before, "a restart with 5 unchanged Services")
        .await?;
    run.expect_contents(&contents, "after a restart").await
}

pub(super) async fn ensure_works_before_any_retarget(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "ensure_works_before_any_retarget").await;
    let provider = run.start(&[]).await?;
    let service = fixtures::service(1);
    let first = run.ensure(&provider, &service, &[]).await?;
    run.retarget(
        &provider,
        &fixtures::targets(1),
        std::slice::from_ref(&service),
    )
    .await?;
    let before = run.harness.effects().await;
    let again = run.ensure(&provider, &service, &first).await?;
    run.unchanged_since(before, "an ensure after the first retarget")
        .await?;
    if again == first {
        Ok(())
    } else {
        run.fail(format!("the address was {first:?} and is {again:?}"))
    }
}

pub(super) async fn addresses_survive_edits(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "addresses_survive_edits").await;
    let mut dice = Dice(lab.seed());
    let mut provider = run.start(&[]).await?;
    let service = fixtures::service(1);
    let neighbour = fixtures::service(2);
    let first = run.ensure(&provider, &service, &[]).await?;
    let other = run.ensure(&provider, &neighbour, &[]).await?;
    if first.iter().any(|address| other.contains(address)) {
        return run.fail(format!(
            "two Services have one address: {first:?} and {other:?}"
        ));
    }
    for step in 0..12 {
        let edit = dice.below(fixtures::EDITS + 1);
        let edited = if edit == fixtures::EDITS {
            service.clone()
        } else {
            fixtures::edited(service.clone(), edit)
        };
        if dice.below(3) == 0 {
            let all = [
                publishes(&service.id, &first),
                publishes(&neighbour.id, &other),
            ];
            provider = run.start(&all).await?;
        }
        let now = run.ensure(&provider, &edited, &first).await?;
        if now != first {
            return run.fail(format!(
                "step {step}, edit {edit}: the address was {first:?} and is {now:?}"
            ));
        }
    }
    Ok(())
}

pub(super) async fn members_join_and_leave_in_any_order(lab: &dyn Lab) -> Outcome {
    if !lab.shares() {
        return Ok(());
    }
    let run = Run::new(lab, "members_join_and_leave_in_any_order").await;
    let empty = run.harness.contents().await;
    let mut dice = Dice(lab.seed());
    let mut provider = run.start(&[]).await?;
    let mut present: BTreeMap<u16, Vec<Address>> = BTreeMap::new();
    for step in 0..60 {
        let number = u16::try_from(dice.below(5)).unwrap_or_default() + 1;
        let leaves = present.contains_key(&number);
        let mut wanted = present.clone();
        if leaves {
            wanted.remove(&number);
        } else {
            wanted.insert(number, Vec::new());
        }
        if dice.below(4) == 0 {
            let all: Vec<Published> = present
                .iter()
                .map(|(number, addresses)| publishes(&fixtures::sharing(*number).id, addresses))
                .collect();
            provider = run.start(&all).await?;
        }
        // A member leaves by its own release, or because it is no longer listed.
        if leaves && (wanted.is_empty() || dice.below(2) == 0) {
            run.release(&provider, &fixtures::sharing(number), Removal::Delete)
                .await?;
        }
        let when = format!(
            "step {step}: {number} {}",
            if leaves { "leaves" } else { "joins" }
        );
        present = together(&run, &provider, &wanted, &when).await?;
    }
    let numbers: Vec<u16> = present.keys().copied().collect();
    for number in numbers {
        run.release(&provider, &fixtures::sharing(number), Removal::Delete)
            .await?;
    }
    run.expect_contents(&empty, "after all have left").await
}

/// Ensures a shared balancer with these members. Returns what they then publish.
async fn together(
    run: &Run,
    provider: &Arc<dyn Provider>,
    wanted: &BTreeMap<u16, Vec<Address>>,
    when: &str,
) -> Result<BTreeMap<u16, Vec<Address>>, Failure> {
    let Some(first) = wanted.keys().next() else {
        return Ok(BTreeMap::new());
    };
    let member = |(number, addresses): (&u16, &Vec<Address>)| Member {
        load_balancer: fixtures::sharing(*number),
        published: fixtures::ips(addresses),
        placement: crate::Placement::default(),
        endpoints: None,
    };
    let balancer = Balancer {
        key: provider.key(&fixtures::sharing(*first)),
        members: wanted.iter().map(member).collect(),
        kept: BTreeSet::new(),
        deletes_nothing: false,
    };
    let observed = run.settle(provider, &balancer).await?;
    let mut present = BTreeMap::new();
    let mut shared: BTreeSet<Vec<Address>> =
        wanted.values().filter(|a| !a.is_empty()).cloned().collect();
    for (number, (_, observed)) in wanted.keys().zip(observed) {
        let addresses = addresses(&observed);
        shared.insert(addresses.clone());
        present.insert(*number, addresses);
    }
    if shared.len() > 1 {
        return run.fail(format!(
            "{when}: members of one balancer have different addresses: {shared:?}"
        ));
    }
    let before = run.harness.effects().await;
    run.settle(provider, &balancer).await?;
    run.unchanged_since(before, &format!("{when}: the second ensure"))
        .await?;
    let ids: BTreeSet<Arc<str>> = wanted
        .keys()
        .map(|number| fixtures::sharing(*number).id.uid)
        .collect();
    let listed = listed(run, provider).await?;
    if listed != ids {
        return run.fail(format!(
            "{when}: the inventory names {listed:?}, not {ids:?}"
        ));
    }
    Ok(present)
}

/// The UIDs of the Services that the inventory names.
async fn listed(run: &Run, provider: &Arc<dyn Provider>) -> Result<BTreeSet<Arc<str>>, Failure> {
    match provider.inventory().await {
        Ok(inventory) => {
            let ids = inventory.into_iter().flat_map(|owned| owned.services);
            Ok(ids.map(|id| id.uid).collect())
        }
        Err(error) => run.fail(format!("cannot read the inventory: {error}")),
    }
}

pub(super) async fn the_inventory_is_complete(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "the_inventory_is_complete").await;
    for foreign in [fixtures::other_class(), fixtures::other_cluster()] {
        let provider = run.start_as(&foreign, &[]).await?;
        run.ensure(&provider, &fixtures::service(9), &[]).await?;
    }
    let provider = run.start(&[]).await?;
    let mut expected = BTreeSet::new();
    for number in 1..=4 {
        let service = fixtures::service(number);
        run.ensure(&provider, &service, &[]).await?;
        expected.insert(service.id.uid);
    }
    for instance in [provider, run.start(&[]).await?] {
        let found = listed(&run, &instance).await?;
        if found != expected {
            return run.fail(format!("the inventory names {found:?}, not {expected:?}"));
        }
        let inventory = instance.inventory().await.unwrap_or_default();
        let names: BTreeSet<&String> = inventory.iter().map(|owned| &owned.name).collect();
        for (name, object) in run.harness.contents().await {
            let ours = run.mark.owns(&object.tags) && object.tags.contains_key(mark::SERVICE);
            if ours != names.contains(&name) {
                return run.fail(format!("{name} (ours: {ours}) is listed: {}", !ours));
            }
        }
        if let Some(foreign) = inventory.iter().find(|owned| !run.mark.owns(&owned.tags)) {
            return run.fail(format!(
                "the inventory lists {foreign:?}, which is not ours"
            ));
        }
    }
    Ok(())
}

pub(super) async fn nothing_foreign_is_touched(lab: &dyn Lab) -> Outcome {
    let check = "nothing_foreign_is_touched";
    let service = fixtures::service(1);
    // The names of our objects, taken from a separate cloud.
    let names = {
        let run = Run::new(lab, check).await;
        let provider = run.start(&[]).await?;
        run.ensure(&provider, &service, &[]).await?;
        run.retarget(
            &provider,
            &fixtures::targets(1),
            std::slice::from_ref(&service),
        )
        .await?;
        run.harness.contents().await.into_keys().collect::<Vec<_>>()
    };
    let foreign = |mark: Mark| mark.tags(&service.id);
    let none = BTreeMap::new();
    for tags in [
        foreign(fixtures::other_class()),
        foreign(fixtures::other_cluster()),
        none,
    ] {
        let run = Run::new(lab, check).await;
        for name in &names {
            run.harness.plant(name, tags.clone()).await;
        }
        let planted = run.harness.contents().await;
        meddle(&run, &service).await?;
        intact(&run, &planted, &format!("planted with the tags {tags:?}")).await?;
    }
    let run = Run::new(lab, check).await;
    for mark in [fixtures::other_class(), fixtures::other_cluster()] {
        let provider = run.start_as(&mark, &[]).await?;
        run.ensure(&provider, &service, &[]).await?;
        run.retarget(
            &provider,
            &fixtures::targets(1),
            std::slice::from_ref(&service),
        )
        .await?;
    }
    let theirs = run.harness.contents().await;
    meddle(&run, &service).await?;
    intact(&run, &theirs, "made by another class or cluster").await
}

/// Makes every call that could affect a foreign object. Refusals are fine.
async fn meddle(run: &Run, service: &LoadBalancer) -> Result<(), Failure> {
    for instance in 0..2 {
        let provider = run.start(&[]).await?;
        let key = provider.key(service);
        let services = std::slice::from_ref(&key);
        // Errors are allowed here: the check is about the foreign objects only.
        let _ = provider.release(&service.id, &key, Removal::Retain).await;
        let _ = provider.release(&service.id, &key, Removal::Delete).await;
        for edit in 0..2 {
            let edited = fixtures::edited(service.clone(), edit + instance);
            let _ = provider
                .ensure(&fixtures::alone(key.clone(), edited, &[]))
                .await;
            let targets = fixtures::targets(u8::try_from(edit).unwrap_or_default() + 1);
            let _ = provider.retarget(&targets, services).await;
        }
        let _ = provider.release(&service.id, &key, Removal::Retain).await;
        let _ = provider.release(&service.id, &key, Removal::Delete).await;
    }
    Ok(())
}

async fn intact(run: &Run, foreign: &BTreeMap<String, Object>, whose: &str) -> Outcome {
    let contents = run.harness.contents().await;
    for (name, object) in foreign {
        match contents.get(name) {
            Some(present) if present == object => {}
            Some(present) => {
                return run.fail(format!(
                    "{name} ({whose}) was {object:?} and is {present:?}"
                ));
            }
            None => return run.fail(format!("{name} ({whose}) was deleted")),
        }
    }
    Ok(())
}

pub(super) async fn what_is_retained_stays(lab: &dyn Lab) -> Outcome {
    let run = Run::new(lab, "what_is_retained_stays").await;
    let provider = run.start(&[]).await?;
    let (kept, other) = (fixtures::service(1), fixtures::service(2));
    let addresses = run.ensure(&provider, &kept, &[]).await?;
    let others = run.ensure(&provider, &other, &[]).await?;
    let before = run.harness.contents().await;
    run.release(&provider, &kept, Removal::Retain).await?;
    let provider = run.start(&[publishes(&other.id, &others)]).await?;
    run.ensure(&provider, &other, &others).await?;
    let third = run.ensure(&provider, &fixtures::service(3), &[]).await?;
    if third.iter().any(|address| addresses.contains(address)) {
        return run.fail(format!(
            "the retained address {addresses:?} was assigned to another Service"
        ));
    }
    let contents = run.harness.contents().await;
    for (name, object) in &before {
        let Some(now) = contents.get(name) else {
            return run.fail(format!("{name} is gone"));
        };
        let mut tags = now.tags.clone();
        let tagged = tags.remove(mark::RETAINED).is_some();
        let is_kept = object.tags.get(mark::SERVICE_UID).map(String::as_str) == Some(&*kept.id.uid);
        if tagged != is_kept
            || tags != object.tags
            || now.state != object.state
            || now.addresses != object.addresses
        {
            return run.fail(format!(
                "{name} (retained: {is_kept}) was {object:?} and is {now:?}"
            ));
        }
    }
    let inventory = provider.inventory().await.unwrap_or_default();
    let mut listed = false;
    for owned in inventory {
        if !owned.services.contains(&kept.id) {
            continue;
        }
        listed = true;
        if !owned.tags.contains_key(mark::RETAINED) {
            return run.fail(format!(
                "the inventory lists {owned:?} without {}",
                mark::RETAINED
            ));
        }
    }
    if !listed {
        return run.fail("the inventory does not list the retained load balancer");
    }
    // The Service wants it again.
    run.release(&provider, &fixtures::service(3), Removal::Delete)
        .await?;
    let again = run.ensure(&provider, &kept, &addresses).await?;
    if again != addresses {
        return run.fail(format!("the address was {addresses:?} and is {again:?}"));
    }
    run.expect_contents(&before, "after the Service took it back")
        .await
}
