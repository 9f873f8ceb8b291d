use super::*;
use crate::class::{ClassView, Instance, Scope};
use crate::cluster::metrics::WriteMetrics;
use crate::cluster::store::{Parsed, Update};
use crate::cluster::writer::Requests;
use crate::fixtures::{
    PODS, PureProvider, client, failure, gated_pod, id, parsed_slice, reply, second, unready_slice,
};
use crate::process::lease::Fence;

/// A pod of these Services, with the address 10.0.0.N in all of them.
fn pod(number: u8, services: &[&str]) -> WaitingPod {
    let at = BTreeSet::from([IpAddr::from([10, 0, 0, number])]);
    let services = services.iter().map(|it| (Name::from(&id(it)), at.clone()));
    WaitingPod {
        name: Name::from(&id(&format!("pod-{number}"))),
        uid: "uid".into(),
        services: services.collect(),
    }
}

#[test]
fn a_gate_opens_when_all_load_balancers_find_the_pod_healthy() {
    let services = Store::default();
    for name in ["one", "two", "nodes", "foreign"] {
        let mut view = ServiceView::test(name);
        let wanted = view.load_balancer.as_mut().unwrap().as_mut().unwrap();
        if name != "nodes" {
            wanted.settings.insert(PODS.to_owned(), "on".to_owned());
        }
        if name == "foreign" {
            view = view.class(Some("example.com/lb"));
        }
        services.apply(Update::Applied(Parsed {
            key: Name::from(&view.id),
            version: 1,
            view,
        }));
    }
    let classes = Classes::test([ClassView::test("local")]);
    let former = ServiceId {
        uid: "former".into(),
        ..id("one")
    };
    let found = |all: &[(&ServiceId, u8)]| -> Found {
        let all = all.iter();
        all.map(|(id, number)| {
            let found = BTreeSet::from([IpAddr::from([10, 0, 0, *number])]);
            (Name::from(*id), ((*id).clone(), found))
        })
        .collect()
    };
    let (one, two) = (id("one"), id("two"));
    for (what, behind, healthy, opens) in [
        ("healthy", &["one"][..], found(&[(&one, 1)]), true),
        ("not healthy", &["one"], found(&[(&one, 2)]), false),
        ("no turn yet", &["one"], found(&[]), false),
        (
            "healthy for both",
            &["one", "two"],
            found(&[(&one, 1), (&two, 1)]),
            true,
        ),
        (
            "healthy for one of two",
            &["one", "two"],
            found(&[(&one, 1)]),
            false,
        ),
        (
            "the other sends to nodes",
            &["one", "nodes"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "the other is of another controller",
            &["one", "foreign"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "the other is gone",
            &["one", "gone"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "a former Service of that name",
            &["one"],
            found(&[(&former, 1)]),
            false,
        ),
    ] {
        let open = to_open(vec![pod(1, behind)], &healthy, &services, &classes);
        assert_eq!(!open.is_empty(), opens, "{what}");
    }
}

#[test]
fn a_gate_is_opened_for_this_pod_alone() {
    insta::assert_json_snapshot!(patch(&pod(1, &[]), second(7)), @r#"
    {
      "metadata": {
        "uid": "uid"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "1970-01-01T00:00:07Z",
            "message": "The load balancers of all Services of this pod find it healthy",
            "reason": "TargetHealthy",
            "status": "True",
            "type": "ballast.dev/target-healthy"
          }
        ]
      }
    }
    "#);
}

/// Pods of `web` that wait for their gates, and an API server that opens them.
struct Bed {
    gates: Gates,
    /// The pods whose gates it was asked to open.
    asked: Arc<Mutex<Vec<String>>>,
}

// === impl Bed ===

impl Bed {
    /// With this many pods. The write to `refused` fails.
    fn start(pods: u8, refused: &'static str) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let api = client(move |parts, body| {
            let path = parts.uri.path().strip_suffix("/status").unwrap();
            let pod = path.strip_prefix("/api/v1/namespaces/shop/pods/").unwrap();
            assert_eq!(body["metadata"]["uid"], pod);
            log.lock().unwrap().push(pod.to_owned());
            let answer = if pod == refused {
                failure(403)
            } else {
                reply(200, &json!({"metadata": {"resourceVersion": "8"}}))
            };
            async move { answer }
        });
        let services: Arc<Store<Name, ServiceView>> = Arc::default();
        let mut view = ServiceView::test("web");
        let wanted = view.load_balancer.as_mut().unwrap().as_mut().unwrap();
        wanted.settings.insert(PODS.to_owned(), "on".to_owned());
        services.apply(Update::Applied(Parsed {
            key: Name::from(&view.id),
            version: 1,
            view,
        }));
        let board = Board::new(Scope::All, Arc::default());
        board.post_views(vec![Arc::new(ClassView::test("local"))]);
        let ready = Instance::Ready(Arc::new(PureProvider(&[])));
        board.seat("local").post(ready);
        let requests = Requests::new(api, WriteMetrics::default());
        Self {
            gates: Gates {
                endpoints: waiting(pods),
                services,
                board,
                writer: Writer::new(requests, Fence::leading()),
                healthy: Healthy::default(),
            },
            asked,
        }
    }

    /// A turn of `web`. The pods whose gates are asked to open, and whether others wait.
    async fn turn(&self, found: Option<&BTreeSet<IpAddr>>) -> (Vec<String>, bool) {
        let waits = self.gates.open(&id("web"), found).await;
        (std::mem::take(&mut *self.asked.lock().unwrap()), waits)
    }

    fn remembers(&self) -> bool {
        !self.gates.healthy.lock().is_empty()
    }
}

