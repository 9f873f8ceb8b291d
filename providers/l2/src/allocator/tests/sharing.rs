//! Several Services on one address.

use super::*;

fn allocator() -> Allocator {
    started(vec![
        pool("a", 0, &["10.0.0.1-10.0.0.9", "fd00::1-fd00::9"]),
        Pool {
            share_across_namespaces: true,
            auto_assign: false,
            ..pool("open", 1, &["10.1.0.1-10.1.0.9"])
        },
    ])
}

#[test]
fn who_may_share_an_address_that_is_asked_for() {
    let first = || sharing(claim("first", 0), "web", 80);
    let second = |key, port| sharing(claim("second", 1), key, port);
    let udp = Claim {
        ports: [(Protocol::Udp, 80)].into(),
        ..second("web", 0)
    };
    for (first, second, expected, needle) in [
        (first(), second("web", 443), "10.0.0.1", ""),
        (first(), udp, "10.0.0.1", ""),
        (
            first(),
            second("other", 443),
            "AddressInUse",
            "same share key",
        ),
        (first(), second("", 443), "AddressInUse", "same share key"),
        (
            sharing(first(), "", 80),
            second("", 443),
            "AddressInUse",
            "default/first",
        ),
        (
            first(),
            second("web", 80),
            "PortInUse",
            "port TCP/80 on 10.0.0.1 belongs to Service default/first",
        ),
        (
            local(first(), "app=x"),
            second("web", 443),
            "AddressInUse",
            "traffic policy",
        ),
        (
            first(),
            local(second("web", 443), "app=x"),
            "AddressInUse",
            "traffic policy",
        ),
        (
            local(first(), "app=x"),
            local(second("web", 443), "app=y"),
            "AddressInUse",
            "same selector",
        ),
        (
            local(first(), "app=x"),
            local(second("web", 443), "app=x"),
            "10.0.0.1",
            "",
        ),
        (
            first(),
            Claim {
                id: id("other/second"),
                ..second("web", 443)
            },
            "AddressInUse",
            "another namespace, and pool \"a\"",
        ),
    ] {
        let mut allocator = allocator();
        assert_eq!(allocator.ask(&first, 1), "10.0.0.1");
        let answer = allocator.allocate(asking(second.clone(), &["10.0.0.1"]), at(1));
        assert_eq!(outcome(&answer), expected, "{second:?}");
        if let Err(denial) = answer {
            assert!(denial.message.contains(needle), "{denial}");
        }
    }
}

#[test]
fn namespaces_share_where_the_pool_lets_them() {
    let mut allocator = allocator();
    let of = |name: &str, port| asking(sharing(claim(name, 0), "web", port), &["10.1.0.1"]);
    assert_eq!(allocator.ask(&of("red/a", 80), 1), "10.1.0.1");
    assert_eq!(allocator.ask(&of("blue/b", 443), 1), "10.1.0.1");
    assert_eq!(allocator.assigned("open")[0].1, [id("red/a"), id("blue/b")]);
    // The pool's setting changes: Services that share stay, others cannot join.
    let mut pools = vec![pool("a", 0, &["10.0.0.1-10.0.0.9"])];
    pools.push(pool("open", 1, &["10.1.0.1-10.1.0.9"]));
    allocator.set_pools(pools, at(2));
    assert_eq!(allocator.ask(&of("blue/b", 443), 3), "10.1.0.1");
    assert_eq!(allocator.ask(&of("green/c", 22), 3), "AddressInUse");
}

#[test]
fn without_a_wish_one_joins_where_one_can() {
    let mut allocator = allocator();
    for (claim, expected) in [
        (sharing(claim("a", 0), "web", 80), "10.0.0.1"),
        (sharing(claim("b", 0), "web", 443), "10.0.0.1"),
        // The port is taken: it gets an address of its own, which others of the key may join.
        (sharing(claim("c", 0), "web", 80), "10.0.0.2"),
        (sharing(claim("d", 0), "web", 443), "10.0.0.2"),
        (sharing(claim("e", 0), "other", 22), "10.0.0.3"),
        (sharing(claim("foreign/f", 0), "web", 22), "10.0.0.4"),
        (
            local(sharing(claim("g", 0), "web", 22), "app=g"),
            "10.0.0.5",
        ),
    ] {
        assert_eq!(allocator.ask(&claim, 1), expected, "{}", claim.id);
    }
    // The address is free when its last member leaves, not its first.
    assert_eq!(allocator.release(&id("a"), at(2)), ips(&["10.0.0.1"]));
    assert_eq!(allocator.pools()[0].v4.assigned, 5);
    allocator.release(&id("b"), at(2));
    assert_eq!(allocator.pools()[0].v4.assigned, 4);
}

