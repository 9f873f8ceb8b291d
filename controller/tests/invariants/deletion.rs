//! A deletion that waits says why on the Service: in its condition after half a minute, and with
//! one event after five.

use std::time::Duration;

use ballast_provider::{ProviderError, Reason};
use serde_json::json;

use crate::support::api::{Kind, Svc, texts};
use crate::support::cloud::Call;
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

const WEB: &str = "shop/web";
const WAITS: &str = "LoadBalancerDeletionWaits";

async fn served(lab: &mut Lab) {
    lab.api.create_service(&Svc::new(WEB));
    lab.start();
    lab.settle().await;
    lab.rest(5).await;
}

fn said(lab: &Lab) -> (String, String) {
    let condition = lab.condition(WEB, "Programmed").unwrap_or_default();
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn waits(lab: &Lab, mark: usize) -> Vec<String> {
    let events = lab.effects(mark, Target::Event).into_iter();
    let events = events.filter(|it| it.detail.contains(WAITS));
    events.map(|it| it.detail).collect()
}

/// One write and one event, however often it was tried. Returns the event.
fn says_it_once(lab: &Lab, mark: usize) -> String {
    let writes = lab.effects(mark, Target::Service);
    assert_eq!(writes.len(), 1, "{}", lab.dump());
    let mut events = waits(lab, mark);
    assert_eq!(events.len(), 1, "{events:#?}");
    events.remove(0)
}

#[test]
fn a_quick_deletion_says_nothing() {
    simulate(201, async |lab| {
        served(lab).await;
        lab.cloud.take_time(Duration::ZERO, Duration::from_secs(25));
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        // The finalizer goes; nothing else was written.
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            1,
            "{}",
            lab.dump()
        );
        assert_eq!(waits(lab, mark), Vec::<String>::new());
    });
}

#[test]
fn a_slow_deletion_says_what_it_waits_for() {
    simulate(202, async |lab| {
        served(lab).await;
        lab.cloud.take_time(Duration::ZERO, Duration::from_mins(20));
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, WEB);
        lab.rest(60).await;
        let (reason, message) = said(lab);
        assert_eq!(reason, "Releasing");
        assert!(message.contains("it waits for load balancer"), "{message}");
        assert!(message.contains("the cloud is deleting it"), "{message}");
        lab.rest(14 * 60).await;
        let event = says_it_once(lab, mark);
        assert!(event.contains("has not ended after 5 minutes"), "{event}");
        lab.gone(Kind::Service, WEB).await;
    });
}

#[test]
fn a_failure_says_since_when_and_a_refusal_how_to_go_on() {
    simulate(203, async |lab| {
        served(lab).await;
        let down = ProviderError::transient("the cloud does not answer");
        lab.cloud.fail(Call::Release, &down, 40);
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, WEB);
        lab.rest(20 * 60).await;
        let (reason, message) = said(lab);
        assert_eq!(reason, "CloudError");
        assert!(message.starts_with("Since 2"), "{message}");
        assert!(message.contains("the cloud does not answer"), "{message}");
        assert!(
            message.contains("Ballast tries again by itself"),
            "{message}"
        );
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            1,
            "{}",
            lab.dump()
        );
        assert_eq!(waits(lab, mark).len(), 1);
        // Another obstacle is said in its place.
        lab.cloud.heal();
        let protected = "load balancer arn:web has deletion protection: switch it off";
        let denied = ProviderError::failed(Reason::AccessDenied, protected);
        lab.cloud.fail(Call::Release, &denied, 3);
        lab.until("it is protected", |lab| {
            said(lab) == ("AccessDenied".to_owned(), protected.to_owned())
        })
        .await;
        lab.gone(Kind::Service, WEB).await;
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
        assert_eq!(waits(lab, mark).len(), 1, "it is said once");
    });
}

/// Nothing is deleted before the first survey of a process, so whoever waits must learn that it fails.
#[test]
fn a_survey_that_fails_is_said() {
    fn surveyed(lab: &Lab) -> Option<String> {
        let classes = lab.api.all(Kind::Class);
        let all = classes.values().next()?["status"]["conditions"].as_array()?;
        let one = all.iter().find(|it| it["type"] == "Surveyed")?;
        Some(one["message"].as_str()?.to_owned())
    }
    simulate(208, async |lab| {
        served(lab).await;
        assert_eq!(surveyed(lab), None);
        lab.stop().await;
        let why = "the right to list load balancers is missing";
        let denied = ProviderError::failed(Reason::AccessDenied, why);
        lab.cloud.fail(Call::Survey, &denied, 1_000);
        lab.start();
        lab.api.delete(Kind::Service, WEB);
        lab.until("the Service says why", |lab| said(lab).0 == "AccessDenied")
            .await;
        let (_, message) = said(lab);
        let until = "deletes nothing before its load balancers were listed";
        assert!(
            message.contains(until) && message.contains(why),
            "{message}"
        );
        lab.until("the class says it", |lab| surveyed(lab).is_some())
            .await;
        let message = surveyed(lab).unwrap_or_default();
        let until = "nothing of this class is deleted until that succeeds";
        assert!(
            message.contains(until) && message.contains(why),
            "{message}"
        );
        lab.rest(10 * 60).await;
        assert_eq!(lab.cloud.balancers().len(), 1, "{}", lab.dump());
        lab.cloud.heal();
        lab.gone(Kind::Service, WEB).await;
        lab.until("the class says no more", |lab| surveyed(lab).is_none())
            .await;
    });
}

#[test]
fn a_class_that_is_missing_is_named() {
    simulate(204, async |lab| {
        served(lab).await;
        lab.stop().await;
        lab.api.edit(Kind::Class, "local", |class| {
            class["metadata"]["finalizers"] = json!([]);
        });
        lab.api.delete(Kind::Class, "local");
        lab.api.delete(Kind::Service, WEB);
        lab.start();
        let mark = lab.journal.mark();
        lab.rest(10 * 60).await;
        let (reason, message) = said(lab);
        assert_eq!(reason, "ClassNotFound");
        assert!(message.contains("create the class again"), "{message}");
        let events = waits(lab, mark);
        assert_eq!(events.len(), 1, "{events:#?}");
        assert!(
            events[0].contains("Create LoadBalancerClass local again"),
            "{events:#?}"
        );
        lab.api.create_class("local", &json!({}));
        lab.gone(Kind::Service, WEB).await;
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
    });
}

#[test]
fn a_finalizer_of_somebody_else_is_named() {
    simulate(205, async |lab| {
        lab.api.create_service(&Svc::new(WEB));
        lab.api.edit(Kind::Service, WEB, |service| {
            service["metadata"]["finalizers"] = json!(["example.com/backup"]);
        });
        lab.start();
        lab.served(WEB).await;
        lab.rest(5).await;
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, WEB);
        lab.until("it says who holds it", |lab| said(lab).0 == "Released")
            .await;
        let (_, message) = said(lab);
        assert!(message.ends_with("example.com/backup"), "{message}");
        assert!(lab.condition(WEB, "Accepted").is_none());
        assert!(lab.addresses(WEB).is_empty(), "{}", lab.dump());
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
        lab.rest(10 * 60).await;
        says_it_once(lab, mark);
        lab.assert_steady().await;
        let service = lab.service(WEB);
        assert_eq!(
            texts(&service["metadata"]["finalizers"]),
            ["example.com/backup"]
        );
        lab.api.edit(Kind::Service, WEB, |service| {
            service["metadata"]["finalizers"] = json!([]);
        });
        lab.gone(Kind::Service, WEB).await;
    });
}
