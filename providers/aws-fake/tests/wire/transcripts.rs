//! Whole stories, with the XML of every answer.

use std::time::Duration;

use ballast_aws_fake::Config;
use ballast_aws_fake::state::seed::Network;

use crate::client::{Client, text};

/// From a security group to a load balancer whose target is healthy, and back.
#[tokio::test]
async fn a_load_balancer_from_creation_to_deletion() {
    let mut it = Client::start().await;
    let answer = it
        .ec2("Action=CreateSecurityGroup&GroupName=bl-clients&GroupDescription=Clients&VpcId=vpc-0ba11a57&TagSpecification.1.ResourceType=security-group&TagSpecification.1.Tag.1.Key=ballast.dev%2Fcluster&TagSpecification.1.Tag.1.Value=a%20%26%20b")
        .await;
    let group = text(&answer, "groupId").to_owned();
    it.ec2(&format!("Action=AuthorizeSecurityGroupIngress&GroupId={group}&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=80&IpPermissions.1.ToPort=80&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0%2F0&IpPermissions.1.IpRanges.1.Description=all&IpPermissions.1.PrefixListIds.1.PrefixListId=pl-offices"))
        .await;
    it.ec2("Action=DescribeSecurityGroups&MaxResults=1000&Filter.1.Name=tag%3Aballast.dev%2Fcluster&Filter.1.Value.1=a%20*")
        .await;
    let answer = it
        .elb("Action=CreateTargetGroup&Name=bl-web-80&Protocol=TCP&Port=30080&VpcId=vpc-0ba11a57&TargetType=instance&HealthCheckProtocol=HTTP&HealthCheckPort=10256&HealthCheckPath=%2Fhealthz&Matcher.HttpCode=200&HealthCheckIntervalSeconds=10&HealthyThresholdCount=2&Tags.member.1.Key=a&Tags.member.1.Value=b")
        .await;
    let target_group = text(&answer, "TargetGroupArn").to_owned();
    it.elb(&format!("Action=RegisterTargets&TargetGroupArn={target_group}&Targets.member.1.Id=i-00000001&Targets.member.2.Id=i-00000002"))
        .await;
    let answer = it
        .elb(&format!("Action=CreateLoadBalancer&Name=bl-web&Type=network&Scheme=internal&SubnetMappings.member.1.SubnetId=subnet-private-a&SubnetMappings.member.1.PrivateIPv4Address=10.0.100.50&SubnetMappings.member.2.SubnetId=subnet-private-b&SecurityGroups.member.1={group}&Tags.member.1.Key=a&Tags.member.1.Value=b"))
        .await;
    let arn = text(&answer, "LoadBalancerArn").to_owned();
    let answer = it
        .elb(&format!("Action=CreateListener&LoadBalancerArn={arn}&Protocol=TCP&Port=80&DefaultActions.member.1.Type=forward&DefaultActions.member.1.TargetGroupArn={target_group}"))
        .await;
    let listener = text(&answer, "ListenerArn").to_owned();
    it.elb(&format!("Action=AddTags&ResourceArns.member.1={arn}&Tags.member.1.Key=ballast.dev%2Fapplied&Tags.member.1.Value=1"))
        .await;
    it.fake.advance(Duration::from_mins(10));
    it.elb(&format!(
        "Action=DescribeLoadBalancers&LoadBalancerArns.member.1={arn}"
    ))
    .await;
    it.elb(&format!(
        "Action=DescribeTargetGroups&LoadBalancerArn={arn}"
    ))
    .await;
    it.elb(&format!("Action=DescribeListeners&LoadBalancerArn={arn}"))
        .await;
    it.elb(&format!(
        "Action=DescribeTags&ResourceArns.member.1={arn}&ResourceArns.member.2={listener}"
    ))
    .await;
    it.elb(&format!(
        "Action=DescribeTargetHealth&TargetGroupArn={target_group}"
    ))
    .await;
    it.elb(&format!(
        "Action=DescribeLoadBalancerAttributes&LoadBalancerArn={arn}"
    ))
    .await;
    it.elb(&format!(
        "Action=DescribeTargetGroupAttributes&TargetGroupArn={target_group}"
    ))
    .await;
    it.ec2(
        "Action=DescribeNetworkInterfaces&Filter.1.Name=description&Filter.1.Value.1=ELB%20net%2F*",
    )
    .await;
    it.elb(&format!(
        "Action=DeleteTargetGroup&TargetGroupArn={target_group}"
    ))
    .await;
    it.elb(&format!("Action=DeleteLoadBalancer&LoadBalancerArn={arn}"))
        .await;
    it.elb(&format!(
        "Action=DeleteTargetGroup&TargetGroupArn={target_group}"
    ))
    .await;
    it.ec2(&format!("Action=DeleteSecurityGroup&GroupId={group}"))
        .await;
    it.fake.advance(Duration::from_mins(1));
    it.ec2(&format!("Action=DeleteSecurityGroup&GroupId={group}"))
        .await;
    insta::assert_snapshot!(it.transcript);
}

