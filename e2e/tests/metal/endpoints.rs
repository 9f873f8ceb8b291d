//! A Service that loses its last endpoint: its address stays where it is.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::failover::bed::{Bed, NEWCOMER, SERVER, endpoint_slice};
use ballast_e2e::{Host, eventually};
use serde_json::json;

use super::{CLASS, greeting, holders, says};
use crate::common::SOON;
use crate::common::judges::judged;
use crate::common::outside;

const NAME: &str = "nobody";
/// kube-proxy rejects at once; a client whose packets are dropped waits for its own time-out of 3 s. On virtual
/// links the first error arrives while the client's kernel still sends, and counts only when it is repeated, a
/// second later.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Withdrawing the address would turn a flap of readiness into failures of ARP.
pub(crate) async fn without_endpoints_the_address_stays(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let spec = json!({"loadBalancerClass": CLASS});
    let service = outside::service(NAME, &["IPv4"], SERVER, &spec);
    bed.lab.apply(&service).await?;
    let all = holders(bed, NAME).await?;
    let (address, holder) = all[0];
    eventually(SOON, || greeting(bed, NEWCOMER, address)).await?;
    let empty = endpoint_slice(NAME, "IPv4", &[]).to_string();
    bed.lab.apply(&empty).await?;
    says(bed, holder, "NoEndpoints", Some(&address.to_string())).await?;
    still_answers(bed, address, holder).await?;
    rejected(bed, address).await?;
    bed.lab.apply(&service).await?;
    says(bed, holder, "NoEndpoints", None).await?;
    eventually(SOON, || greeting(bed, NEWCOMER, address)).await?;
    ensure!(holders(bed, NAME).await? == all, "it has moved");
    let delete = ["delete", "service", NAME];
    bed.lab.kubectl(&delete).await.map(drop)
}

async fn still_answers(bed: &Bed<'_>, address: IpAddr, holder: Host) -> Result<()> {
    let mac = bed.lab.mac(holder).await?;
    let answers = judged(bed.lab, NEWCOMER, address).await?;
    ensure!(answers.iter().eq([&mac]), "{answers:?}, not {mac}");
    Ok(())
}

async fn rejected(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    eventually(SOON, || async {
        let start = Instant::now();
        let connected = greeting(bed, NEWCOMER, address).await;
        let took = start.elapsed();
        ensure!(connected.is_err(), "somebody answers: {connected:?}");
        ensure!(took < AT_ONCE, "it took {took:?}");
        Ok(())
    })
    .await
}
