//! Whole stories, with the XML of every answer.

use std::time::Duration;

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