#[test]
fn edits_of_a_service_that_shares() {
    let on = |port| sharing(claim("b", 1), "web", port);
    for (what, edited, expected) in [
        ("another free port", on(8443), "10.0.0.1"),
        ("its companion's port", on(80), "PortInUse 10.0.0.1"),
        (
            "a policy that does not fit",
            local(on(443), "x"),
            "AddressInUse 10.0.0.1",
        ),
        ("no key: it moves away", claim("b", 1), "10.0.0.2"),
        (
            "another key: it moves away",
            sharing(claim("b", 1), "new", 443),
            "10.0.0.2",
        ),
        (
            "another key, but the address by name",
            asking(sharing(claim("b", 1), "new", 443), &["10.0.0.1"]),
            "AddressInUse 10.0.0.1",
        ),
    ] {
        let mut allocator = allocator();
        allocator.ask(&sharing(claim("a", 0), "web", 80), 1);
        assert_eq!(allocator.ask(&on(443), 1), "10.0.0.1");
        assert_eq!(allocator.ask(&edited, 2), expected, "{what}");
        // The denied claim did not change the accepted one.
        let taken = allocator.ask(
            &asking(sharing(claim("c", 2), "web", 443), &["10.0.0.1"]),
            3,
        );
        let free = expected == "10.0.0.1" || expected == "10.0.0.2";
        assert_eq!(taken == "10.0.0.1", free, "{what}: {taken}");
    }
    // A sole owner changes its key without moving.
    let mut allocator = allocator();
    allocator.ask(&on(443), 1);
    assert_eq!(
        allocator.ask(&sharing(claim("b", 1), "new", 443), 2),
        "10.0.0.1"
    );
    assert_eq!(
        allocator.ask(&sharing(claim("c", 1), "new", 80), 2),
        "10.0.0.1"
    );
    assert_eq!(
        allocator.ask(&sharing(claim("d", 1), "web", 80), 2),
        "10.0.0.2"
    );
}

#[test]
fn who_waits_for_an_address_is_woken_when_its_companions_let_it_in() {
    let mut allocator = allocator();
    let want = |name, port| asking(sharing(claim(name, 5), "web", port), &["10.0.0.1"]);
    allocator.ask(&sharing(claim("a", 0), "web", 80), 1);
    allocator.ask(&sharing(claim("b", 0), "web", 443), 1);
    assert_eq!(allocator.ask(&want("c", 80), 1), "PortInUse");
    assert_eq!(allocator.ask(&want("d", 443), 1), "PortInUse");
    assert_eq!(allocator.ask(&want("e", 80), 1), "PortInUse");
    assert_eq!(allocator.woken(), Vec::<String>::new());
    // a edits its port: of those that want it, the first gets it.
    allocator.ask(&sharing(claim("a", 0), "web", 8080), 2);
    assert_eq!(allocator.woken(), ["c"]);
    assert_eq!(allocator.ask(&want("c", 80), 2), "10.0.0.1");
    allocator.release(&id("b"), at(3));
    assert_eq!(allocator.woken(), ["d"]);
    assert_eq!(allocator.ask(&want("d", 443), 3), "10.0.0.1");
    assert_eq!(allocator.waiting(), [id("e")]);
}

/// Addresses with the same key in other namespaces, however many, do not keep a tenant's
/// Services apart.
#[test]
fn services_of_others_with_the_same_share_key_hide_no_address() {
    let mut allocator = started(vec![pool("a", 0, &["10.0.0.0/24"])]);
    for n in 0..40 {
        let name = format!("other/squatter-{n}");
        // All ports conflict, so each has an address of its own.
        allocator.ask(&sharing(claim(&name, n), "web", 443), 1);
    }
    let own = sharing(claim("shop/a", 50), "web", 80);
    assert_eq!(allocator.ask(&own, 2), "10.0.0.40");
    let second = sharing(claim("shop/b", 51), "web", 443);
    assert_eq!(allocator.ask(&second, 3), "10.0.0.40");
    // The index follows a Service that leaves.
    allocator.release(&own.id, at(4));
    let third = sharing(claim("shop/c", 52), "web", 80);
    assert_eq!(allocator.ask(&third, 5), "10.0.0.40");
    allocator.release(&second.id, at(6));
    allocator.release(&third.id, at(6));
    assert_eq!(allocator.ask(&own, 7), "10.0.0.41", "40 was released last");
}
