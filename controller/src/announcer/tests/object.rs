//! What it writes: the Announcer object of its node, also after a restart and beside another
//! process of the node.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_object_is_written_on_change_only() {
    let server = cluster();
    let site = Site::start(&server, 7);
    sleep(SOON).await;
    assert!(
        server.writes().is_empty(),
        "the agent has not listed its interfaces"
    );
    site.report(report());
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let object = server.get(ANNOUNCERS, "a").unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-a");
    assert_eq!(
        object["status"]["counts"],
        json!({"interfaces": 1, "usable": 1, "addresses": 0, "held": 0})
    );
    let began = server.requests();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(server.writes().len(), 2, "{:?}", server.writes());
    assert!(*began.borrow() > 0);
    // The same again.
    site.report(report());
    sleep(SOON).await;
    assert_eq!(server.writes().len(), 2);
    site.report(recorded(1));
    site.report(recorded(2));
    site.until("recorded", |site| site.server.writes().len() == 3)
        .await;
    let holdings = &server.get(ANNOUNCERS, "a").unwrap()["status"]["holdings"];
    assert_eq!(
        *holdings,
        json!([{"address": "192.0.2.9", "epoch": 2, "revision": 0, "successors": ["b"]}])
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_latest_status_is_written() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    server.refuse(Some("announcers"));
    for epoch in 2..30 {
        site.report(recorded(epoch));
        sleep(Duration::from_secs(1)).await;
    }
    server.refuse(None);
    sleep(SOON).await;
    let writes = server.writes();
    assert_eq!(writes.len(), 3, "{writes:?}");
    assert_eq!(writes[2].body["status"]["holdings"][0]["epoch"], 29);
}

/// A write that was given up waited in a cut connection, and arrives after a later one.
#[tokio::test(start_paused = true)]
async fn an_old_status_that_arrives_late_is_corrected() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let old = server.get(ANNOUNCERS, "a").unwrap();
    site.report(recorded(2));
    site.until("written again", |site| site.server.writes().len() == 3)
        .await;
    sleep(SOON).await;
    server.put(ANNOUNCERS, old);
    sleep(SOON).await;
    assert_eq!(server.writes().len(), 4);
    let status = &server.get(ANNOUNCERS, "a").unwrap()["status"];
    assert_eq!(status["holdings"][0]["epoch"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_created_again() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    sleep(SOON).await;
    server.delete(ANNOUNCERS, "a");
    site.until("written again", |site| site.server.writes().len() == 4)
        .await;
    sleep(SOON).await;
    assert_eq!(server.writes().len(), 4);
    let status = &server.get(ANNOUNCERS, "a").unwrap()["status"];
    assert_eq!(status["holdings"][0]["epoch"], 1);
}

/// Its announcer creates it again; until then nobody may take the node's addresses.
#[tokio::test(start_paused = true)]
async fn the_deleted_object_of_another_node_counts_for_a_moment() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.until("a view", |site| site.last_view().is_some())
        .await;
    sleep(SOON).await;
    site.take();
    server.delete(ANNOUNCERS, "b");
    sleep(Duration::from_secs(4)).await;
    server.put(ANNOUNCERS, announcer("b", "0b", "192.0.2.7"));
    sleep(SOON).await;
    assert!(site.last_view().is_none(), "{:?}", site.short());
    server.delete(ANNOUNCERS, "b");
    site.until("a node without interfaces", |site| {
        let view = site.last_view();
        view.is_some_and(|view| view.nodes[&NodeName::new("b")].interfaces.is_empty())
    })
    .await;
}