/// Rules send clients of IPv4 and of IPv6 to targets of their own family.
#[tokio::test]
async fn rules_on_dual_stack() {
    let network = Network {
        dualstack: true,
        ..Network::default()
    };
    let mut it = Client::new(Config {
        network: Some(network),
        ..Config::default()
    })
    .await;
    it.ec2("Action=DescribeSubnets&SubnetId.1=subnet-private-a")
        .await;
    it.ec2("Action=DescribeInstances&InstanceId.1=i-00000001")
        .await;
    let answer = it
        .elb("Action=CreateTargetGroup&Name=four&Protocol=TCP_UDP&Port=30080&VpcId=vpc-0ba11a57")
        .await;
    let four = text(&answer, "TargetGroupArn").to_owned();
    let answer = it
        .elb("Action=CreateTargetGroup&Name=six&Protocol=TCP_UDP&Port=8080&VpcId=vpc-0ba11a57&TargetType=ip&IpAddressType=ipv6")
        .await;
    let six = text(&answer, "TargetGroupArn").to_owned();
    it.elb(&format!("Action=RegisterTargets&TargetGroupArn={six}&Targets.member.1.Id=2001%3Adb8%3A0%3A64%3A%3A77"))
        .await;
    let answer = it
        .elb("Action=CreateLoadBalancer&Name=web&Type=network&Scheme=internal&IpAddressType=dualstack&EnablePrefixForIpv6SourceNat=on&SubnetMappings.member.1.SubnetId=subnet-private-a&SubnetMappings.member.1.IPv6Address=2001%3Adb8%3A0%3A64%3A%3A50&SubnetMappings.member.1.SourceNatIpv6Prefix=2001%3Adb8%3A0%3A64%3A1%3A%3A%2F80&SubnetMappings.member.2.SubnetId=subnet-private-b")
        .await;
    let arn = text(&answer, "LoadBalancerArn").to_owned();
    let groups = |of: &str| {
        let one = |number: usize, arn: &str, weight: u32| {
            let it = format!("{of}.member.1.ForwardConfig.TargetGroups.member.{number}");
            format!("&{it}.TargetGroupArn={arn}&{it}.Weight={weight}")
        };
        format!(
            "&{of}.member.1.Type=forward{}{}",
            one(1, &four, 0),
            one(2, &six, 999)
        )
    };
    let answer = it
        .elb(&format!(
            "Action=CreateListener&LoadBalancerArn={arn}&Protocol=TCP_UDP&Port=53{}",
            groups("DefaultActions")
        ))
        .await;
    let listener = text(&answer, "ListenerArn").to_owned();
    let condition = |family: &str| {
        let it = "Conditions.member.1";
        format!("&{it}.Field=source-ip&{it}.SourceIpConfig.IpAddressType={family}")
    };
    let answer = it
        .elb(&format!(
            "Action=CreateRule&ListenerArn={listener}&Priority=10{}&Actions.member.1.Type=forward&Actions.member.1.TargetGroupArn={four}&Tags.member.1.Key=a&Tags.member.1.Value=b",
            condition("ipv4")
        ))
        .await;
    let rule = text(&answer, "RuleArn").to_owned();
    it.elb(&format!(
        "Action=CreateRule&ListenerArn={listener}&Priority=9{}{}",
        condition("ipv6"),
        groups("Actions")
    ))
    .await;
    it.elb(&format!(
        "Action=CreateRule&ListenerArn={listener}&Priority=9{}{}",
        condition("ipv6"),
        groups("Actions")
    ))
    .await;
    it.elb(&format!("Action=DescribeRules&ListenerArn={listener}"))
        .await;
    it.elb(&format!(
        "Action=ModifyRule&RuleArn={rule}{}",
        groups("Actions")
    ))
    .await;
    it.elb(&format!(
        "Action=DescribeRules&RuleArns.member.1={rule}&PageSize=1"
    ))
    .await;
    it.elb(&format!("Action=DescribeTags&ResourceArns.member.1={rule}"))
        .await;
    it.elb(&format!(
        "Action=SetIpAddressType&LoadBalancerArn={arn}&IpAddressType=ipv4"
    ))
    .await;
    it.elb(&format!("Action=DeleteRule&RuleArn={rule}")).await;
    it.elb(&format!("Action=DescribeRules&RuleArns.member.1={rule}"))
        .await;
    it.elb(&format!("Action=SetSubnets&LoadBalancerArn={arn}&EnablePrefixForIpv6SourceNat=on&SubnetMappings.member.1.SubnetId=subnet-private-a&SubnetMappings.member.1.SourceNatIpv6Prefix=auto_assigned"))
        .await;
    it.ec2(
        "Action=DescribeNetworkInterfaces&Filter.1.Name=description&Filter.1.Value.1=ELB%20net%2F*",
    )
    .await;
    insta::assert_snapshot!(it.transcript);
}

