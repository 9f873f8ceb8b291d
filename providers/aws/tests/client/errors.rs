//! What goes wrong, and what the client says of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use ballast_aws::client::{Action, CallerIdentity, Cause, Client, Manner};
use ballast_aws::desired::Transport;
use ballast_aws::rate::{Limit, Limits, Urgency};
use ballast_aws_fake::{Config, Fake, Fault};

use crate::bed::{Bed, connection, listener, manner, security_group, target_group, tcp_check};

#[tokio::test]
async fn a_throttled_call_waits_and_is_made_again() {
    let limits = Limits {
        write: Limit::new(20, 20.0),
        ..Limits::NONE
    };
    let bed = Bed::limited(Config::default(), limits).await;
    bed.fake.fault(
        Fault::on("CreateTargetGroup")
            .times(2)
            .error("Throttling", "Rate exceeded"),
    );
    let create = target_group("web", Transport::Tcp, tcp_check());
    bed.call(&create).await.unwrap();
    let counts = bed.client.counts();
    let of = |result: &str| {
        let one = |count: &&_| {
            let count: &ballast_aws::client::Count = count;
            (count.action, count.result) == (Action::CreateTargetGroup, result)
        };
        counts.iter().find(one).map(|count| count.calls)
    };
    assert_eq!((of("throttled"), of("ok")), (Some(2), Some(1)));

    // Without patience it says so, and when to come back.
    let fault = Fault::on("DescribeSubnets").always();
    bed.fake
        .fault(fault.error_with_status(503, "RequestLimitExceeded", "Request limit exceeded."));
    let hasty = Manner::new(Urgency::Background, Duration::ZERO);
    let error = bed.client.subnets(&[], hasty).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Throttled { .. }));
    assert_eq!(error.code, "RequestLimitExceeded");
    assert_eq!(bed.fake.counts().of("DescribeSubnets"), 1);
    // With patience it gives up all the same, some day.
    let error = bed.client.subnets(&[], manner()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Throttled { .. }));
    assert_eq!(bed.fake.counts().of("DescribeSubnets"), 6);
}

#[tokio::test]
async fn a_call_that_finds_no_turn_is_not_made() {
    let limits = Limits {
        write: Limit::new(1, 0.01),
        ..Limits::NONE
    };
    let bed = Bed::limited(Config::default(), limits).await;
    bed.call(&target_group("one", Transport::Tcp, tcp_check()))
        .await
        .unwrap();
    let call = target_group("two", Transport::Tcp, tcp_check());
    let hasty = bed
        .client
        .call(&call, &bed.ids, Urgency::Service, Duration::ZERO);
    let error = hasty.await.unwrap_err();
    let Cause::Throttled { retry_after } = error.cause else {
        panic!("{error:?}");
    };
    assert!(
        (90..=100).contains(&retry_after.as_secs()),
        "{retry_after:?}"
    );
    assert_eq!(
        error.to_string(),
        "CreateTargetGroup: waits for AWS's limit of calls"
    );
    assert_eq!(bed.fake.counts().of("CreateTargetGroup"), 1);
    let counts = bed.client.counts();
    let postponed = counts.iter().find(|count| count.result == "postponed");
    assert_eq!(postponed.map(|count| count.calls), Some(1));
}

#[tokio::test]
async fn without_an_answer_the_effect_is_unknown() {
    let mut bed = Bed::new(Config::default()).await;
    bed.fake.fault(Fault::on("CreateTargetGroup").drop_after());
    let create = target_group("web", Transport::Tcp, tcp_check());
    let error = bed.call(&create).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    assert_eq!(
        bed.fake.counts().of("CreateTargetGroup"),
        1,
        "no hidden retry"
    );
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
    // The same call finds it.
    bed.make("web", &create).await;
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
    bed.fake
        .fault(Fault::on("CreateSecurityGroup").drop_before());
    let error = bed.call(&security_group("clients")).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    let fault = Fault::on("DescribeLoadBalancers").times(1);
    bed.fake
        .fault(fault.error_with_status(500, "InternalFailure", "An internal error"));
    let error = bed.client.all_load_balancers(manner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Cloud);
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends() {
    let bed = Bed::new(Config::default()).await;
    bed.fake.fault(Fault::on("CreateTargetGroup").hold_after());
    let start = std::time::Instant::now();
    let error = bed
        .call(&target_group("web", Transport::Tcp, tcp_check()))
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert_eq!(error.message, "AWS does not answer within 4.5 s");
    assert!(start.elapsed() >= Duration::from_millis(4_500));
}

#[tokio::test]
async fn nobody_listens() {
    let fake = Fake::start(Config::default()).await.unwrap();
    let connection = connection(&fake, Limits::NONE);
    let client = Client::connect(&connection).await.unwrap();
    drop(fake);
    // The connections of the fake may outlive it for a moment.
    let _ = client.all_load_balancers(manner()).await;
    let error = client.all_load_balancers(manner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert_eq!(error.code, "");
    let again = client.all_load_balancers(manner()).await.unwrap_err();
    assert_eq!(error.to_string(), again.to_string(), "the same each time");
    let error = client.subnets(&[], manner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_so_by_both_services() {
    let fake = Fake::start(Config::default()).await.unwrap();
    let mut connection = connection(&fake, Limits::NONE);
    connection.identity = CallerIdentity::Fixed {
        key: fake.credentials()[0].access_key.clone(),
        secret: "wrong".into(),
    };
    let client = Client::connect(&connection).await.unwrap();
    let elb = client.all_load_balancers(manner()).await.unwrap_err();
    let ec2 = client.subnets(&[], manner()).await.unwrap_err();
    assert_eq!(
        (elb.cause, ec2.cause),
        (Cause::Credentials, Cause::Credentials)
    );
    assert!(
        !format!("{connection:?}").contains("wrong"),
        "secrets are not shown"
    );
}

#[tokio::test]
async fn what_a_plan_uses_must_have_been_made() {
    let bed = Bed::new(Config::default()).await;
    let error = bed
        .call(&listener(80, Transport::Tcp, "web"))
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::Invalid);
    assert_eq!(bed.fake.counts().total(), 0);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\n\r\n<a>";
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b'x'; 8_192]).await.is_ok() {}
            });
        }
    });
    let fake = Fake::start(Config::default()).await.unwrap();
    let mut connection = connection(&fake, Limits::NONE);
    connection.endpoints.load_balancing = Some(url.clone());
    connection.endpoints.ec2 = Some(url);
    let client = Client::connect(&connection).await.unwrap();
    let elb = client.all_load_balancers(manner()).await.unwrap_err();
    let ec2 = client.subnets(&[], manner()).await.unwrap_err();
    for error in [elb, ec2] {
        assert_eq!(error.cause, Cause::Cloud, "{error}");
        let expected = "AWS's answer cannot be read: length limit exceeded";
        assert_eq!(error.message, expected);
    }
}
