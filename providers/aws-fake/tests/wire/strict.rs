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
