//! Services whose targets are pods.

use super::*;
use crate::fixtures::{PODS, listed_pods, pod_slice};

fn to_pods(name: &str) -> ServiceView {
    let mut service = ServiceView::test(name);
    let wanted = service.load_balancer.as_mut().unwrap().as_mut().unwrap();
    wanted.settings.insert(PODS.to_owned(), "on".to_owned());
    service
}

fn decided(
    service: &ServiceView,
    all: &[ServiceView],
    ledger: &Ledger,
    endpoints: &Endpoints,
) -> Decision {
    let all: Vec<Arc<ServiceView>> = all.iter().cloned().map(Arc::new).collect();
    let world = World {
        classes: &local(),
        ledger,
        namespaces: &Namespaces::default(),
        endpoints,
        services: &|| all.clone(),
        class_missing_for: ARRIVAL_GRACE,
    };
    decide(service, &world)
}

/// The addresses of the pods of each member.
fn pods_of(decision: &Decision) -> Vec<Option<Vec<String>>> {
    let Decision::Ensure { balancer, .. } = decision else {
        panic!("not served");
    };
    let members = balancer.members.iter();
    let pods = members.map(|it| it.endpoints.as_ref());
    let text = |pods: &Arc<BTreeSet<ballast_provider::Endpoint>>| {
        pods.iter().map(|it| it.address.to_string()).collect()
    };
    pods.map(|pods| pods.map(text)).collect()
}

#[test]
fn nothing_is_decided_before_the_pods_are_known() {
    let unknown = || (Endpoints::default(), Step::Later);
    let begun = || {
        let endpoints = Endpoints::default();
        endpoints.begin(false);
        (endpoints, Step::Later)
    };
    let failing = || {
        let endpoints = Endpoints::default();
        endpoints.begin(false).gate.not_ready("forbidden");
        (endpoints, Step::Wait(Some(Reason::ClassNotReady)))
    };
    let listed = || (listed_pods(&[]), Step::Ensure("local"));
    for (endpoints, expected) in [unknown(), begun(), failing(), listed()] {
        let ledger = Ledger::default();
        let step = step_of(decided(&to_pods("web"), &[], &ledger, &endpoints));
        assert_eq!(step, expected);
        // Nobody else waits for them.
        let step = step_of(decided(&web(), &[], &ledger, &endpoints));
        assert_eq!(step, Step::Ensure("local"));
    }
}

#[test]
fn a_member_has_the_pods_of_its_service() {
    let slices = [
        pod_slice("web", "web-1", &["10.0.0.1", "10.0.0.2"]),
        pod_slice("web", "web-2", &["10.0.0.3"]),
        pod_slice("db", "db-1", &["10.0.0.4"]),
    ];
    let endpoints = listed_pods(&slices);
    let ledger = Ledger::default();
    let of = |service: &ServiceView| pods_of(&decided(service, &[], &ledger, &endpoints));
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(str::to_owned);
    assert_eq!(of(&to_pods("web")), [Some(all.to_vec())]);
    assert_eq!(of(&to_pods("db")), [Some(vec!["10.0.0.4".to_owned()])]);
    assert_eq!(of(&to_pods("none")), [Some(vec![])]);
    // It has not asked for them.
    assert_eq!(of(&web()), [None]);
}

/// Without them the turn of another Service would remove its targets.
#[test]
fn a_shared_balancer_waits_for_the_pods_of_any_member() {
    let pods = to_pods("pods").created(1).shares("front", 80);
    let nodes = web().created(2).shares("front", 81);
    let ledger = Ledger::default();
    ledger.reserve(&pods.id, "local", &Key::Shared("front".into()), None);
    let all = [pods, nodes.clone()];
    let step = step_of(decided(&nodes, &all, &ledger, &Endpoints::default()));
    assert_eq!(step, Step::Later);
    let endpoints = listed_pods(&[pod_slice("pods", "pods-1", &["10.0.0.1"])]);
    let decision = decided(&nodes, &all, &ledger, &endpoints);
    let one = Some(vec!["10.0.0.1".to_owned()]);
    assert_eq!(pods_of(&decision), [one, None]);
}

/// What a refused Service keeps is left alone as long as its pods are not known.
#[test]
fn a_refused_service_keeps_its_pods() {
    let mut service = to_pods("web").held_by(&["local"]).publishing("192.0.2.1");
    let accepted = service.load_balancer.clone().unwrap().unwrap();
    service.accepted_before = Some(Box::new(accepted));
    let service = service.refused(Reason::Invalid);
    let ledger = Ledger::default();
    ledger.reserve(&service.id, "local", &Key::alone(&service.id), None);
    let kept = |endpoints: &Endpoints| match decided(&service, &[], &ledger, endpoints) {
        Decision::Refuse { keep, .. } => {
            keep.map(|keep| keep.balancer.members[0].endpoints.clone())
        }
        _ => panic!("not refused"),
    };
    assert_eq!(kept(&Endpoints::default()), None);
    let endpoints = listed_pods(&[pod_slice("web", "web-1", &["10.0.0.1"])]);
    assert_eq!(kept(&endpoints).unwrap().unwrap().len(), 1);
}
