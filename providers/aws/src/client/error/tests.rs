use super::*;

const THROTTLED: Cause = Cause::Throttled {
    retry_after: Duration::ZERO,
};

/// Every code that AWS documents for the actions in `actions`, and the common ones of both
/// services, with the HTTP status that it comes with.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_each_code_means() {
    let table: &[(&str, u16, Cause)] = &[
        // Throttling, as both services and the SDK spell it.
        ("Throttling", 400, THROTTLED),
        ("ThrottlingException", 400, THROTTLED),
        ("RequestLimitExceeded", 503, THROTTLED),
        ("Client.RequestLimitExceeded", 503, THROTTLED),
        ("TooManyRequestsException", 429, THROTTLED),
        ("EC2ThrottledException", 503, THROTTLED),
        ("RequestThrottled", 400, THROTTLED),
        // Elastic Load Balancing.
        ("DuplicateLoadBalancerName", 400, Cause::Duplicate),
        ("DuplicateTargetGroupName", 400, Cause::Duplicate),
        ("DuplicateListener", 400, Cause::Duplicate),
        ("DuplicateTagKeys", 400, Cause::Invalid),
        ("LoadBalancerNotFound", 400, Cause::NotFound),
        ("TargetGroupNotFound", 400, Cause::NotFound),
        ("ListenerNotFound", 400, Cause::NotFound),
        ("RuleNotFound", 400, Cause::NotFound),
        ("SubnetNotFound", 400, Cause::NotFound),
        ("AllocationIdNotFound", 400, Cause::NotFound),
        ("CertificateNotFound", 400, Cause::NotFound),
        ("SSLPolicyNotFound", 400, Cause::NotFound),
        ("TrustStoreNotFound", 400, Cause::NotFound),
        ("ALPNPolicyNotFound", 400, Cause::NotFound),
        ("ResourceInUse", 400, Cause::InUse),
        ("PriorityInUse", 400, Cause::Duplicate),
        ("CapacityReservationPending", 400, Cause::InUse),
        ("PriorRequestNotComplete", 429, Cause::InUse),
        ("CapacityUnitsLimitExceeded", 400, Cause::Quota),
        ("CapacityDecreaseRequestLimitExceeded", 400, Cause::Quota),
        ("OperationNotPermitted", 400, Cause::Protected),
        ("TooManyLoadBalancers", 400, Cause::Quota),
        ("TooManyTargetGroups", 400, Cause::Quota),
        ("TooManyListeners", 400, Cause::Quota),
        ("TooManyTargets", 400, Cause::Quota),
        ("TooManyRegistrationsForTargetId", 400, Cause::Quota),
        (
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            400,
            Cause::Quota,
        ),
        ("TooManyActions", 400, Cause::Quota),
        ("TooManyCertificates", 400, Cause::Quota),
        ("TooManyTags", 400, Cause::Quota),
        ("TargetGroupAssociationLimit", 400, Cause::Quota),
        ("InvalidConfigurationRequest", 400, Cause::Invalid),
        ("InvalidLoadBalancerAction", 400, Cause::Invalid),
        ("InvalidScheme", 400, Cause::Invalid),
        ("InvalidSecurityGroup", 400, Cause::Invalid),
        ("InvalidSubnet", 400, Cause::Invalid),
        ("InvalidTarget", 400, Cause::Invalid),
        ("IncompatibleProtocols", 400, Cause::Invalid),
        ("UnsupportedProtocol", 400, Cause::Invalid),
        ("AvailabilityZoneNotSupported", 400, Cause::Invalid),
        ("ResourceNotFound", 400, Cause::NotFound),
        ("ValidationError", 400, Cause::Invalid),
        ("HealthUnavailable", 500, Cause::Cloud),
        ("InsufficientCapacity", 500, Cause::Cloud),
        // EC2.
        ("InvalidGroup.Duplicate", 400, Cause::Duplicate),
        ("InvalidPermission.Duplicate", 400, Cause::Duplicate),
        ("InvalidGroup.NotFound", 400, Cause::NotFound),
        ("InvalidPermission.NotFound", 400, Cause::NotFound),
        ("InvalidSecurityGroupRuleId.NotFound", 400, Cause::NotFound),
        ("InvalidSecurityGroupID.NotFound", 400, Cause::NotFound),
        ("InvalidSubnetID.NotFound", 400, Cause::NotFound),
        ("InvalidInstanceID.NotFound", 400, Cause::NotFound),
        ("InvalidVpcID.NotFound", 400, Cause::NotFound),
        ("InvalidRouteTableID.NotFound", 400, Cause::NotFound),
        ("InvalidPrefixListID.NotFound", 400, Cause::NotFound),
        ("InvalidAllocationID.NotFound", 400, Cause::NotFound),
        ("DependencyViolation", 400, Cause::InUse),
        ("InvalidGroup.InUse", 400, Cause::InUse),
        ("InvalidIPAddress.InUse", 400, Cause::InUse),
        ("Resource.AlreadyAssociated", 400, Cause::InUse),
        ("IncorrectInstanceState", 400, Cause::InUse),
        ("IncorrectState", 400, Cause::InUse),
        ("SecurityGroupLimitExceeded", 400, Cause::Quota),
        ("RulesPerSecurityGroupLimitExceeded", 400, Cause::Quota),
        ("SecurityGroupsPerInterfaceLimitExceeded", 400, Cause::Quota),
        ("TagLimitExceeded", 400, Cause::Quota),
        ("AddressLimitExceeded", 400, Cause::Quota),
        ("InsufficientFreeAddressesInSubnet", 400, Cause::Quota),
        ("InvalidGroup.Reserved", 400, Cause::Invalid),
        ("InvalidGroupId.Malformed", 400, Cause::Invalid),
        ("InvalidPermission.Malformed", 400, Cause::Invalid),
        ("InvalidParameter", 400, Cause::Invalid),
        ("InvalidParameterCombination", 400, Cause::Invalid),
        ("InvalidParameterValue", 400, Cause::Invalid),
        ("InvalidPaginationToken", 400, Cause::Invalid),
        ("InvalidAction", 400, Cause::Invalid),
        ("InvalidQueryParameter", 400, Cause::Invalid),
        ("MalformedQueryString", 404, Cause::Invalid),
        ("MissingAction", 400, Cause::Invalid),
        ("MissingParameter", 400, Cause::Invalid),
        ("UnknownParameter", 400, Cause::Invalid),
        ("UnsupportedOperation", 400, Cause::Invalid),
        ("IdempotentParameterMismatch", 400, Cause::Invalid),
        ("VPCIdNotSpecified", 400, Cause::Invalid),
        ("ServerInternal", 500, Cause::Cloud),
        ("InsufficientAddressCapacity", 500, Cause::Cloud),
        // Both.
        ("AccessDenied", 403, Cause::Denied),
        ("AccessDeniedException", 400, Cause::Denied),
        ("UnauthorizedOperation", 403, Cause::Denied),
        ("NotAuthorized", 400, Cause::Denied),
        ("OptInRequired", 403, Cause::Denied),
        ("Blocked", 400, Cause::Denied),
        ("PendingVerification", 400, Cause::Denied),
        ("AuthFailure", 401, Cause::Credentials),
        ("InvalidClientTokenId", 403, Cause::Credentials),
        ("UnrecognizedClientException", 400, Cause::Credentials),
        ("SignatureDoesNotMatch", 403, Cause::Credentials),
        ("IncompleteSignature", 400, Cause::Credentials),
        ("MissingAuthenticationToken", 403, Cause::Credentials),
        ("ExpiredToken", 403, Cause::Credentials),
        ("ExpiredTokenException", 403, Cause::Credentials),
        ("RequestExpired", 400, Cause::Credentials),
        ("InternalFailure", 500, Cause::Cloud),
        ("InternalError", 500, Cause::Cloud),
        ("ServiceUnavailable", 503, Cause::Cloud),
        ("Unavailable", 503, Cause::Cloud),
        ("Server.InternalError", 500, Cause::Cloud),
        ("RequestTimeout", 408, Cause::Cloud),
        // Without a code, or with one that is new.
        ("", 400, Cause::Invalid),
        ("", 403, Cause::Denied),
        ("", 404, Cause::Cloud),
        ("", 429, THROTTLED),
        ("", 502, Cause::Cloud),
        ("SomethingNew", 400, Cause::Invalid),
        ("SomethingNew.NotFound", 400, Cause::NotFound),
        ("SomethingNew", 500, Cause::Cloud),
    ];
    for &(code, status, expected) in table {
        assert_eq!(cause(code, Some(status)), expected, "{code} {status}");
    }
    assert_eq!(cause("", None), Cause::Unreachable);
}