/// A page of rules goes on where the one before ended, and the default rule is the last.
#[tokio::test]
async fn pages_of_rules() {
    let mut it = Client::new(Config {
        network: Some(Network {
            dualstack: true,
            ..Network::default()
        }),
        ..Config::default()
    })
    .await;
    let answer = it
        .elb("Action=CreateTargetGroup&Name=g&Protocol=TCP&Port=1&VpcId=vpc-0ba11a57")
        .await;
    let group = text(&answer, "TargetGroupArn").to_owned();
    let answer = it
        .elb("Action=CreateLoadBalancer&Name=web&Type=network&Scheme=internal&IpAddressType=dualstack&Subnets.member.1=subnet-private-a")
        .await;
    let arn = text(&answer, "LoadBalancerArn").to_owned();
    let answer = it
        .elb(&format!("Action=CreateListener&LoadBalancerArn={arn}&Protocol=TCP&Port=80&DefaultActions.member.1.Type=forward&DefaultActions.member.1.TargetGroupArn={group}"))
        .await;
    let listener = text(&answer, "ListenerArn").to_owned();
    for priority in [10_000, 2, 50_000, 30] {
        it.elb(&format!("Action=CreateRule&ListenerArn={listener}&Priority={priority}&Conditions.member.1.Field=source-ip&Conditions.member.1.SourceIpConfig.IpAddressType=ipv4&Actions.member.1.Type=forward&Actions.member.1.TargetGroupArn={group}"))
            .await;
    }
    let mut seen = Vec::new();
    let mut marker = String::new();
    loop {
        let answer = it
            .elb(&format!(
                "Action=DescribeRules&ListenerArn={listener}&PageSize=2{marker}"
            ))
            .await;
        let priorities = answer.split("<Priority>").skip(1);
        seen.extend(priorities.map(|rest| rest.split('<').next().unwrap_or_default().to_owned()));
        if !answer.contains("<NextMarker>") {
            break;
        }
        let next = text(&answer, "NextMarker").replace(' ', "%20");
        marker = format!("&Marker={next}");
    }
    assert_eq!(seen, ["2", "30", "10000", "50000", "default"]);
}

/// What the network looks like.
#[tokio::test]
async fn the_network() {
    let mut it = Client::start().await;
    it.ec2("Action=DescribeAvailabilityZones").await;
    it.ec2("Action=DescribeSubnets&MaxResults=5&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-0ba11a57&Filter.2.Name=tag-key&Filter.2.Value.1=kubernetes.io%2Frole%2Finternal-elb")
        .await;
    it.ec2("Action=DescribeRouteTables&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-0ba11a57")
        .await;
    it.ec2("Action=DescribeInstances&InstanceId.1=i-00000003")
        .await;
    it.ec2("Action=DescribeManagedPrefixLists&PrefixListId.1=pl-offices")
        .await;
    insta::assert_snapshot!(it.transcript);
}

/// Lists come in pages.
#[tokio::test]
async fn pages() {
    let mut it = Client::start().await;
    let mut subnets = 0;
    let mut token = String::new();
    loop {
        let answer = it
            .ec2(&format!("Action=DescribeSubnets&MaxResults=5{token}"))
            .await;
        subnets += answer.matches("<subnetId>").count();
        if !answer.contains("<nextToken>") {
            break;
        }
        token = format!("&NextToken={}", text(&answer, "nextToken"));
    }
    assert_eq!(subnets, 6);
    for number in 0..5 {
        it.elb(&format!(
            "Action=CreateTargetGroup&Name=g{number}&Protocol=TCP&Port=1&VpcId=vpc-0ba11a57"
        ))
        .await;
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut marker = String::new();
    for page in 1.. {
        let answer = it
            .elb(&format!("Action=DescribeTargetGroups&PageSize=2{marker}"))
            .await;
        let names = answer.split("<TargetGroupName>").skip(1);
        seen.extend(names.map(|rest| rest[..2].to_owned()));
        if !answer.contains("<NextMarker>") {
            assert_eq!((page, seen.len()), (3, 5));
            break;
        }
        marker = format!("&Marker={}", text(&answer, "NextMarker"));
    }
}
