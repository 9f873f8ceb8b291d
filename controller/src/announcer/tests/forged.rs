//! Objects that no announcer wrote: somebody has the token of a node, and not the key.

use super::*;
use crate::announcer::object::UNTRUSTED_ANNOUNCER;

/// All addresses, with the highest epoch, an interface of its own, another process.
fn forged() -> Value {
    let mut object = unsealed("b", "0e", "192.0.2.7", i64::MAX);
    object["status"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:66");
    object["status"]["holdings"]
        .as_array_mut()
        .unwrap()
        .push(json!({"address": "192.0.2.9", "epoch": i64::MAX}));
    object
}

async fn settled(server: &Server) -> Site {
    let site = Site::start(server, 7);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    site.until("connected", |site| {
        site.short().contains(&"api true".to_owned())
    })
    .await;
    sleep(SOON).await;
    site.take();
    site
}

/// The condition of its object about others.
fn said(server: &Server) -> (String, Value) {
    let status = server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let said = conditions
        .iter()
        .find(|it| it["type"] == UNTRUSTED_ANNOUNCER)
        .unwrap();
    let text = |field: &str| said[field].as_str().unwrap().to_owned();
    let said = format!("{} {}: {}", text("status"), text("reason"), text("message"));
    (said, status["problems"].clone())
}

/// Whatever it is sealed with.
#[tokio::test(start_paused = true)]
async fn a_forged_object_changes_nothing() {
    let server = cluster();
    let site = settled(&server).await;
    let good = server.get(ANNOUNCERS, "b").unwrap();
    assert!(said(&server).0.starts_with("False AllSealed"));
    let mut with_good_seals = forged();
    with_good_seals["status"]["seals"] = good["status"]["seals"].clone();
    with_good_seals["status"]["serial"] = json!(1);
    // What another node has sealed.
    let mut of_another = forged();
    of_another["metadata"] = json!({"name": "c", "uid": "uid-c"});
    let mut of_another = sealed(of_another, 9, &keyring());
    of_another["metadata"] = json!({"name": "b", "uid": "uid-b"});
    // What it sealed before its object was created again.
    let mut of_another_time = forged();
    of_another_time["metadata"]["uid"] = json!("uid-before");
    let mut of_another_time = sealed(of_another_time, 9, &keyring());
    of_another_time["metadata"]["uid"] = json!("uid-b");
    let mut empty = forged();
    empty["status"] = json!({});
    for forged in [
        forged(),
        with_good_seals,
        sealed(forged(), 9, &keys(&[2])),
        of_another,
        of_another_time,
        empty,
    ] {
        server.put(ANNOUNCERS, forged.clone());
        sleep(SOON).await;
        assert_eq!(site.short(), [""; 0], "{forged}");
    }
    let (said, problems) = said(&server);
    assert!(said.starts_with("True NoSeal: "), "{said}");
    assert!(said.contains("ignored it: b. Do the announcers"), "{said}");
    assert_eq!(problems, json!({"untrusted": ["b"]}));
    // After an outage everything is passed on anew.
    server.down(true);
    sleep(SOON).await;
    server.down(false);
    sleep(SOON).await;
    let inputs = site.take();
    let holds_all = |input: &Input| match input {
        Input::Holdings(claims) => claims.iter().any(|(_, claim)| claim.epoch > 1),
        _ => false,
    };
    assert!(
        inputs.len() > 3 && !inputs.iter().any(holds_all),
        "{inputs:?}"
    );
    // What counted before still does.
    let view = site.last_view();
    let view = view.as_ref().or(None);
    assert!(view.is_none_or(|view| {
        let interface = &view.nodes[&NodeName::new("b")].interfaces[0];
        interface.mac == Mac([2, 0, 0, 0, 0, 0xb])
    }));
}

/// It is not enough to forge it before this process starts.
#[tokio::test(start_paused = true)]
async fn an_object_that_was_forged_before_says_nothing() {
    let server = cluster();
    server.put(ANNOUNCERS, forged());
    let site = settled(&server).await;
    let short = site.short();
    assert!(!short.contains(&"holdings of b".to_owned()), "{short:?}");
    site.take();
    let good = sealed(unsealed("b", "0b", "192.0.2.7", 1), 1, &keyring());
    server.put(ANNOUNCERS, good);
    site.until("believed", |site| {
        let short = site.short();
        short.contains(&"holdings of b".to_owned()) && site.last_view().is_some()
    })
    .await;
    assert!(said(&server).0.starts_with("True"), "for some minutes more");
    sleep(Duration::from_mins(6)).await;
    assert!(said(&server).0.starts_with("False"));
}

/// The node itself corrects its object, and does not believe it meanwhile.
#[tokio::test(start_paused = true)]
async fn the_own_object_is_corrected_soon() {
    let server = cluster();
    let site = settled(&server).await;
    let good = server.get(ANNOUNCERS, "a").unwrap();
    let mut object = forged();
    object["metadata"] = good["metadata"].clone();
    for round in 1..=3 {
        let begun = Instant::now();
        server.put(ANNOUNCERS, object.clone());
        site.until("corrected", |site| {
            let status = site.server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
            status["incarnation"] == "0000000000000007"
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{round}");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(site.short(), [""; 0]);
    assert_eq!(said(&server).1, json!({"untrusted": ["a"]}));
    let status = server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
    assert_eq!(status["holdings"], good["status"]["holdings"]);
    // A process that ends is not told by it that another one has started.
    server.refuse(Some("announcers"));
    server.put(ANNOUNCERS, object);
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    hand_over(&site.stores, &site.options).await;
    assert_eq!(asked.elapsed(), HANDOVER);
}

/// A status that the node had sealed before: its seal is valid, and a later one is known.
#[tokio::test(start_paused = true)]
async fn an_old_status_changes_nothing() {
    let server = cluster();
    let site = settled(&server).await;
    let old = sealed(unsealed("b", "0b", "192.0.2.8", 9), 4, &keyring());
    let new = sealed(unsealed("b", "0b", "192.0.2.7", 2), 5, &keyring());
    server.put(ANNOUNCERS, new);
    site.until("news", |site| site.short() == ["holdings of b"])
        .await;
    site.take();
    server.put(ANNOUNCERS, old);
    sleep(SOON).await;
    assert_eq!(site.short(), [""; 0]);
    assert!(said(&server).0.starts_with("False"), "a late write is one");
}

/// A process that starts reads the serial that its node had, also with a clock that is wrong.
#[tokio::test(start_paused = true)]
async fn serials_increase_over_restarts() {
    let server = cluster();
    let future = jiff::Timestamp::now().as_millisecond() + 1_000_000_000;
    let earlier = unsealed("a", "06", "192.0.2.9", 1);
    server.put(ANNOUNCERS, sealed(earlier, future, &keyring()));
    let site = settled(&server).await;
    let serial =
        |server: &Server| server.get(ANNOUNCERS, "a").unwrap()["status"]["serial"].as_i64();
    assert_eq!(serial(&server), Some(future + 1));
    site.report(recorded(2));
    site.until("written", |site| site.server.writes().len() == 3)
        .await;
    assert_eq!(serial(&server), Some(future + 2));
}

/// In the two steps of docs/operations.md: one write for the new key, and none for the old one.
#[tokio::test(start_paused = true)]
async fn a_new_key_is_one_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    write_keys(&path, &[1]);
    let server = cluster();
    let keyring = Arc::new(Keyring::open_file(&path).unwrap());
    let site = Site::start_with(&server, 7, Some(keyring));
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    // Sealed by a node that has the new key alone.
    server.put(
        ANNOUNCERS,
        sealed(unsealed("c", "0c", "192.0.2.8", 1), 1, &keys(&[2])),
    );
    sleep(SOON).await;
    assert!(!site.short().contains(&"holdings of c".to_owned()));
    let writes = site.server.writes().len();
    assert_eq!(writes, 3, "it says that c is not trusted");
    write_keys(&path, &[2, 1]);
    site.until("believed", |site| {
        site.short().contains(&"holdings of c".to_owned())
    })
    .await;
    sleep(SOON).await;
    assert_eq!(server.writes().len(), writes + 1);
    let seals = server.get(ANNOUNCERS, "a").unwrap()["status"]["seals"].clone();
    assert_eq!(seals.as_array().unwrap().len(), 2);
    sleep(Duration::from_mins(10)).await;
    let writes = server.writes().len();
    write_keys(&path, &[2]);
    sleep(Duration::from_mins(30)).await;
    assert_eq!(server.writes().len(), writes);
}

/// Without a key everything is believed, as before; nothing is sealed.
#[tokio::test(start_paused = true)]
async fn without_a_key_nothing_is_sealed() {
    let server = cluster();
    let site = Site::start_with(&server, 7, None);
    site.report(recorded(1));
    site.until("written", |site| site.server.writes().len() == 2)
        .await;
    let status = server.get(ANNOUNCERS, "a").unwrap()["status"].clone();
    assert_eq!(
        (&status["seals"], &status["serial"]),
        (&json!(null), &json!(null))
    );
    sleep(SOON).await;
    site.take();
    server.put(ANNOUNCERS, forged());
    site.until("believed", |site| {
        site.short().contains(&"holdings of b".to_owned())
    })
    .await;
}
