//! Services when pools, classes or namespaces change or appear late.

use serde_json::json;

use super::{TWO, WEB, given, lan, svc, waits};
use crate::support::api::Kind;
use crate::support::lab::{Lab, simulate};

/// The watch of namespaces may be behind the watch of Services: no Service is served before the
/// labels of its namespace are known.
#[test]
fn a_pool_that_shuts_some_namespaces_out_waits_until_they_are_known() {
    simulate(93, async |lab| {
        let shut = json!([{"key": "team", "operator": "NotIn", "values": ["shop"]}]);
        let selector = json!({"namespaceSelector": {"matchExpressions": shut}});
        lan(lab, TWO, &selector);
        lab.api.delete(Kind::Namespace, "shop");
        lab.api.create_service(&svc(WEB));
        lab.start();
        lab.rest(10).await;
        assert!(lab.addresses(WEB).is_empty(), "{}", lab.dump());
        lab.api.create_namespace("shop", &json!({"team": "shop"}));
        waits(lab, WEB, "NoPool").await;
        lab.api.edit(Kind::Namespace, "shop", |namespace| {
            namespace["metadata"]["labels"] = json!({"team": "else"});
        });
        given(lab, WEB).await;
    });
}

/// A pool that becomes invalid keeps its Services: a typing error does not withdraw an address
/// in use.
#[test]
fn nobody_is_moved_while_a_pool_cannot_be_read() {
    simulate(94, async |lab| {
        lan(lab, TWO, &json!({"priority": 1}));
        lab.api
            .create_pool("back", &["198.18.0.0/29"], &json!({"reallocate": true}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        let address = given(lab, WEB).await;
        let is = |lab: &Lab, entry: &str| {
            lab.api.edit(Kind::Pool, "front", |pool| {
                pool["spec"]["addresses"] = json!([entry]);
            });
        };
        for mistyped in ["203.0.113.1/29", "203.0.113.6-203.0.113.1"] {
            is(lab, mistyped);
            lab.rest(30).await;
            assert_eq!(lab.addresses(WEB), [address.as_str()], "{mistyped}");
            is(lab, TWO);
            lab.rest(5).await;
        }
        // An explicit change is deliberate.
        is(lab, "203.0.113.6");
        lab.until("it is moved", |lab| {
            lab.addresses(WEB) != [address.as_str()]
        })
        .await;
    });
}

/// The settings of a class may change while it is in use.
#[test]
fn a_class_that_is_given_another_pool_serves_from_it() {
    simulate(92, async |lab| {
        lan(lab, TWO, &json!({}));
        lab.api
            .create_pool("back", &["198.51.100.7"], &json!({"priority": 1}));
        let only = |lab: &Lab, pool: &str| {
            lab.api.edit(Kind::Class, "lan", |class| {
                class["spec"]["l2"]["addressPools"] = json!([pool]);
            });
        };
        only(lab, "front");
        lab.api.create_service(&svc(WEB));
        lab.start();
        assert_eq!(given(lab, WEB).await, "203.0.113.1");
        only(lab, "back");
        lab.rest(5).await;
        lab.api.create_service(&svc("shop/new"));
        assert_eq!(given(lab, "shop/new").await, "198.51.100.7");
        assert_eq!(lab.addresses(WEB), ["203.0.113.1"], "nobody moves unasked");
    });
}
