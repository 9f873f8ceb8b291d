//! What is not in AWS's API is refused.

use crate::client::{Client, code};

#[tokio::test]
async fn unknown_things_are_refused() {
    let mut client = Client::start().await;
    let table = [
        ("Action=SetRulePriorities", "InvalidAction"),
        ("Foo=bar", "InvalidAction"),
        ("Action=DescribeLoadBalancers&Foo=bar", "ValidationError"),
        ("Action=DescribeLoadBalancers&PageSize=0", "ValidationError"),
        (
            "Action=DescribeLoadBalancers&PageSize=401",
            "ValidationError",
        ),
        (
            "Action=DescribeLoadBalancers&PageSize=many",
            "ValidationError",
        ),
        ("Action=DescribeLoadBalancers&Marker=x", "ValidationError"),
        ("Action=DescribeLoadBalancers&Names.1=a", "ValidationError"),
        ("Action=DescribeLoadBalancers&Names=a", "ValidationError"),
        (
            "Action=DescribeLoadBalancers&Names.member.2=a",
            "ValidationError",
        ),
        (
            "Action=DescribeLoadBalancers&Names.member.01=a",
            "ValidationError",
        ),
        (
            "Action=DescribeLoadBalancers&Names.member.1.Name=a",
            "ValidationError",
        ),
        (
            "Action=DescribeLoadBalancers&Names.member.1=a",
            "LoadBalancerNotFound",
        ),
        (
            "Action=DescribeLoadBalancers&Action=DescribeTags",
            "MalformedQueryString",
        ),
        (
            "Action=DescribeLoadBalancers&Marker=%zz",
            "MalformedQueryString",
        ),
        ("Action=CreateLoadBalancer", "ValidationError"),
        (
            "Action=AddTags&Tags.member.1.Key=a&Tags.member.1.Val=b",
            "ValidationError",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(code(&client.elb(body).await), expected, "{body}");
    }
    let table = [
        ("Action=RunInstances", "InvalidAction"),
        ("Action=DescribeSubnets&Foo=bar", "UnknownParameter"),
        (
            "Action=DescribeSubnets&SubnetId.member.1=a",
            "UnknownParameter",
        ),
        ("Action=DescribeSubnets&SubnetIds.1=a", "UnknownParameter"),
        (
            "Action=DescribeSubnets&SubnetId.1=subnet-1",
            "InvalidSubnetID.NotFound",
        ),
        (
            "Action=DescribeSubnets&MaxResults=4",
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeSubnets&NextToken=x",
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeSubnets&SubnetId.1=subnet-public-a&MaxResults=5",
            "InvalidParameterCombination",
        ),
        (
            "Action=DescribeSubnets&Filter.1.Name=colour&Filter.1.Value.1=red",
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeSubnets&Filter.1.Name=vpc-id",
            "InvalidParameterValue",
        ),
        ("Action=CreateSecurityGroup&GroupName=a", "MissingParameter"),
        (
            "Action=AuthorizeSecurityGroupIngress&GroupId=sg-0000000000000node&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0/8",
            "MissingParameter",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(code(&client.ec2(body).await), expected, "{body}");
    }
}

#[tokio::test]
async fn a_call_needs_the_version_of_its_service() {
    let client = Client::start().await;
    for (service, body) in [
        (crate::client::ELB, "Action=DescribeTags&Version=2012-06-01"),
        (
            crate::client::EC2,
            "Action=DescribeSubnets&Version=2014-10-01",
        ),
        (crate::client::EC2, "Action=DescribeSubnets"),
    ] {
        let (_, answer) = client.send(&client.signer(service), body).await.unwrap();
        assert_eq!(code(&answer), "NoSuchVersion", "{body}");
    }
}

#[tokio::test]
async fn calls_about_certificates_that_aws_does_not_know_are_refused() {
    let mut client = Client::start().await;
    let table = [
        ("Action=AddListenerCertificates", "ValidationError"),
        (
            "Action=AddListenerCertificates&ListenerArn=x&Certificates.member.1.CertificateArn=y&Certificates.member.1.IsDefault=true",
            "ValidationError",
        ),
        ("Action=RemoveListenerCertificates", "ValidationError"),
        ("Action=DescribeListenerCertificates", "ValidationError"),
        (
            "Action=DescribeListenerCertificates&ListenerArn=x&Marker=x",
            "ValidationError",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(code(&client.elb(body).await), expected, "{body}");
    }
}

#[tokio::test]
async fn capacity_is_reserved_or_cancelled_and_never_both() {
    let mut client = Client::start().await;
    let action = "Action=ModifyCapacityReservation&LoadBalancerArn=arn:aws:elasticloadbalancing:x:loadbalancer/net/a/b";
    let units = "&MinimumLoadBalancerCapacity.CapacityUnits=5500";
    let cancel = "&ResetCapacityReservation=true";
    let table = [
        (String::new(), "ValidationError"),
        (format!("{units}{cancel}"), "ValidationError"),
        (units.replace("5500", "0"), "ValidationError"),
        (units.to_owned(), "LoadBalancerNotFound"),
        (cancel.to_owned(), "LoadBalancerNotFound"),
    ];
    for (rest, expected) in table {
        let body = format!("{action}{rest}");
        assert_eq!(code(&client.elb(&body).await), expected, "{body}");
    }
}

#[tokio::test]
async fn rules_have_one_condition_and_one_action() {
    let mut client = Client::start().await;
    let action = "Action=CreateRule&ListenerArn=arn:aws:elasticloadbalancing:x:listener/net/a/b/c&Priority=1";
    let condition = "&Conditions.member.1.Field=source-ip&Conditions.member.1.SourceIpConfig.IpAddressType=ipv4";
    let forward = "&Actions.member.1.Type=forward&Actions.member.1.TargetGroupArn=x";
    let table = [
        (String::new(), "ListenerNotFound"),
        (format!("{condition}{forward}"), "ListenerNotFound"),
        (
            format!("{condition}{}", condition.replace("member.1", "member.2")),
            "ValidationError",
        ),
        (
            format!("{condition}&Conditions.member.1.SourceIpConfig.Values.member.1=10.0.0.0/8"),
            "ValidationError",
        ),
        (
            format!("{condition}&Conditions.member.1.Values.member.1=10.0.0.0/8"),
            "ValidationError",
        ),
        (
            condition.replace("source-ip", "host-header"),
            "ValidationError",
        ),
        (
            "&Conditions.member.1.Field=source-ip".to_owned(),
            "ValidationError",
        ),
        (
            format!("{forward}{}", forward.replace("member.1", "member.2")),
            "TooManyActions",
        ),
        (
            forward.replace("=forward", "=redirect"),
            "InvalidLoadBalancerAction",
        ),
        (
            "&Transforms.member.1.Type=url-rewrite".to_owned(),
            "ValidationError",
        ),
    ];
    for (rest, expected) in table {
        let body = format!("{action}{rest}");
        assert_eq!(code(&client.elb(&body).await), expected, "{body}");
    }
    let table = [
        ("Action=CreateRule&ListenerArn=x", "ValidationError"),
        (
            "Action=CreateRule&ListenerArn=x&Priority=first",
            "ValidationError",
        ),
        ("Action=DescribeRules", "ValidationError"),
        (
            "Action=DescribeRules&ListenerArn=x&RuleArns.member.1=y",
            "ValidationError",
        ),
        ("Action=ModifyRule", "ValidationError"),
        ("Action=DeleteRule&RuleArn=x", "ValidationError"),
        (
            "Action=DeleteRule&RuleArn=arn:aws:elasticloadbalancing:x:listener-rule/net/a/b/c/d",
            "RuleNotFound",
        ),
        (
            "Action=CreateLoadBalancer&Name=a&EnablePrefixForIpv6SourceNat=yes",
            "ValidationError",
        ),
        (
            "Action=CreateLoadBalancer&Name=a&SubnetMappings.member.1.SubnetId=x&SubnetMappings.member.1.IPv6Address=10.0.0.1",
            "ValidationError",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(code(&client.elb(body).await), expected, "{body}");
    }
}
