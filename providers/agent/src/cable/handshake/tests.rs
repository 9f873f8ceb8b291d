use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};

use super::*;

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn identity(name: &str, key: &str) -> Identity {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, key).unwrap();
    let keyring = Arc::new(Keyring::open_file(path).unwrap());
    Identity::new(NodeName::new(name), 7, keyring)
}

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

/// Accepts a connection that already has all these bytes and says nothing more.
async fn accept(identity: &Identity, bytes: &[u8]) -> Result<Accepted, HandshakeError> {
    let (mut here, mut there) = duplex(64 * 1024);
    there.write_all(bytes).await.unwrap();
    there.shutdown().await.unwrap();
    identity.accept(&mut here).await
}

/// One whole handshake; returns what the dialling side sent, and the result of both sides.
async fn handshake(
    one: &Identity,
    two: &Identity,
) -> (Vec<u8>, Result<Process, HandshakeError>, Option<Process>) {
    let (mut here, mut outside) = duplex(4096);
    let (mut inside, mut there) = duplex(4096);
    let mut sent = Vec::new();
    let name = two.me().clone();
    let dialling = async move {
        let dialled = one.dial(&mut here, &name).await;
        drop(here);
        dialled
    };
    let accepting = async move {
        let accepted = two.accept(&mut there).await.ok()?;
        there.write_all(&accepted.welcome).await.ok()?;
        Some(accepted.process)
    };
    let passing = pass(&mut outside, &mut inside, &mut sent);
    let (dialled, accepted, ()) = tokio::join!(dialling, accepting, passing);
    (sent, dialled, accepted)
}

/// Between two connections until both end; keeps what the first one says.
async fn pass(one: &mut DuplexStream, two: &mut DuplexStream, kept: &mut Vec<u8>) {
    let (mut from_one, mut from_two) = ([0; 512], [0; 512]);
    loop {
        let count = tokio::select! {
            count = one.read(&mut from_one) => {
                let bytes = &from_one[..count.unwrap()];
                kept.extend_from_slice(bytes);
                let _ = two.write_all(bytes).await;
                bytes.len()
            }
            count = two.read(&mut from_two) => {
                let bytes = &from_two[..count.unwrap()];
                let _ = one.write_all(bytes).await;
                bytes.len()
            }
        };
        if count == 0 {
            let _ = (one.shutdown().await, two.shutdown().await);
            return;
        }
    }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_one_is() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let (_, dialled, accepted) = handshake(&one, &two).await;
    assert_eq!(dialled.unwrap(), two.process);
    assert_eq!(accepted, Some(one.process));
}

#[tokio::test]
async fn without_the_key_there_is_no_cable() {
    let (one, two) = (identity("one", ONE), identity("two", TWO));
    let (_, dialled, accepted) = handshake(&one, &two).await;
    assert!(dialled.is_err());
    assert_eq!(accepted, None);
}

#[tokio::test]
async fn nobody_has_a_cable_to_itself() {
    let (one, again) = (identity("one", ONE), identity("one", ONE));
    let (_, dialled, accepted) = handshake(&one, &again).await;
    assert!(dialled.is_err());
    assert_eq!(accepted, None);
}

#[tokio::test]
async fn a_recorded_connection_is_refused() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let (sent, dialled, _) = handshake(&one, &two).await;
    assert!(dialled.is_ok());
    let refused = accept(&two, &sent).await;
    assert!(
        matches!(refused, Err(HandshakeError::Unexpected)),
        "{refused:?}"
    );
    let refused = accept(&identity("three", ONE), &sent).await;
    assert!(
        matches!(refused, Err(HandshakeError::NotOpened)),
        "{refused:?}"
    );
}

/// The dialling side gets its own words back.
#[tokio::test]
async fn an_echo_is_refused() {
    for peer in ["two", "one"] {
        let one = identity("one", ONE);
        let (mut here, mut there) = duplex(4096);
        let echo = async move {
            let mut buffer = [0; 512];
            while let Ok(count @ 1..) = there.read(&mut buffer).await {
                let _ = there.write_all(&buffer[..count]).await;
            }
        };
        let dial = async move { one.dial(&mut here, &node(peer)).await };
        let (dialled, ()) = tokio::join!(dial, echo);
        assert!(dialled.is_err(), "{peer}");
    }
}

/// Everything else that a side could send in place of the next hello.
#[tokio::test]
async fn a_hello_of_another_step_or_side_is_refused() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let hello = |step, mine, yours| one.sealed(step, mine, yours, two.me(), None).unwrap();
    for step in [0, 2, 3, 4, 5] {
        let refused = accept(&two, &hello(step, 1, 0)).await;
        assert!(matches!(refused, Err(HandshakeError::Unexpected)), "{step}");
    }
    let refused = accept(&two, &hello(1, 1, 9)).await;
    assert!(matches!(refused, Err(HandshakeError::Unexpected)));
    // The right first hello, then a proof that does not fit.
    for (step, mine, change) in [(3, 1, 1), (3, 2, 0), (1, 1, 0), (4, 1, 0)] {
        let (mut here, mut there) = duplex(4096);
        let accepting = two.accept(&mut here);
        let dialling = async {
            there.write_all(&hello(1, 1, 0)).await.unwrap();
            let (answer, _) = one.receive(&mut there).await.unwrap();
            let proof = hello(step, mine, answer.mine + change);
            there.write_all(&proof).await.unwrap();
        };
        let (refused, ()) = tokio::join!(accepting, dialling);
        assert!(
            matches!(refused, Err(HandshakeError::Unexpected)),
            "{step} {mine} {change}"
        );
    }
}

