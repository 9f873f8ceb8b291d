//! Who may call.

use ballast_aws_fake::{Config, Credentials};
use jiff::{SignedDuration, Timestamp};

use crate::client::{Client, EC2, ELB, Signer, code};

const READ: &str = "Action=DescribeLoadBalancers&Version=2015-12-01";
const SUBNETS: &str = "Action=DescribeSubnets&Version=2016-11-15";

/// A change of the signer, and status and code of either service.
type Row = (fn(&mut Signer), u16, &'static str, u16, &'static str);

#[tokio::test]
async fn only_right_signatures_pass() {
    let client = Client::start().await;
    let other = |change: fn(&mut Signer)| {
        move |mut signer: Signer| {
            change(&mut signer);
            signer
        }
    };
    let table: [Row; 6] = [
        (|_| {}, 200, "", 200, ""),
        (
            |it| it.credentials.secret.push('x'),
            403,
            "SignatureDoesNotMatch",
            401,
            "AuthFailure",
        ),
        (
            |it| it.credentials.access_key.push('x'),
            403,
            "InvalidClientTokenId",
            401,
            "AuthFailure",
        ),
        (
            |it| it.region = "us-east-1".into(),
            403,
            "SignatureDoesNotMatch",
            401,
            "AuthFailure",
        ),
        (
            |it| it.time = Timestamp::now() - SignedDuration::from_mins(6),
            403,
            "SignatureDoesNotMatch",
            400,
            "RequestExpired",
        ),
        (
            |it| it.credentials.session_token = Some("token".into()),
            403,
            "InvalidClientTokenId",
            401,
            "AuthFailure",
        ),
    ];
    for (row, (change, elb, elb_code, ec2, ec2_code)) in table.into_iter().enumerate() {
        for (service, body, status, expected) in
            [(ELB, READ, elb, elb_code), (EC2, SUBNETS, ec2, ec2_code)]
        {
            let signer = other(change)(client.signer(service));
            let (got, answer) = client.send(&signer, body).await.unwrap();
            assert_eq!(got.as_u16(), status, "row {row}: {answer}");
            if !expected.is_empty() {
                assert_eq!(code(&answer), expected, "row {row}");
            }
        }
    }
}

#[tokio::test]
async fn a_signature_for_one_service_is_none_for_the_other() {
    let client = Client::start().await;
    let signer = client.signer(EC2);
    // The scope decides which service answers, and that one does not know the action.
    let (status, answer) = client.send(&signer, READ).await.unwrap();
    assert_eq!((status.as_u16(), code(&answer)), (400, "InvalidAction"));
    let signer = Signer {
        service: "s3",
        ..client.signer(ELB)
    };
    let (status, answer) = client.send(&signer, READ).await.unwrap();
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (403, "SignatureDoesNotMatch")
    );
}

#[tokio::test]
async fn temporary_credentials_need_their_token() {
    let config = Config {
        credentials: vec![Credentials {
            access_key: "ASIAFAKE".into(),
            secret: "secret".into(),
            session_token: Some("token".into()),
        }],
        ..Config::default()
    };
    let client = Client::new(config).await;
    for (token, status) in [(Some("token"), 200), (Some("other"), 403), (None, 403)] {
        let mut signer = client.signer(ELB);
        signer.credentials.session_token = token.map(str::to_owned);
        let (got, answer) = client.send(&signer, READ).await.unwrap();
        assert_eq!(got.as_u16(), status, "{token:?}: {answer}");
    }
}
