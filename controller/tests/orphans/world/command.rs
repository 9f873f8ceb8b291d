//! What `ballast orphans --delete` does, with its real choices and its real deletion.

use std::time::Duration;

use ballast::cli::orphans::choose::{Choice, ChoiceError, choose, is_alive};
use ballast::cli::orphans::report::{Live, Report, Signs};
use ballast::cli::orphans::sweep::{Terms, sweep};
use ballast_provider::Inventory;

use super::World;

const SILENCE: Duration = Duration::from_hours(72);

impl World {
    /// Somebody runs `ballast orphans --delete`, for one cluster after the other; with `live`, beside
    /// that cluster's API server.
    pub(super) fn command(&mut self, live: Option<usize>) {
        let all = self.runtime.block_on(self.account.all());
        let Ok(objects) = all else {
            return;
        };
        let compare = live.map(|c| {
            let services = self.clusters[c].services.values();
            Live {
                cluster: self.clusters[c].uid.clone(),
                services: services.map(|it| it.uid.clone()).collect(),
            }
        });
        let now = self.now;
        let report = Report::of(
            "account".to_owned(),
            &objects,
            compare.as_ref(),
            &Signs::of(&objects),
            SILENCE,
            now,
        );
        let uids: Vec<String> = match &compare {
            Some(live) => vec![live.cluster.clone()],
            None => report.clusters.iter().map(|it| it.uid.clone()).collect(),
        };
        for uid in uids {
            let choice = Choice {
                cluster: Some(&uid),
                force_live: false,
                compare: live.is_some(),
            };
            let plan = match choose(&report, &choice) {
                Ok(Some(plan)) => plan,
                Ok(None) => continue,
                Err(ChoiceError::Alive(..) | ChoiceError::Fresh(..)) => {
                    self.tally.refused_alive += 1;
                    continue;
                }
                Err(error) => panic!("{error}\n{}", self.story()),
            };
            let account = self.account.clone();
            let everywhere: [(&dyn Inventory, &Report); 1] = [(&account, &report)];
            let terms = Terms {
                force_live: false,
                deadline: tokio::time::Instant::now() + Duration::from_mins(15),
                is_alive: &|sign| is_alive(sign, SILENCE, now),
                everywhere: &everywhere,
            };
            let stop = std::future::pending();
            let swept = sweep(&account, &plan, &terms, &|_| {}, stop);
            let swept = self.runtime.block_on(swept);
            self.log.push(format!("  command for {uid}: {swept:?}"));
            self.tally.deleted_by_command += swept.deleted.len() as u64;
            let serves = |why: &String| why.contains("healthy");
            let serving = swept.left.iter().any(|(_, why)| serves(why));
            self.tally.refused_serving += u64::from(serving);
        }
    }
}