/// The accepting side answers with something else, or as another node.
#[tokio::test]
async fn an_answer_of_another_node_or_connection_is_refused() {
    let (one, two, three) = (
        identity("one", ONE),
        identity("two", ONE),
        identity("three", ONE),
    );
    for (who, step, change) in [(&three, 2, 0), (&two, 2, 1), (&two, 4, 0), (&two, 1, 0)] {
        let (mut here, mut there) = duplex(4096);
        let (one, two) = (&one, &two);
        let accepting = async move {
            let (first, _) = two.receive(&mut there).await.unwrap();
            let answer = who.sealed(step, 5, first.mine + change, one.me(), None);
            there.write_all(&answer.unwrap()).await.unwrap();
        };
        let name = node("two");
        let (refused, ()) = tokio::join!(one.dial(&mut here, &name), accepting);
        assert!(
            matches!(refused, Err(HandshakeError::Unexpected)),
            "{step} {change}"
        );
    }
}

/// The last step, too, belongs to its connection and side.
#[tokio::test]
async fn a_welcome_of_another_connection_is_refused() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    for (step, mine, yours) in [(4, 0, 1u128), (4, 1, 0), (2, 0, 0), (3, 0, 0)] {
        let (mut here, mut there) = duplex(4096);
        let (one, two) = (&one, &two);
        let accepting = async move {
            let (first, _) = two.receive(&mut there).await.unwrap();
            let sealed = |step, mine: Nonce, yours: Nonce| {
                two.sealed(step, 5 + mine, first.mine + yours, one.me(), None)
            };
            there.write_all(&sealed(2, 0, 0).unwrap()).await.unwrap();
            two.receive(&mut there).await.unwrap();
            there
                .write_all(&sealed(step, mine, yours).unwrap())
                .await
                .unwrap();
        };
        let name = node("two");
        let (refused, ()) = tokio::join!(one.dial(&mut here, &name), accepting);
        assert!(
            matches!(refused, Err(HandshakeError::Unexpected)),
            "{step} {mine} {yours}"
        );
    }
}

/// A peer without room closes the connection after the proof: that is no cable, so its end is
/// no end of a process.
#[tokio::test]
async fn without_a_welcome_there_is_no_cable() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let (mut here, mut there) = duplex(4096);
    let accepting = async move { two.accept(&mut there).await.is_ok() };
    let name = node("two");
    let (dialled, accepted) = tokio::join!(one.dial(&mut here, &name), accepting);
    assert!(accepted);
    assert!(matches!(dialled, Err(HandshakeError::Connection(_))));
}

#[tokio::test]
async fn a_hello_that_is_cut_or_too_long_is_refused() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let hello = one.sealed(1, 1, 0, two.me(), None).unwrap();
    for length in 0..hello.len() {
        let refused = accept(&two, &hello[..length]).await;
        assert!(
            matches!(refused, Err(HandshakeError::Connection(_))),
            "{length}"
        );
    }
    let refused = accept(&two, &[4, 1, 0, 0]).await;
    assert!(
        matches!(refused, Err(HandshakeError::TooLong)),
        "1025 bytes"
    );
    let refused = accept(&two, &[vec![4, 0], vec![1; 1024]].concat()).await;
    assert!(
        matches!(refused, Err(HandshakeError::NotOpened)),
        "1024 bytes"
    );
    let refused = accept(&two, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(refused, Err(HandshakeError::TooLong)), "a browser");
}

#[tokio::test]
async fn the_longest_name_fits() {
    let name = "n".repeat(MAX_NAME);
    let (one, two) = (identity(&name, ONE), identity("two", ONE));
    let (_, dialled, accepted) = handshake(&one, &two).await;
    assert!(dialled.is_ok());
    assert_eq!(accepted, Some(one.process));
    let one = identity(&"n".repeat(MAX_NAME + 1), ONE);
    let (_, dialled, accepted) = handshake(&one, &two).await;
    assert!(dialled.is_err());
    assert_eq!(accepted, None);
}

/// A hello that comes byte by byte does not prolong the time.
#[tokio::test(start_paused = true)]
async fn a_slow_hello_is_late() {
    let (one, two) = (identity("one", ONE), identity("two", ONE));
    let hello = one.sealed(1, 1, 0, two.me(), None).unwrap();
    let (mut here, mut there) = duplex(4096);
    let slow = async {
        for byte in hello {
            there.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let start = tokio::time::Instant::now();
    let accepting = tokio::time::timeout(super::super::PATIENCE.handshake, two.accept(&mut here));
    tokio::select! {
        refused = accepting => assert!(refused.is_err()),
        () = slow => panic!("it waited for all of it"),
    }
    assert!(start.elapsed() <= Duration::from_millis(2001));
}
