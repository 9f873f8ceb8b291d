use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use super::*;

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

fn parsed(text: &str) -> String {
    match parse(text) {
        Ok(keys) => format!("{} keys", keys.len()),
        Err(error) => error.to_string(),
    }
}

/// A file as the kubelet replaces it.
fn write(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

fn keyring(directory: &tempfile::TempDir, text: &str) -> Keyring {
    let path = directory.path().join("key");
    write(&path, text);
    Keyring::open_file(path).unwrap()
}

fn talk(from: &Keyring, to: &Keyring) -> bool {
    let sealed = from.seal(b"m", &node("a"), Purpose::Post, None).unwrap();
    to.open(&sealed, &node("a"), Purpose::Post).is_ok()
}

#[test]
fn the_key_file() {
    let many = format!("{ONE}\n").repeat(MAX_KEYS + 1);
    let not = |line| {
        let forms = "neither the base64 form nor the hexadecimal digits of 32 bytes";
        format!("line {line} of the key file is {forms}")
    };
    let empty = "the key file has no key".to_owned();
    let long = "the key file has more than 8 keys, or is longer than 4 KiB".to_owned();
    for (text, expected) in [
        (ONE, "1 keys".to_owned()),
        (&format!("{ONE}\n"), "1 keys".to_owned()),
        (
            &format!("# new\r\n {TWO} \r\n\r\n# old\n{ONE}"),
            "2 keys".to_owned(),
        ),
        ("", empty.clone()),
        ("# none\n\n", empty),
        ("AQEB", not(1)),
        (&format!("{ONE}\n{}", &ONE[4..]), not(2)),
        (&format!("{ONE}\n{}", &ONE[..43]), not(2)),
        (&format!("{ONE}{TWO}"), not(1)),
        (&"0aF9".repeat(16), "1 keys".to_owned()),
        (&"0aG9".repeat(16), not(1)),
        (&"+1F9".repeat(16), not(1)),
        (&"é".repeat(32), not(1)),
        (&many, long),
    ] {
        assert_eq!(parsed(text), expected, "{text:?}");
    }
}

#[test]
fn one_key_in_two_forms_is_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let hexadecimal = keyring(&directory, &"01".repeat(32));
    let base64 = keyring(&directory, ONE);
    assert!(talk(&hexadecimal, &base64));
}

#[test]
fn a_start_without_a_usable_file_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    assert!(matches!(
        Keyring::open_file(&path),
        Err(KeyFileError::Read(_))
    ));
    for (content, expected) in [
        (vec![0xff; 40], "Read"),
        (vec![b'\n'; 5000], "TooLong"),
        (vec![b'\n'; 4096], "Empty"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Keyring::open_file(&path).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }
}

/// Two processes, with several threads each.
#[test]
fn no_nonce_is_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let processes = [keyring(&directory, ONE), keyring(&directory, ONE)];
    let mut nonces = BTreeSet::new();
    thread::scope(|scope| {
        let work: Vec<_> = processes
            .iter()
            .flat_map(|process| [process; 4])
            .map(|process| {
                scope.spawn(|| {
                    let seal = || process.seal(b"m", &node("a"), Purpose::Post, None);
                    (0..500).map(|_| seal().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        for sealed in work.into_iter().flat_map(|work| work.join().unwrap()) {
            nonces.insert(sealed[1..25].to_vec());
        }
    });
    assert_eq!(nonces.len(), 4000);
    for process in &processes {
        assert_eq!(
            process.sealed.load(Ordering::Relaxed),
            2000,
            "a counter each"
        );
    }
}

#[test]
fn after_the_last_nonce_nothing_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let keyring = keyring(&directory, ONE);
    keyring.sealed.store(u64::MAX - 1, Ordering::Relaxed);
    let seal = || keyring.seal(b"m", &node("a"), Purpose::Post, None);
    assert!(seal().is_ok());
    assert_eq!(seal(), Err(SealError::Limit));
    assert_eq!(seal(), Err(SealError::Limit));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_read_within_ten_seconds_and_seals_after_five_minutes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (keyring(&one, ONE), keyring(&two, TWO));
    assert!(!talk(&old, &new) && !talk(&new, &old));
    write(&one.path().join("key"), TWO);
    let watch = old.watch();
    tokio::pin!(watch);
    let passes = async |seconds| timeout(Duration::from_secs(seconds), &mut watch).await;
    let mut passes = passes;
    assert!(passes(11).await.is_err());
    assert!(talk(&new, &old), "it was read");
    assert!(!talk(&old, &new), "others may not have it yet");
    assert!(passes(300).await.is_err());
    assert!(talk(&old, &new));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_open_makes_it_read_the_file_once_per_second() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (keyring(&one, ONE), keyring(&two, TWO));
    let watch = old.watch();
    tokio::pin!(watch);
    // One read is just behind us.
    let start = Instant::now();
    let until = async |at: u64, watch: &mut std::pin::Pin<_>| {
        let watch: &mut std::pin::Pin<&mut _> = watch;
        let _ = tokio::time::timeout_at(start + Duration::from_millis(at), watch).await;
    };
    until(10_500, &mut watch).await;
    write(&one.path().join("key"), TWO);
    assert!(!talk(&new, &old));
    until(10_900, &mut watch).await;
    assert!(!talk(&new, &old), "not more often than once per second");
    until(11_100, &mut watch).await;
    assert!(talk(&new, &old));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keyring = keyring(&directory, ONE);
    for content in ["", "nonsense"] {
        write(&directory.path().join("key"), content);
        let _ = timeout(Duration::from_hours(1), keyring.watch()).await;
        assert!(talk(&keyring, &keyring), "{content:?}");
    }
    std::fs::remove_file(directory.path().join("key")).unwrap();
    let _ = timeout(Duration::from_hours(1), keyring.watch()).await;
    assert!(talk(&keyring, &keyring));
}
