//! A new leader does not know which addresses the previous one released last.

use serde_json::json;

use super::{WEB, given, lan, svc};
use crate::support::api::Kind;
use crate::support::lab::simulate;

#[test]
fn an_address_that_may_have_been_given_back_just_now_is_not_the_next_one() {
    simulate(96, async |lab| {
        lan(lab, "203.0.113.0/24", &json!({"reuseAfter": "2m"}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        let first = given(lab, WEB).await;
        assert_eq!(first, "203.0.113.1");
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        lab.rest(1).await;
        lab.restart().await;
        lab.led().await;
        lab.api.create_service(&svc("shop/next"));
        assert_ne!(given(lab, "shop/next").await, first);
    });
}