/// So many pods of `web` that wait.
fn waiting(pods: u8) -> Endpoints {
    let endpoints = Endpoints::default();
    let followed = endpoints.begin(true);
    let all: Vec<(String, String)> = (0..pods)
        .map(|it| (called(it), format!("10.0.0.{it}")))
        .collect();
    let pods: Vec<(&str, &str)> = all.iter().map(|(name, at)| (&**name, &**at)).collect();
    let slice = unready_slice("web", "web", &pods);
    followed.slices.apply(Update::ListBegins);
    followed.changed(&followed.slices.apply(Update::Listed(parsed_slice(&slice))));
    followed.slices.apply(Update::ListEnds);
    let store = &followed.pods.as_ref().unwrap().store;
    store.apply(Update::ListBegins);
    for (name, _) in pods {
        store.apply(Update::Listed(gated_pod(name, "True")));
    }
    store.apply(Update::ListEnds);
    endpoints
}

fn called(pod: u8) -> String {
    format!("pod-{pod:03}")
}

/// The addresses of these pods.
fn healthy(pods: impl IntoIterator<Item = u8>) -> BTreeSet<IpAddr> {
    let pods = pods.into_iter();
    pods.map(|it| IpAddr::from([10, 0, 0, it])).collect()
}

#[tokio::test]
async fn a_turn_opens_the_gates_of_the_healthy_pods() {
    let bed = Bed::start(3, "");
    // The load balancer has not been asked yet, or not since a change.
    assert_eq!(bed.turn(None).await, (vec![], true));
    assert_eq!(
        bed.turn(Some(&healthy([0, 2]))).await,
        (vec![called(0), called(2)], true)
    );
    assert!(bed.remembers());
    assert_eq!(bed.turn(None).await, (vec![], true));
    assert!(!bed.remembers(), "it is not known any more");
    let (asked, waits) = bed.turn(Some(&healthy(0..3))).await;
    assert_eq!((asked.len(), waits), (3, false));
    bed.gates.forget(&Name::from(&id("web")));
    assert!(!bed.remembers());
    let gone = Bed::start(0, "");
    assert_eq!(gone.turn(Some(&healthy([0]))).await, (vec![], false));
    assert!(!gone.remembers(), "nobody waits");
}

/// A turn must not last as many time-outs as there are pods.
#[tokio::test]
async fn a_write_that_fails_ends_the_turn() {
    let bed = Bed::start(3, "pod-001");
    assert_eq!(
        bed.turn(Some(&healthy(0..3))).await,
        (vec![called(0), called(1)], true)
    );
}

#[tokio::test]
async fn a_turn_opens_so_many_gates_and_the_next_one_the_others() {
    let most = u8::try_from(MOST).unwrap();
    for (pods, asked, waits) in [(most, most, false), (most + 2, most, true)] {
        let bed = Bed::start(pods, "");
        let expected: Vec<String> = (0..asked).map(called).collect();
        assert_eq!(bed.turn(Some(&healthy(0..pods))).await, (expected, waits));
    }
}
