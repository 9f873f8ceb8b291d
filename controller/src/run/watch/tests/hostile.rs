//! One tenant's Services have as many annotations as the API server accepts, all under keys
//! that Ballast could have but does not know. They come from the API server's JSON, through the
//! type that is watched, into the store, between the Services of another tenant.

use std::fmt::Write as _;

use super::*;
use crate::cluster::translate::compared_keys;

/// More than etcd holds.
const HOSTILE: usize = 10_000;
/// A Service of the other tenant follows after so many.
const TURNS: usize = 100;
/// So many hostile Services have the same JSON: to read it takes 10 ms in a debug build.
const ALIKE: usize = if cfg!(debug_assertions) { 50 } else { 1 };
/// What the API server accepts for all annotations of an object.
const ANNOTATIONS: usize = 256 * 1024;
/// What one hostile Service may keep, in bytes. An ordinary one keeps about half of it.
const KEPT: u64 = 4 * 1024;
/// The keys of one Service that may be compared with those that Ballast knows.
const COMPARED: u64 = 50;

/// A Service as the API server sends it. Each key has the length of a real one, so that its
/// distance to the known keys would be computed; `managedFields` repeats it.
fn text(annotations: usize) -> String {
    let (mut map, mut fields) = (String::new(), String::new());
    let mut size = 0;
    for number in 0.. {
        let key = format!("ballast.dev/{number:024x}");
        size += key.len();
        if size > annotations {
            break;
        }
        // Writing into a String does not fail.
        let _ = write!(map, "\"{key}\":\"\",");
        let _ = write!(fields, "\"f:{key}\":{{}},");
    }
    let known = "\"ballast.dev/share-key\":\"ours\"";
    format!(
        "{{\"metadata\":{{\"name\":\"NAME\",\"namespace\":\"SPACE\",\"uid\":\"UID\",\
         \"resourceVersion\":\"7\",\"annotations\":{{{map}{known}}},\"managedFields\":[\
         {{\"manager\":\"kubectl\",\"fieldsV1\":{{\"f:metadata\":{{\"f:annotations\":{{{fields}\".\":{{}}}}}}}}}}]}},\
         \"spec\":{}}}",
        service_spec()
    )
}

/// Takes Services of these numbers from the stream of the watch. The JSON is read for each of
/// them, or once for all of them.
fn arrive(
    store: &Store<Name, ServiceView>,
    text: &str,
    space: &str,
    numbers: std::ops::Range<usize>,
) {
    let text = text.replacen("SPACE", space, 1);
    let parse = |name: &Name, service: &WatchedService| {
        ServiceView::read(name, &service.0, Dialect::default())
    };
    let mut service: WatchedService = serde_json::from_str(&text).unwrap();
    for number in numbers {
        service.0.metadata.name = Some(format!("web-{number}"));
        service.0.metadata.uid = Some(format!("{space}-{number}"));
        let key = Name::of(&service.0.metadata);
        store.apply(Update::Applied(Parsed {
            version: 7,
            view: parse(&key, &service),
            key,
        }));
    }
    store.apply(update(Event::Apply(service), parse));
}

/// The anonymous memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// Runs the test in a process of its own, whose memory it measures. Returns whether this is
/// that process.
fn alone(test: &str) -> bool {
    const ALONE: &str = "BALLAST_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    println!("{said}");
    assert!(output.status.success(), "{failed}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Before there was a bound, each was compared key by key (110 to 320 ms in an optimised build),
/// and its annotations stayed in memory.
#[test]
fn ten_thousand_hostile_services_keep_little_and_touch_no_other_tenant() {
    if !alone(
        "run::watch::tests::hostile::ten_thousand_hostile_services_keep_little_and_touch_no_other_tenant",
    ) {
        return;
    }
    let (hostile, peaceful) = (text(ANNOTATIONS), text(0));
    let store: Store<Name, ServiceView> = Store::default();
    // The first pages of the allocator, and what one Service takes while it is parsed.
    arrive(&store, &hostile, "hostile", 0..TURNS);
    let (before, compared) = (resident(), compared_keys());
    for first in (TURNS..HOSTILE).step_by(ALIKE) {
        arrive(&store, &hostile, "hostile", first..first + ALIKE);
        if first % TURNS == 0 {
            let compared = compared_keys();
            arrive(&store, &peaceful, "shop", first..first + 1);
            let name = Name::named(Some("shop"), Some(&format!("web-{first}")));
            let view = store.get(&name).unwrap();
            assert!(matches!(&view.load_balancer, Some(Ok(_))), "{view:?}");
            assert_eq!(view.unknown_annotations, [""; 0]);
            assert_eq!(compared_keys(), compared, "it pays for its neighbours");
        }
    }
    let count = (HOSTILE - TURNS) as u64;
    let grown = resident().saturating_sub(before);
    // The last one of each group is read twice.
    let read = count + count / ALIKE as u64;
    let each = (compared_keys() - compared) / read;
    println!(
        "{} bytes are kept of one hostile Service; {each} keys are compared",
        grown / count
    );
    assert!(grown <= count * KEPT, "{grown} bytes for {count} Services");
    assert!(each <= COMPARED, "{each} keys");
    // What an owner needs is kept.
    let last = Name::named(Some("hostile"), Some(&format!("web-{}", HOSTILE - 1)));
    let last = store.get(&last).unwrap();
    let Some(Ok(wanted)) = &last.load_balancer else {
        panic!("{last:?}");
    };
    assert_eq!(wanted.share_key.as_deref(), Some("ours"));
    let told: usize = last.unknown_annotations.iter().map(String::len).sum();
    assert!((1..1_000).contains(&told), "{:?}", last.unknown_annotations);
}
