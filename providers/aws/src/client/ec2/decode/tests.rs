//! Answers as EC2 gives them (Amazon EC2 API Reference, version 2016-11-15).

use super::*;

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let all = pairs.iter();
    all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_page_of_subnets() {
    let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeSubnetsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>7a62c49f-347e-4fc4-9331-6e8eEXAMPLE</requestId>
  <subnetSet>
    <item>
      <subnetId>subnet-9d4a7b6c</subnetId>
      <subnetArn>arn:aws:ec2:us-east-1:123456789012:subnet/subnet-9d4a7b6c</subnetArn>
      <state>available</state>
      <ownerId>123456789012</ownerId>
      <vpcId>vpc-1a2b3c4d</vpcId>
      <cidrBlock>10.0.1.0/24</cidrBlock>
      <ipv6CidrBlockAssociationSet/>
      <availableIpAddressCount>251</availableIpAddressCount>
      <availabilityZone>us-east-1a</availabilityZone>
      <availabilityZoneId>use1-az4</availabilityZoneId>
      <defaultForAz>false</defaultForAz>
      <mapPublicIpOnLaunch>false</mapPublicIpOnLaunch>
      <tagSet>
        <item><key>Name</key><value>A &amp; B</value></item>
        <item><key>kubernetes.io/role/elb</key><value/></item>
      </tagSet>
      <assignIpv6AddressOnCreation>false</assignIpv6AddressOnCreation>
    </item>
    <item>
      <subnetId>subnet-6e7f829e</subnetId>
      <vpcId>vpc-1a2b3c4d</vpcId>
      <availableIpAddressCount>3</availableIpAddressCount>
      <availabilityZone>us-east-1b</availabilityZone>
      <outpostArn>arn:aws:outposts:us-east-1:123456789012:outpost/op-1</outpostArn>
      <tagSet/>
    </item>
  </subnetSet>
  <nextToken>eyJ2IjoiMiJ9</nextToken>
</DescribeSubnetsResponse>"#;
    let page = subnets(body).unwrap();
    let request = page.request.as_deref();
    assert_eq!(request, Some("7a62c49f-347e-4fc4-9331-6e8eEXAMPLE"));
    assert_eq!(page.next.as_deref(), Some("eyJ2IjoiMiJ9"));
    let first = Subnet {
        id: "subnet-9d4a7b6c".into(),
        vpc: "vpc-1a2b3c4d".into(),
        zone: "us-east-1a".into(),
        range: "10.0.1.0/24".parse().ok(),
        ipv6: Vec::new(),
        free_addresses: 251,
        outpost: false,
        tags: tags(&[("Name", "A & B"), ("kubernetes.io/role/elb", "")]),
    };
    assert_eq!(page.items[0], first);
    assert!(page.items[1].outpost);
    assert_eq!(page.items[1].range, None);
}

#[test]
fn route_tables_of_a_public_and_of_a_private_subnet() {
    let body = br#"<DescribeRouteTablesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>6f570b0b-9c18-4b07-bdec-73740dcf861aEXAMPLE</requestId>
  <routeTableSet>
    <item>
      <routeTableId>rtb-13ad487a</routeTableId>
      <vpcId>vpc-11ad4878</vpcId>
      <routeSet>
        <item>
          <destinationCidrBlock>10.0.0.0/22</destinationCidrBlock>
          <gatewayId>local</gatewayId>
          <state>active</state>
          <origin>CreateRouteTable</origin>
        </item>
      </routeSet>
      <associationSet>
        <item>
          <routeTableAssociationId>rtbassoc-12ad487b</routeTableAssociationId>
          <routeTableId>rtb-13ad487a</routeTableId>
          <main>true</main>
        </item>
      </associationSet>
      <tagSet/>
    </item>
    <item>
      <routeTableId>rtb-f9ad4890</routeTableId>
      <vpcId>vpc-11ad4878</vpcId>
      <routeSet>
        <item>
          <destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>
          <gatewayId>igw-eaad4883</gatewayId>
          <state>active</state>
        </item>
      </routeSet>
      <associationSet>
        <item>
          <routeTableAssociationId>rtbassoc-faad4893</routeTableAssociationId>
          <routeTableId>rtb-f9ad4890</routeTableId>
          <subnetId>subnet-15ad487c</subnetId>
          <main>false</main>
        </item>
      </associationSet>
      <tagSet/>
    </item>
    <item>
      <routeTableId>rtb-00000003</routeTableId>
      <vpcId>vpc-11ad4878</vpcId>
      <routeSet>
        <item>
          <destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>
          <gatewayId>igw-gone</gatewayId>
          <state>blackhole</state>
        </item>
        <item>
          <destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>
          <natGatewayId>nat-1</natGatewayId>
          <state>active</state>
        </item>
      </routeSet>
      <associationSet/>
    </item>
  </routeTableSet>
</DescribeRouteTablesResponse>"#;
    let page = route_tables(body).unwrap();
    let tables: Vec<_> = page.items.iter().collect();
    assert!(tables[0].main && tables[0].subnets.is_empty());
    assert!(!tables[0].internet_gateway);
    let public = BTreeSet::from(["subnet-15ad487c".to_owned()]);
    assert_eq!(tables[1].subnets, public);
    assert!(tables[1].internet_gateway && !tables[1].main);
    assert!(!tables[2].internet_gateway, "its gateway is gone");
    assert_eq!(page.next, None);
}