/// Other nodes must see neither a node without interfaces nor one without addresses.
#[tokio::test(start_paused = true)]
async fn a_restart_takes_nothing_back() {
    let server = cluster();
    let mut earlier = announcer("a", "06", "192.0.2.9");
    earlier["status"]["conditions"] = json!([{
        "type": "CutOff", "status": "False", "reason": "InContact", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }]);
    server.put(ANNOUNCERS, earlier);
    let site = Site::start(&server, 7);
    site.until("its own claims", |site| {
        site.short().contains(&"holdings of a".to_owned())
    })
    .await;
    sleep(SOON).await;
    assert!(server.writes().is_empty());
    // Interfaces are known before the first record.
    site.report(report());
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let status = server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
    assert_eq!(status["incarnation"], "0000000000000007");
    assert_eq!(status["holdings"][0]["address"], "192.0.2.9");
    let conditions = status["conditions"].as_array().unwrap();
    let cut_off = conditions.iter().find(|it| it["type"] == "CutOff").unwrap();
    assert_eq!(cut_off["lastTransitionTime"], "2026-01-02T03:04:05Z");
    // What this process wrote itself is not news, even after an outage.
    site.take();
    server.down(true);
    site.until("away", |site| {
        site.short().contains(&"api false".to_owned())
    })
    .await;
    server.down(false);
    site.until("back", |site| site.short().contains(&"view 1".to_owned()))
        .await;
    assert!(!site.short().contains(&"holdings of a".to_owned()));
}

/// While a `DaemonSet` is updated, both processes of a node live.
#[tokio::test(start_paused = true)]
async fn two_processes_of_a_node_do_not_fight() {
    let server = cluster();
    let old = Site::start(&server, 6);
    old.report(recorded(1));
    old.until("written", |site| site.server.writes().len() == 2)
        .await;
    let new = Site::start(&server, 7);
    new.until("the other's claims", |site| {
        site.short().contains(&"holdings of a".to_owned())
    })
    .await;
    new.report(recorded(1));
    sleep(SOON).await;
    let writes = server.writes().len();
    assert!((4..=9).contains(&writes), "{writes} writes in a minute");
    // A claim that the old one makes meanwhile is news to the new one.
    new.take();
    old.report(recorded(2));
    new.until("the new claim", |site| {
        site.short().contains(&"holdings of a".to_owned())
    })
    .await;
    new.report(recorded(2));
    drop(old);
    sleep(SOON).await;
    // The last word of the other one, for example at its end.
    let mut last = announcer("a", "0000000000000006", "192.0.2.9");
    let now = server.get(ANNOUNCERS, "a").unwrap();
    last["metadata"]["uid"] = now["metadata"]["uid"].clone();
    let serial = now["status"]["serial"].as_i64().unwrap();
    server.put(ANNOUNCERS, sealed(last, serial + 1, &keyring()));
    let writes = server.writes().len();
    sleep(SOON).await;
    let status = server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
    assert_eq!(status["incarnation"], "0000000000000007");
    sleep(SOON * 10).await;
    assert_eq!(server.writes().len(), writes + 1);
}

/// Its agent says so, before the object shows it.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_replaced_writes_nothing() {
    let server = cluster();
    let site = Site::start(&server, 6);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let replaced = |epoch| Report {
        replaced: true,
        ..recorded(epoch)
    };
    site.report(replaced(2));
    sleep(SOON).await;
    assert_eq!(server.writes().len(), 2);
    // The newer process ended again.
    site.report(recorded(2));
    site.until("written again", |site| site.server.writes().len() == 3)
        .await;
}

/// A `DaemonSet` without surge starts the next process only afterwards.
#[tokio::test(start_paused = true)]
async fn a_process_that_nobody_replaces_ends_soon() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(Report::default());
    site.until("written", |site| {
        site.stores.announcer(&site.options.node).is_some()
    })
    .await;
    let asked = Instant::now();
    hand_over(&site.stores, &site.options).await;
    assert_eq!(asked.elapsed(), HANDOVER);
}

#[tokio::test(start_paused = true)]
async fn a_process_answers_until_the_next_one_has_started() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.report(Report::default());
    let written = |site: &Site, by: &str| {
        let facts = site.stores.announcer(&site.options.node);
        facts.is_some_and(|facts| facts.incarnation.as_deref() == Some(by))
    };
    site.until("written", |site| written(site, "0000000000000007"))
        .await;
    let next = Site::start(&server, 8);
    next.report(Report::default());
    let asked = Instant::now();
    hand_over(&site.stores, &site.options).await;
    assert!(asked.elapsed() < HANDOVER, "{:?}", asked.elapsed());
    assert!(written(&site, "0000000000000008"));
}
