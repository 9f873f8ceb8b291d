//! Faults, limits and the log of calls.

use std::time::Duration;

use ballast_aws_fake::{Config, Fault, Outcome, Throttle, Time};

use crate::client::{Client, EC2, ELB, code};

const GROUP: &str = "Action=CreateSecurityGroup&Version=2016-11-15&GroupName=g&GroupDescription=d&VpcId=vpc-0ba11a57";
const LIST: &str = "Action=DescribeLoadBalancers&Version=2015-12-01";

#[tokio::test]
async fn a_dropped_call_may_have_had_its_effect() {
    let client = Client::start().await;
    let before = client.fake.snapshot().security_groups.len();
    client.fake.fault(Fault::writes().drop_before());
    client.fake.fault(Fault::writes().nth(2).drop_after());
    let signer = client.signer(EC2);
    assert!(client.send(&signer, GROUP).await.is_err());
    assert_eq!(client.fake.snapshot().security_groups.len(), before);
    assert!(client.send(&signer, GROUP).await.is_err());
    assert_eq!(client.fake.snapshot().security_groups.len(), before + 1);
    let (_, answer) = client.send(&signer, GROUP).await.unwrap();
    assert_eq!(code(&answer), "InvalidGroup.Duplicate");
    let outcomes: Vec<Outcome> = client
        .fake
        .calls()
        .into_iter()
        .map(|it| it.outcome)
        .collect();
    assert_eq!(
        outcomes,
        [
            Outcome::DroppedBefore,
            Outcome::DroppedAfter,
            Outcome::Refused("InvalidGroup.Duplicate".into())
        ]
    );
}

#[tokio::test]
async fn an_error_comes_as_the_service_gives_it() {
    let client = Client::start().await;
    let down = Fault::any().error_with_status(503, "ServiceUnavailable", "a < b");
    client.fake.fault(down.times(2));
    let (status, answer) = client.send(&client.signer(ELB), LIST).await.unwrap();
    assert_eq!(status.as_u16(), 503);
    assert!(
        answer.contains("<Type>Receiver</Type><Code>ServiceUnavailable</Code><Message>a &lt; b")
    );
    let (_, answer) = client.send(&client.signer(EC2), GROUP).await.unwrap();
    assert!(answer.contains("<Response><Errors><Error><Code>ServiceUnavailable</Code>"));
    let (status, _) = client.send(&client.signer(ELB), LIST).await.unwrap();
    assert_eq!(status.as_u16(), 200);
}

#[tokio::test]
async fn a_held_call_waits_for_the_test() {
    let client = Client::start().await;
    client
        .fake
        .fault(Fault::on("CreateSecurityGroup").hold_after());
    let signer = client.signer(EC2);
    let before = client.fake.snapshot().security_groups.len();
    let call = client.send(&signer, GROUP);
    let test = async {
        client.fake.held().await;
        assert_eq!(client.fake.snapshot().security_groups.len(), before + 1);
        client.fake.release();
    };
    let (answer, ()) = tokio::join!(call, test);
    assert_eq!(answer.unwrap().0.as_u16(), 200);
}

/// Kills a client while its call is held, before the call or after it.
#[tokio::test]
async fn a_client_can_die_while_its_call_is_held() {
    for (fault, made) in [
        (Fault::any().hold_before(), false),
        (Fault::any().hold_after(), true),
    ] {
        let client = Client::start().await;
        client.fake.fault(fault);
        let before = client.fake.snapshot();
        {
            let signer = client.signer(EC2);
            let call = std::pin::pin!(client.send(&signer, GROUP));
            tokio::select! {
                _ = call => unreachable!("it is held"),
                () = client.fake.held() => {}
            }
        }
        client.fake.idle().await;
        client.fake.release();
        let after = client.fake.snapshot();
        let new = after.security_groups.len() - before.security_groups.len();
        assert_eq!(new, usize::from(made));
        let outcome = if made { Outcome::Done } else { Outcome::Open };
        assert_eq!(client.fake.calls()[0].outcome, outcome);
    }
}

#[tokio::test]
async fn a_delay_ends_when_the_clock_is_moved() {
    let client = Client::start().await;
    client
        .fake
        .fault(Fault::any().delay(Duration::from_hours(1)));
    let signer = client.signer(ELB);
    let call = client.send(&signer, LIST);
    let test = async {
        while client.fake.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        // The call may enter its wait after this; moving the clock twice ends it all the same.
        for _ in 0..3 {
            client.fake.advance(Duration::from_hours(1));
            tokio::task::yield_now().await;
        }
    };
    let (answer, ()) = tokio::join!(call, test);
    assert_eq!(answer.unwrap().0.as_u16(), 200);
}

#[tokio::test]
async fn a_call_without_a_token_is_throttled() {
    let client = Client::new(Config {
        throttle: Some(Throttle::AWS),
        ..Config::default()
    })
    .await;
    let signer = client.signer(ELB);
    let mut refused = 0;
    for _ in 0..45 {
        let (status, answer) = client.send(&signer, LIST).await.unwrap();
        if status.as_u16() != 200 {
            assert_eq!((status.as_u16(), code(&answer)), (400, "Throttling"));
            refused += 1;
        }
    }
    assert_eq!(refused, 5);
    let counts = client.fake.counts();
    assert_eq!((counts.total(), counts.throttled), (45, 5));
    assert_eq!((counts.reads(), counts.writes()), (45, 0));
    client.fake.advance(Duration::from_secs(1));
    let (status, _) = client.send(&signer, LIST).await.unwrap();
    assert_eq!(status.as_u16(), 200);
}

#[tokio::test]
async fn real_time_can_run_faster() {
    let client = Client::new(Config {
        time: Time::Scaled(10_000.0),
        latency: Duration::from_secs(100),
        ..Config::default()
    })
    .await;
    let before = client.fake.now();
    let (status, _) = client.send(&client.signer(ELB), LIST).await.unwrap();
    assert_eq!(status.as_u16(), 200);
    assert!(client.fake.now() >= before + Duration::from_secs(100));
}

/// With tokio's paused clock, time passes when there is nothing else to do: buckets of real size
/// cost no time, and no time-out of the client ends early.
#[tokio::test(start_paused = true)]
async fn real_time_can_be_paused() {
    let client = Client::new(Config {
        time: Time::Scaled(1.0),
        latency: Duration::from_millis(100),
        throttle: Some(Throttle::AWS),
        ..Config::default()
    })
    .await;
    for call in 1..=300 {
        let signer = client.signer(ELB);
        let answer = tokio::time::timeout(Duration::from_millis(200), client.send(&signer, LIST));
        let (status, _) = answer.await.expect("no time-out").unwrap();
        assert_eq!(status.as_u16(), 200, "{call}");
    }
    let took = client.fake.now();
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(31),
        "{took:?}"
    );
}

#[tokio::test]
async fn what_is_foreign_is_compared() {
    let client = Client::start().await;
    client.fake.remember_foreign();
    assert!(client.fake.foreign_unchanged());
    let signer = client.signer(EC2);
    // New objects are nobody's before they exist.
    client.send(&signer, GROUP).await.unwrap();
    assert!(client.fake.foreign_unchanged());
    let tag = "Action=CreateTags&Version=2016-11-15&ResourceId.1=sg-0000000000000node&Tag.1.Key=a&Tag.1.Value=b";
    client.send(&signer, tag).await.unwrap();
    assert_eq!(client.fake.foreign_changes().len(), 1);
    client.fake.forget_foreign("sg-0000000000000node");
    assert!(client.fake.foreign_unchanged());
}