fn of(action: Action, code: &str, message: &str) -> CallError {
    let fault = Fault {
        code: Some(code.into()),
        message: message.into(),
        request: Some("59dbff89-35bd-4eac-99ed-be587EXAMPLE".into()),
        status: Some(400),
    };
    CallError::of(action, fault)
}

#[test]
fn a_denied_call_names_the_right_that_is_missing_and_nothing_that_changes() {
    let error = of(
        Action::CreateSecurityGroup,
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: \
         arn:aws:sts::123456789012:assumed-role/ballast/web-identity-token-1764160000000 is not \
         authorized to perform: ec2:CreateTags on resource: \
         arn:aws:ec2:eu-west-1:123456789012:security-group/* because no identity-based policy \
         allows the ec2:CreateTags action. Encoded authorization failure message: Zr9wKxzy8Q",
    );
    assert_eq!(
        error.to_string(),
        "CreateSecurityGroup: the credentials do not permit ec2:CreateTags on resource: \
         arn:aws:ec2:eu-west-1:123456789012:security-group/* because no identity-based policy \
         allows the ec2:CreateTags action (UnauthorizedOperation)"
    );
    let silent = of(Action::DeleteListener, "AccessDenied", "");
    let expected = "the credentials do not permit elasticloadbalancing:DeleteListener";
    assert_eq!(silent.message, expected);
    let other = of(Action::DeleteListener, "OptInRequired", "Not subscribed.");
    assert_eq!(other.message, format!("{expected}: Not subscribed"));
}

#[test]
fn a_message_is_one_short_line_and_the_same_for_each_retry() {
    let message = |text: &str| of(Action::SetSubnets, "ValidationError", text).message;
    assert_eq!(message("One\n  or two."), "One or two");
    assert_eq!(message(""), "AWS gives no reason");
    for id in ["1c6d2f5e", "8a7b"] {
        let text = format!("Try later. (Service: ElasticLoadBalancingV2, Request ID: {id})");
        assert_eq!(message(&text), "Try later");
        let text = format!("Try later (RequestId: {id})");
        assert_eq!(message(&text), "Try later");
    }
    assert_eq!(message(&"x".repeat(10_000)).len(), LONGEST);
}

#[test]
fn a_call_that_comes_too_early_is_not_wrong() {
    let early = "The removal of a subnet in 'eu-west-1a' is in progress";
    let cause = |text| of(Action::SetSubnets, "InvalidConfigurationRequest", text).cause;
    assert_eq!(cause(early), Cause::InUse);
    assert_eq!(cause("The subnets are not in the VPC"), Cause::Invalid);
}

#[test]
fn request_ids_are_only_for_logs() {
    let error = of(Action::SetSubnets, "InvalidSubnet", "No such subnet");
    assert!(error.request.is_some());
    let shown = error.to_string();
    assert_eq!(shown, "SetSubnets: No such subnet (InvalidSubnet)");
}

#[test]
fn without_an_answer_nobody_knows_the_effect() {
    let late = CallError::of(Action::AddTags, Fault::late(Duration::from_millis(4_500)));
    assert_eq!(late.cause, Cause::Unreachable);
    assert_eq!(
        late.to_string(),
        "AddTags: AWS does not answer within 4.5 s"
    );
    assert!(late.cause.uncertain());
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let refused = CallError::of(Action::AddTags, Fault::unanswered(&refused));
    assert_eq!(refused.cause, Cause::Unreachable);
    assert_eq!(refused.message, "no connection to AWS: connection refused");
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
        let broken = Fault::unanswered(&io::Error::from(kind));
        assert_eq!(
            broken.message,
            "the connection to AWS broke before the answer"
        );
    }
    let unreadable = CallError::of(Action::AddTags, Fault::unreadable("no XML"));
    assert_eq!(unreadable.cause, Cause::Cloud);
    let unsent = CallError::of(Action::AddTags, Fault::unsent("no URL".into()));
    assert_eq!(unsent.cause, Cause::Invalid);
    assert!(!unsent.cause.uncertain());
}
