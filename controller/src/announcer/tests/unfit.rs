//! What a process says that cannot start.

use ballast_agent::StartError;

use super::*;
use crate::announcer::unfit::tell;

fn options() -> Options {
    Options {
        node: NodeName::new("a"),
        namespace: "ballast-system".to_owned(),
        incarnation: 9,
        gossip_port: None,
        key_file: None,
        admin: "127.0.0.1:0".parse().unwrap(),
        health_socket: None,
    }
}

async fn fails(server: &Server) {
    let error = StartError::NotPermitted.into();
    tell(&server.client(), &options(), &error).await;
}

fn condition(server: &Server) -> Value {
    let object = server.get(ANNOUNCERS, "a").unwrap();
    let mut all = object["status"]["conditions"].as_array().unwrap().iter();
    let found = all.find(|it| it["type"] == "NetRawMissing").unwrap();
    assert!(all.all(|it| it["type"] != "NetRawMissing"), "twice");
    found.clone()
}

#[tokio::test(start_paused = true)]
async fn a_missing_capability_is_a_condition_until_a_process_starts() {
    let server = cluster();
    fails(&server).await;
    let object = server.get(ANNOUNCERS, "a").unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-a");
    let found = condition(&server);
    assert_eq!(found["status"], "True");
    let message = found["message"].as_str().unwrap();
    assert!(message.contains("securityContext.capabilities.add"));
    // It ends and starts again and again.
    let writes = server.writes().len();
    fails(&server).await;
    assert_eq!(server.writes().len(), writes, "nothing new");
    let site = Site::start(&server, 7);
    site.report(recorded(1));
    site.until("written", |_| condition(&server)["status"] == "False")
        .await;
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

/// The pods of a `DaemonSet` are updated, and the new ones lack it.
#[tokio::test(start_paused = true)]
async fn what_another_process_has_written_stays() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let before = server.get(ANNOUNCERS, "a").unwrap();
    fails(&server).await;
    let after = server.get(ANNOUNCERS, "a").unwrap();
    assert_eq!(condition(&server)["status"], "True");
    for field in ["serial", "seals", "incarnation", "interfaces", "holdings"] {
        assert_eq!(after["status"][field], before["status"][field], "{field}");
    }
    // The process that works corrects it.
    site.until("corrected", |_| condition(&server)["status"] == "False")
        .await;
    assert_eq!(site.stores.refused(Instant::now()).0, []);
}

/// Other reasons are no matter of the node.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_other_errors() {
    let server = cluster();
    let taken = StartError::Port(7947, std::io::ErrorKind::AddrInUse.into());
    tell(&server.client(), &options(), &taken.into()).await;
    assert!(server.writes().is_empty());
}
