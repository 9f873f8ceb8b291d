//! Who gets the places of a class, and what a Service hears that gets none. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_provider::{Balancer, Reason, Refusal};

use super::endpoints::bare_member;
use super::{BLOCKS, World};
use crate::class::ClassView;
use crate::cluster::conditions::ACCEPTED;
use crate::cluster::view::{ServiceView, oldest_first};
use crate::service::group::Declined;

/// So many Services that hold places are named.
const NAMED: usize = 3;

/// Services that have a place keep it. Of the others, the oldest come first. One that the
/// provider refused comes last, or it would take a place during each of its tries.
pub(super) fn quota(
    service: &ServiceView,
    class: &ClassView,
    world: &World<'_>,
) -> Result<(), Declined> {
    let Some(max) = class.max else { return Ok(()) };
    if world.ledger.has_place(&service.id, &class.name) {
        return Ok(());
    }
    let free = max.saturating_sub(world.ledger.places(&class.name));
    let last = world.ledger.is_refused(&service.id, &class.name);
    let all = (world.services)();
    let earlier = all
        .iter()
        .filter(|other| last || other.age() < service.age())
        .filter(|other| other.id != service.id)
        .filter(|other| waits_for_a_place(other, class, world))
        .cloned();
    // The oldest of them: the message must not depend on who has had a turn.
    let mut next = oldest_first(earlier.collect());
    next.truncate(free);
    if next.len() < free {
        return Ok(());
    }
    let has = |other: &Arc<ServiceView>| {
        world.ledger.has_place(&other.id, &class.name) || next.iter().any(|it| it.id == other.id)
    };
    Err(Declined {
        refusal: quota_exceeded(service, class, max, &all, &has),
        // One that is refused by the provider takes a place during each try.
        provisional: world.ledger.refuses_any(&class.name),
    })
}

/// Whether a Service of this class has no place, and only the quota keeps it from one.
pub(super) fn waits_for_a_place(
    service: &ServiceView,
    class: &ClassView,
    world: &World<'_>,
) -> bool {
    world.classes.claim(service) == Some(class.name.as_str())
        && !world.ledger.has_place(&service.id, &class.name)
        && !world.ledger.is_refused(&service.id, &class.name)
        && could_have_a_place(service, class, world)
}

/// Whether only the quota prevents serving a Service. One that is refused for something that
/// another Service has gets no place before it is freed.
fn could_have_a_place(service: &ServiceView, class: &ClassView, world: &World<'_>) -> bool {
    let (Some(Ok(wanted)), Some(provider)) =
        (&service.load_balancer, world.classes.provider(&class.name))
    else {
        return false;
    };
    let blocked = service.condition(ACCEPTED).is_some_and(|it| {
        let mut blocks = BLOCKS.iter();
        it.status == "False" && blocks.any(|reason| reason.as_str() == it.reason)
    });
    if blocked {
        return false;
    }
    let alone = Balancer {
        key: provider.key(wanted),
        members: vec![bare_member(service, wanted, world)],
        kept: BTreeSet::new(),
        deletes_nothing: false,
    };
    provider.validate(&alone).is_ok()
}

/// The refusal of a Service whose class has no free place. `has`: who has a place, or gets the next one.
/// It names Services of its own namespace and counts the others: whoever may only create Services
/// must not learn of other namespaces.
pub fn quota_exceeded(
    service: &ServiceView,
    class: &ClassView,
    max: usize,
    services: &[Arc<ServiceView>],
    has: &dyn Fn(&Arc<ServiceView>) -> bool,
) -> Refusal {
    let mine = services
        .iter()
        .filter(|other| other.id.namespace == service.id.namespace)
        .filter(|other| has(other));
    let mine = oldest_first(mine.cloned().collect());
    let named: Vec<&str> = mine.iter().take(NAMED).map(|one| &*one.id.name).collect();
    let taken = match (named.as_slice(), mine.len() - named.len()) {
        ([], _) => "and Services of other namespaces use them".to_owned(),
        (named, 0) if mine.len() >= max => format!("and {} use them", named.join(", ")),
        (named, 0) => format!(
            "and {} of this namespace use them, beside Services of other namespaces",
            named.join(", ")
        ),
        (named, more) => format!(
            "and {} and {more} more of this namespace use them{}",
            named.join(", "),
            if mine.len() >= max {
                ""
            } else {
                ", beside Services of other namespaces"
            }
        ),
    };
    let taken = if max == 0 {
        "so it serves none".to_owned()
    } else {
        taken
    };
    Refusal::new(
        Reason::QuotaExceeded,
        format!(
            "LoadBalancerClass {} allows {max} load balancers (spec.maxLoadBalancers), {taken}; raise the limit or delete another Service",
            class.name
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Classes;
    use crate::cluster::ledger::Ledger;

    fn class() -> ClassView {
        let classes = Classes::test([ClassView::test("local")]);
        classes.get("local").cloned().unwrap()
    }

    fn of(namespace: &str, name: &str, age: i64) -> Arc<ServiceView> {
        let mut view = ServiceView::test(name).created(age);
        view.id.namespace = namespace.into();
        view.id.uid = format!("{namespace}-{name}").as_str().into();
        Arc::new(view)
    }

    #[test]
    fn it_names_who_uses_the_places_of_its_own_namespace_only() {
        let own = |names: &[&'static str]| -> Vec<(&'static str, &'static str)> {
            names.iter().map(|name| ("shop", *name)).collect()
        };
        let others = || vec![("secret-a", "hidden-1"), ("secret-b", "hidden-2")];
        let tail = "; raise the limit or delete another Service";
        for (holders, says) in [
            (others(), "and Services of other namespaces use them"),
            (own(&["a", "b"]), "and a, b use them"),
            (
                [own(&["a"]), others()].concat(),
                "and a of this namespace use them, beside Services of other namespaces",
            ),
            (
                own(&["a", "b", "c", "d", "e"]),
                "and a, b, c and 2 more of this namespace use them",
            ),
            (
                [own(&["a", "b", "c", "d", "e"]), others()].concat(),
                "and a, b, c and 2 more of this namespace use them, beside Services of other namespaces",
            ),
        ] {
            let ledger = Ledger::default();
            let mut all: Vec<_> = (0..)
                .zip(&holders)
                .map(|(age, (namespace, name))| of(namespace, name, age))
                .collect();
            for one in &all {
                ledger.record(&one.id, "local");
            }
            let asks = of("shop", "new", 99);
            all.push(Arc::clone(&asks));
            let max = holders.len();
            let refusal = quota_exceeded(&asks, &class(), max, &all, &|it| {
                ledger.has_place(&it.id, "local")
            });
            let expected = format!(
                "LoadBalancerClass local allows {max} load balancers (spec.maxLoadBalancers), {says}{tail}"
            );
            assert_eq!(refusal.message, expected);
            assert!(!refusal.message.contains("hidden"), "{}", refusal.message);
            // The order of the store does not matter.
            all.reverse();
            let again = quota_exceeded(&asks, &class(), max, &all, &|it| {
                ledger.has_place(&it.id, "local")
            });
            assert_eq!(again, refusal);
        }
        let refusal = quota_exceeded(&of("shop", "a", 1), &class(), 0, &[], &|_| false);
        assert!(refusal.message.contains("so it serves none"), "{refusal}");
    }
}
