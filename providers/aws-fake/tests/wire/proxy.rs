//! The proxy, with the fake as the cloud behind it.

use std::time::Duration;

use ballast_aws_fake::{Bucket, Fault, Outcome, Proxy, Throttle};
use http::StatusCode;

use crate::client::{Client, EC2, ELB, code, text};

const LISTS: &str = "Action=DescribeLoadBalancers&Version=2015-12-01";
const ACTIVE: &str =
    "Action=DescribeLoadBalancers&LoadBalancerArns.member.1=arn&Version=2015-12-01";
const SUBNETS: &str = "Action=DescribeSubnets&Version=2016-11-15";

async fn start() -> (Client, Proxy) {
    let client = Client::start().await;
    let address = client.fake.url();
    let address = address.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::start(address, &client.fake.region()).await.unwrap();
    (client, proxy)
}

#[tokio::test]
async fn answers_come_as_they_are_and_calls_are_counted() {
    let (client, proxy) = start().await;
    let url = proxy.url();
    let ask = async |service, body| {
        let signer = client.signer(service);
        client.send_to(&url, &signer, body).await.unwrap()
    };
    let (status, subnets) = ask(EC2, SUBNETS).await;
    assert_eq!(status, StatusCode::OK);
    let (_, directly) = client.send(&client.signer(EC2), SUBNETS).await.unwrap();
    let without_id = |xml: &str| xml.replace(text(xml, "requestId"), "");
    assert_eq!(without_id(&subnets), without_id(&directly));
    ask(ELB, LISTS).await;
    let (status, answer) = ask(ELB, ACTIVE).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(code(&answer), "ValidationError");
    let counts = proxy.counts();
    assert_eq!((counts.total(), counts.polls), (3, 1));
    assert_eq!(client.fake.counts().total(), 4);
    let outcomes: Vec<_> = proxy.calls().into_iter().map(|call| call.outcome).collect();
    let refused = Outcome::Refused("ValidationError".into());
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done, refused]);
}

#[tokio::test]
async fn what_is_throttled_or_faulty_is_not_forwarded() {
    let (client, proxy) = start().await;
    let url = proxy.url();
    let ask = async |body| {
        let signer = client.signer(ELB);
        client.send_to(&url, &signer, body).await
    };
    proxy.set_throttle(Some(Throttle {
        read: Bucket::new(1.0, 0.001),
        ..Throttle::AWS
    }));
    let (status, _) = ask(LISTS).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let (_, answer) = ask(LISTS).await.unwrap();
    assert_eq!(code(&answer), "Throttling");
    assert_eq!(proxy.counts().throttled, 1);
    proxy.set_throttle(None);
    proxy.fault(Fault::any().drop_before());
    ask(LISTS).await.unwrap_err();
    assert_eq!(client.fake.counts().total(), 1);
    proxy.fault(Fault::any().drop_after());
    ask(LISTS).await.unwrap_err();
    assert_eq!(client.fake.counts().total(), 2);
    let began = std::time::Instant::now();
    proxy.set_latency(Duration::from_millis(50));
    ask(LISTS).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(50));
}
