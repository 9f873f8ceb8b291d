use super::*;

#[test]
fn health_checks_are_compared_value_by_value() {
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000});
    let whole = [
        ("healthcheck-protocol", "http"),
        ("healthcheck-port", "traffic-port"),
        ("healthcheck-path", "/ready"),
        ("healthcheck-interval", "20"),
        ("healthcheck-timeout", "5"),
        ("healthcheck-healthy-threshold", "4"),
        ("healthcheck-unhealthy-threshold", "4"),
    ];
    let table: [(Origin, Pairs<'_>, Value, &str); 9] = [
        (
            Origin::LoadBalancerController,
            &[],
            json!({}),
            "HTTP instead of TCP, port 10256 instead of the traffic port, path /healthz, codes 200, timeout 6 s instead of 10 s, healthy after 2 instead of 3, unhealthy after 2 instead of 3",
        ),
        (Origin::LoadBalancerController, &[], local.clone(), ""),
        // Ip targets are checked themselves.
        (
            Origin::LoadBalancerController,
            &[("nlb-target-type", "ip")],
            local.clone(),
            "timeout 6 s instead of 10 s, healthy after 2 instead of 3, unhealthy after 2 instead of 3",
        ),
        (Origin::LoadBalancerController, &whole, json!({}), ""),
        (
            Origin::LoadBalancerController,
            &[("healthcheck-path", "/ready")],
            json!({}),
            "HTTP instead of TCP, path /ready, codes 200-399, timeout 6 s instead of 10 s, healthy after 2 instead of 3, unhealthy after 2 instead of 3",
        ),
        (
            Origin::LoadBalancerController,
            &[("healthcheck-protocol", "tcp")],
            local.clone(),
            "the traffic port instead of healthCheckNodePort",
        ),
        (
            Origin::LoadBalancerController,
            &[
                ("healthcheck-port", "http"),
                ("healthcheck-protocol", "tcp"),
            ],
            json!({}),
            "timeout 6 s instead of 10 s, healthy after 2 instead of 3, unhealthy after 2 instead of 3",
        ),
        (
            Origin::InTree,
            &[("healthcheck-protocol", "tcp")],
            json!({}),
            "interval 10 s instead of 30 s, timeout 6 s instead of 10 s, healthy after 2 instead of 3, unhealthy after 2 instead of 3",
        ),
        (Origin::InTree, &[], local, "timeout 6 s instead of 10 s"),
    ];
    for (from, annotations, spec, expected) in table {
        let mut all = annotations.to_vec();
        let class = (from == Origin::LoadBalancerController).then_some(LBC);
        if from == Origin::InTree {
            all.push(("type", "nlb"));
        }
        let seen = of(&service(class, &all, &spec));
        let said = seen
            .settings
            .iter()
            .find(|one| one.setting == "health check");
        assert_eq!(
            said.map_or("", |one| &one.why),
            expected,
            "{annotations:?} {spec}"
        );
    }
}
