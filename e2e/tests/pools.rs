//! Addresses from pools on real Kubernetes: the cases of `MetalLB`'s own end-to-end tests
//! (assignment, families, namespaces, labels, priorities, removal, sharing, counters), with the
//! reports and the behaviour of Ballast.
//!
//! All cases share one lab; each has a [`Corner`] of it: its own namespace, class and pools, so
//! that cases do not affect one another. The restart at the end finds them all.

mod corner;
mod edits;
mod families;
mod requests;
mod restart;
mod selection;
mod sharing;
mod waiting;

use anyhow::{Result, ensure};

use crate::common::Plan;
use crate::common::crowd;
use corner::Corner;

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_pools() -> Result<()> {
    let plan = Plan {
        nodes: 0,
        controller: crowd::QUICK,
        class: None,
        ..Plan::new("t-pools")
    };
    plan.run(async |site| {
        let mut failures: Vec<String> = Vec::new();
        macro_rules! cases {
            ($($case:path),* $(,)?) => {$(
                let start = std::time::Instant::now();
                // A failing case does not hide the results of the others.
                if let Err(error) = $case(site).await {
                    failures.push(format!("{}: {error:#}", stringify!($case)));
                }
                println!("{}: {:.1} s", stringify!($case), start.elapsed().as_secs_f32());
            )*};
        }
        cases![
            requests::what_is_asked_for_is_given_or_refused_by_name,
            requests::another_wish_moves_and_frees,
            families::policies_and_order,
            families::a_family_comes_and_goes,
            selection::namespaces_labels_and_priorities,
            selection::labels_change,
            edits::a_pool_shrinks_and_goes,
            edits::of_two_that_overlap_the_newer_stops,
            edits::addresses_of_nodes_are_skipped,
            sharing::ports_keys_and_policies,
            sharing::namespaces,
            sharing::an_edit_that_its_companion_forbids,
            waiting::what_becomes_free_goes_to_the_oldest,
            waiting::a_type_changes_and_comes_back,
            waiting::an_address_rests,
            waiting::counters_of_both_families,
            restart::two_services_publish_one_address,
            restart::nothing_changes,
        ];
        ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
        Ok(())
    })
    .await
}