#[test]
fn instances_of_all_reservations() {
    let body = br#"<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
  <reservationSet>
    <item>
      <reservationId>r-1234567890abcdef0</reservationId>
      <ownerId>123456789012</ownerId>
      <groupSet/>
      <instancesSet>
        <item>
          <instanceId>i-1234567890abcdef0</instanceId>
          <imageId>ami-bff32ccc</imageId>
          <instanceState><code>16</code><name>running</name></instanceState>
          <placement>
            <availabilityZone>eu-west-1c</availabilityZone>
            <groupName/>
            <tenancy>default</tenancy>
          </placement>
          <subnetId>subnet-56f5f633</subnetId>
          <vpcId>vpc-11112222</vpcId>
          <privateIpAddress>192.168.1.88</privateIpAddress>
          <groupSet>
            <item><groupId>sg-e4076980</groupId><groupName>SecurityGroup1</groupName></item>
            <item><groupId>sg-00000002</groupId><groupName>SecurityGroup2</groupName></item>
          </groupSet>
          <tagSet><item><key>Name</key><value>Server_1</value></item></tagSet>
          <networkInterfaceSet>
            <item>
              <groupSet><item><groupId>sg-other</groupId></item></groupSet>
            </item>
          </networkInterfaceSet>
        </item>
      </instancesSet>
    </item>
    <item>
      <reservationId>r-2</reservationId>
      <instancesSet>
        <item>
          <instanceId>i-2</instanceId>
          <instanceState><code>48</code><name>terminated</name></instanceState>
          <groupSet/>
        </item>
      </instancesSet>
    </item>
  </reservationSet>
</DescribeInstancesResponse>"#;
    let page = instances(body).unwrap();
    let first = Instance {
        id: "i-1234567890abcdef0".into(),
        state: InstanceState::Running,
        zone: "eu-west-1c".into(),
        vpc: Some("vpc-11112222".into()),
        subnet: Some("subnet-56f5f633".into()),
        security_groups: ["sg-00000002".to_owned(), "sg-e4076980".to_owned()].into(),
        tags: tags(&[("Name", "Server_1")]),
    };
    assert_eq!(page.items[0], first);
    assert_eq!(page.items[1].state, InstanceState::Terminated);
    assert_eq!(page.items[1].vpc, None);
}

#[test]
fn security_groups_with_rules_of_every_kind() {
    let body =
        br#"<DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1d62eae0-acdd-481d-88c9-example</requestId>
  <securityGroupInfo>
    <item>
      <ownerId>123456789012</ownerId>
      <groupId>sg-9bf6ceff</groupId>
      <groupName>SSHAccess</groupName>
      <groupDescription>Security group for SSH access</groupDescription>
      <vpcId>vpc-31896b55</vpcId>
      <ipPermissions>
        <item>
          <ipProtocol>tcp</ipProtocol>
          <fromPort>22</fromPort>
          <toPort>22</toPort>
          <groups/>
          <ipRanges>
            <item><cidrIp>0.0.0.0/0</cidrIp></item>
            <item><cidrIp>10.0.0.0/8</cidrIp><description>office</description></item>
          </ipRanges>
          <ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges>
          <prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds>
        </item>
        <item>
          <ipProtocol>-1</ipProtocol>
          <groups>
            <item><userId>123456789012</userId><groupId>sg-2</groupId></item>
          </groups>
          <ipRanges/>
        </item>
        <item>
          <ipProtocol>icmp</ipProtocol>
          <fromPort>3</fromPort>
          <toPort>-1</toPort>
          <ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges>
        </item>
        <item>
          <ipProtocol>udp</ipProtocol>
          <fromPort>1</fromPort>
          <toPort>9</toPort>
          <ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges>
        </item>
      </ipPermissions>
      <ipPermissionsEgress>
        <item>
          <ipProtocol>-1</ipProtocol>
          <ipRanges><item><cidrIp>9.9.9.9/32</cidrIp></item></ipRanges>
        </item>
      </ipPermissionsEgress>
    </item>
  </securityGroupInfo>
</DescribeSecurityGroupsResponse>"#;
    let page = security_groups(body).unwrap();
    let group = &page.items[0];
    assert_eq!(group.name, "SSHAccess");
    assert_eq!(group.vpc.as_deref(), Some("vpc-31896b55"));
    let range = |text: &str| Source::Range(text.parse().unwrap());
    let ssh = Traffic::Port(Protocol::Tcp, 22);
    let other = |protocol: &str, from, to| Traffic::Other {
        protocol: protocol.into(),
        from: Some(from),
        to: Some(to),
    };
    let rules = [
        (ssh.clone(), range("0.0.0.0/0")),
        (ssh.clone(), range("10.0.0.0/8")),
        (ssh.clone(), range("::/0")),
        (ssh, Source::PrefixList("pl-1".into())),
        (Traffic::All, Source::Group("sg-2".into())),
        (other("icmp", 3, -1), range("0.0.0.0/0")),
        (other("udp", 1, 9), range("0.0.0.0/0")),
    ];
    let rules: BTreeSet<Rule> = rules
        .into_iter()
        .map(|(traffic, source)| Rule { traffic, source })
        .collect();
    assert_eq!(group.rules, rules);
}

