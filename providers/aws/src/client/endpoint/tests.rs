use aws_config::{BehaviorVersion, Region};

use super::*;

fn config() -> aws_types::sdk_config::Builder {
    SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12())
}

async fn found(
    config: aws_types::sdk_config::Builder,
    given: &Endpoints,
    region: &str,
) -> Result<(String, String), ConnectError> {
    let config = config.region(Region::new(region.to_owned())).build();
    let found = resolve(&config, given, region).await?;
    Ok((found.load_balancing, found.ec2))
}

#[tokio::test]
async fn the_endpoints_of_each_partition() {
    let table = [
        (
            "eu-west-1",
            "https://elasticloadbalancing.eu-west-1.amazonaws.com",
            "https://ec2.eu-west-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "https://elasticloadbalancing.cn-north-1.amazonaws.com.cn",
            "https://ec2.cn-north-1.amazonaws.com.cn",
        ),
        (
            "us-gov-west-1",
            "https://elasticloadbalancing.us-gov-west-1.amazonaws.com",
            "https://ec2.us-gov-west-1.amazonaws.com",
        ),
    ];
    for (region, load_balancing, ec2) in table {
        let both = found(config(), &Endpoints::default(), region).await;
        assert_eq!(both, Ok((load_balancing.into(), ec2.into())));
    }
    let fips = found(config().use_fips(true), &Endpoints::default(), "us-east-1").await;
    let (_, ec2) = fips.unwrap();
    assert_eq!(ec2, "https://ec2-fips.us-east-1.amazonaws.com");
    let dual = found(
        config().use_dual_stack(true),
        &Endpoints::default(),
        "us-east-1",
    )
    .await;
    let (_, ec2) = dual.unwrap();
    assert_eq!(ec2, "https://ec2.us-east-1.api.aws");
}

#[tokio::test]
async fn what_is_given_wins() {
    let given = Endpoints {
        load_balancing: Some("http://127.0.0.1:1".into()),
        ec2: None,
    };
    let global = config().endpoint_url("http://127.0.0.1:2");
    let both = found(global, &given, "eu-west-1").await;
    assert_eq!(
        both,
        Ok(("http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()))
    );
    let both = found(config(), &given, "eu-west-1").await;
    let ec2 = "https://ec2.eu-west-1.amazonaws.com".to_owned();
    assert_eq!(both, Ok(("http://127.0.0.1:1".into(), ec2)));
}

#[tokio::test]
async fn an_endpoint_must_be_a_url() {
    for url in ["", "localhost:5000", "ftp://localhost", "/path"] {
        let given = Endpoints {
            load_balancing: None,
            ec2: Some(url.into()),
        };
        let error = found(config(), &given, "eu-west-1").await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Endpoint { service: "EC2", .. }),
            "{url}"
        );
    }
}
