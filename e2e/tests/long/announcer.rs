//! Announcers on five nodes with kube-proxy in iptables mode, and what takes too long for
//! `make test`.

use anyhow::Result;
use ballast_e2e::ProxyMode;

use crate::announcer::{cases, failures, on_bed, plans, reach};

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_with_iptables() -> Result<()> {
    on_bed(
        "t-announcer-long",
        5,
        ProxyMode::Iptables,
        async |bed, all| {
            cases![
                bed,
                all,
                reach::every_client_reaches_every_address,
                failures::link_cut,
                failures::one_way,
                failures::all_links,
                failures::api_down,
                failures::split,
                failures::node_killed,
                failures::probes_intercepted,
                plans::drain,
                plans::endpoint_moves,
            ];
            Ok(())
        },
    )
    .await
}