#[test]
fn lists_of_prefixes() {
    let body =
        br#"<DescribeManagedPrefixListsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <prefixListSet>
    <item>
      <prefixListId>pl-0123456789abcabcd</prefixListId>
      <prefixListName>vpc-cidrs</prefixListName>
      <addressFamily>IPv4</addressFamily>
      <maxEntries>10</maxEntries>
      <state>create-complete</state>
    </item>
    <item>
      <prefixListId>pl-61a54008</prefixListId>
      <prefixListName>com.amazonaws.us-east-1.dynamodb</prefixListName>
      <ownerId>AWS</ownerId>
    </item>
  </prefixListSet>
</DescribeManagedPrefixListsResponse>"#;
    let found = prefix_lists(body).unwrap().items;
    assert_eq!(found[0].max_entries, Some(10));
    assert_eq!(found[1].max_entries, None);
}

#[test]
fn answers_to_writes() {
    let body = br#"<CreateSecurityGroupResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
   <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>
   <return>true</return>
   <groupId>sg-0a42d66a</groupId>
   <tagSet/>
</CreateSecurityGroupResponse>"#;
    let request = "59dbff89-35bd-4eac-99ed-be587EXAMPLE".to_owned();
    let (id, of) = done(body, "groupId").unwrap();
    assert_eq!((id.as_deref(), of), (Some("sg-0a42d66a"), Some(request)));
    assert_eq!(done(body, "return").unwrap().0.as_deref(), Some("true"));
    assert!(done(b"<html>", "return").is_err());
}

#[test]
fn errors_of_ec2_and_of_what_stands_before_it() {
    let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code><Message>The instance ID 'i-1a2b3c4d' does not exist</Message></Error></Errors><RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>"#;
    let error = failure(body);
    assert_eq!(error.code.as_deref(), Some("InvalidInstanceID.NotFound"));
    assert_eq!(error.message, "The instance ID 'i-1a2b3c4d' does not exist");
    let request = error.request.as_deref();
    assert_eq!(request, Some("ea966190-f9aa-478e-9ede-example"));
    let other = br"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>
        <Message>Rate exceeded</Message></Error><RequestId>r</RequestId></ErrorResponse>";
    assert_eq!(failure(other).code.as_deref(), Some("Throttling"));
    for body in ["", "Bad Gateway", "<html><body>502</body></html>"] {
        assert_eq!(failure(body.as_bytes()), Failure::default());
    }
}

#[test]
fn an_object_without_its_id_is_an_error_and_not_skipped() {
    let body = b"<R><subnetSet><item><vpcId>vpc-1</vpcId></item></subnetSet></R>";
    assert_eq!(subnets(body).unwrap_err(), "an object without subnetId");
    let body = b"<R><securityGroupInfo><item><groupId>sg-1</groupId><ipPermissions><item>\
        <ipProtocol>tcp</ipProtocol><ipRanges><item><cidrIp>x</cidrIp></item></ipRanges></item>\
        </ipPermissions></item></securityGroupInfo></R>";
    let error = security_groups(body).unwrap_err();
    assert_eq!(error, "x is not a range of addresses");
}
