use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::timeout;

use super::super::Keyring;
use super::*;

fn key(byte: u8) -> Key {
    Key::new([byte; 32])
}

fn line(byte: u8) -> String {
    format!("{byte:02x}").repeat(32) + "\n"
}

fn file(path: &Path, keys: &[u8]) {
    std::fs::write(
        path,
        keys.iter().map(|byte| line(*byte)).collect::<String>(),
    )
    .unwrap();
}

/// From other implementations: Python's hmac and hashlib, RFC 5869 by hand.
#[test]
fn a_seal_is_what_the_documentation_says() {
    let seal = Content::new(b"content").seal(&key(1)).unwrap();
    assert_eq!(
        seal.to_string(),
        "ff2aeb1b1bbbf816fa24500b04a2fdb5befde3689e60d1b73ef9f8dad6b358de"
    );
    assert_eq!(seal.to_string().parse(), Ok(seal));
    for wrong in [
        "",
        "00",
        &"0".repeat(63),
        &"g".repeat(64),
        &"0".repeat(66),
        "+1",
    ] {
        assert_eq!(wrong.parse::<ObjectSeal>(), Err(NoSeal), "{wrong}");
    }
}

proptest! {
    #[test]
    fn only_the_key_and_the_content_open_a_seal(
        content in proptest::collection::vec(any::<u8>(), 0..64),
        other in proptest::collection::vec(any::<u8>(), 0..64),
        keys in (any::<u8>(), any::<u8>()),
        bit in 0..256_usize,
    ) {
        let (one, two) = (key(keys.0), key(keys.1));
        let seal = Content::new(&content).seal(&one).unwrap();
        prop_assert!(Content::new(&content).is_sealed(&one, &[seal]));
        prop_assert_eq!(Content::new(&content).is_sealed(&two, &[seal]), keys.0 == keys.1);
        prop_assert_eq!(Content::new(&other).is_sealed(&one, &[seal]), content == other);
        let mut changed = seal;
        changed.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Content::new(&content).is_sealed(&one, &[changed]));
        prop_assert!(Content::new(&content).is_sealed(&one, &[changed, seal]), "one of several");
    }
}

/// The key changes in the two steps of docs/operations.md, and two nodes see each step at different
/// times: what either of them writes opens at the other one all the time.
#[tokio::test(start_paused = true)]
async fn the_key_changes_without_an_object_that_does_not_open() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = [0, 1].map(|node: usize| directories[node].path().join("keys"));
    for path in &paths {
        file(path, &[1]);
    }
    let rings = [0, 1].map(|node: usize| Keyring::open_file(&paths[node]).unwrap());
    let content = Content::new(b"content");
    // What each node has written; it writes only when a key of its file has not sealed it.
    let mut written = [0, 1].map(|node: usize| rings[node].seal_object(&content));
    let mut writes = [0, 0];
    let mut passes = async |written: &mut [Vec<ObjectSeal>; 2]| {
        let both = async {
            tokio::join!(rings[0].watch(), rings[1].watch());
        };
        let _ = timeout(Duration::from_secs(20), both).await;
        for node in [0, 1] {
            if !rings[node].seals_object(&content, &written[node]) {
                written[node] = rings[node].seal_object(&content);
                writes[node] += 1;
            }
            assert!(
                rings[1 - node].opens_object(&content, &written[node]),
                "of {node}"
            );
        }
    };
    for keys in [&[2, 1][..], &[2]] {
        for path in &paths {
            file(path, keys);
            // The other kubelet needs two minutes.
            for _ in 0..6 {
                passes(&mut written).await;
            }
        }
        for _ in 0..60 {
            passes(&mut written).await;
        }
    }
    assert_eq!(writes, [1, 1], "one for the new key, none for the old one");
    // A process that starts now knows the new key alone.
    let new = Keyring::open_file(&paths[0]).unwrap();
    assert!(new.opens_object(&content, &written[1]));
    assert!(!new.opens_object(&content, &[content.seal(&key(1)).unwrap()]));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_file_is_told_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    file(&path, &[1]);
    let ring = Keyring::open_file(&path).unwrap();
    let mut changes = ring.changes();
    changes.mark_unchanged();
    for (keys, told) in [
        (&[1][..], false),
        (&[2, 1], true),
        (&[2, 1], false),
        (&[2], true),
    ] {
        file(&path, keys);
        let _ = timeout(Duration::from_secs(20), ring.watch()).await;
        assert_eq!(changes.has_changed().unwrap(), told, "{keys:?}");
        changes.mark_unchanged();
    }
}
