//! Tests of the HTTP API from a client's view, such as curl.

use crate::support::nodes::port;
use crate::support::{Cloud, call, eventually, get, options};
use serde_json::{Value, json};

fn desired(tags: &Value) -> Value {
    json!({
        "listeners": [{"protocol": "TCP", "port": port(), "nodePort": 30_080}],
        "families": ["IPv4"],
        "trafficPolicy": "cluster",
        "affinity": "none",
        "targetSet": "nodes",
        "tags": tags,
    })
}

async fn put(cloud: &Cloud, name: &str, query: &str, tags: &Value) -> (u16, Value) {
    let path = format!("/v1/load-balancers/{name}{query}");
    call(cloud, "PUT", &path, Some(json!({"desired": desired(tags)}))).await
}

#[tokio::test]
async fn a_put_is_idempotent_and_a_delete_too() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let body = json!({"desired": desired(&json!({}))});
    let path = "/v1/load-balancers/web";
    let (status, first) = call(&cloud, "PUT", path, Some(body.clone())).await;
    assert_eq!((status, first["state"].as_str()), (201, Some("active")));
    let (status, second) = call(&cloud, "PUT", path, Some(body)).await;
    assert_eq!(
        (status, &second),
        (200, &first),
        "not even the sequence number moves"
    );
    assert_eq!(get(&cloud, path).await, (200, first));
    assert_eq!(call(&cloud, "DELETE", path, None).await.0, 204);
    let (status, problem) = call(&cloud, "DELETE", path, None).await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("notFound")));
}

#[tokio::test]
async fn pages_are_complete_and_filtered_by_tags() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    for number in 0..7 {
        let odd = if number % 2 == 1 { "odd" } else { "even" };
        let (status, _) = put(&cloud, &format!("lb-{number}"), "", &json!({"a/b": odd})).await;
        assert_eq!(status, 201);
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/load-balancers?tag=a%2Fb%3Deven&limit=2{token}");
        let (_, page) = get(&cloud, &path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["nextPageToken"].as_str() {
            Some(next) => token = format!("&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["lb-0", "lb-2", "lb-4", "lb-6"]);
}

#[tokio::test]
async fn the_owner_is_a_precondition() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let ours = json!({"ballast.dev/cluster": "c", "ballast.dev/class": "local"});
    let mine = "?owner=c%2Flocal";
    assert_eq!(put(&cloud, "web", mine, &ours).await.0, 201);
    for other in ["?owner=c%2Fother", "?owner=d%2Flocal"] {
        let (status, problem) = put(&cloud, "web", other, &ours).await;
        assert_eq!((status, problem["code"].as_str()), (412, Some("notOwner")));
        let path = format!("/v1/load-balancers/web{other}");
        assert_eq!(call(&cloud, "DELETE", &path, None).await.0, 412);
        let path = format!("/v1/load-balancers/web/tags{other}");
        let edit = json!({"tags": {"x": "y"}});
        assert_eq!(call(&cloud, "PATCH", &path, Some(edit)).await.0, 412);
    }
    let path = format!("/v1/load-balancers/web/tags{mine}");
    let edit = json!({"tags": {"x": "y", "ballast.dev/none": null}});
    let (status, view) = call(&cloud, "PATCH", &path, Some(edit)).await;
    assert_eq!(
        (status, view["desired"]["tags"]["x"].as_str()),
        (200, Some("y"))
    );
}

#[tokio::test]
async fn what_is_wrong_names_the_field_and_the_value() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let with = |key: &str, value: Value| {
        let mut desired = desired(&json!({}));
        desired[key] = value;
        json!({"desired": desired})
    };
    let twice = json!([
        {"protocol": "TCP", "port": 80, "nodePort": 1},
        {"protocol": "TCP", "port": 80, "nodePort": 2},
    ]);
    for (body, needles) in [
        (with("listeners", json!([])), ["listeners", "at least one"]),
        (with("listeners", twice), ["listeners", "TCP/80"]),
        (
            with("families", json!(["IPv4", "IPv4"])),
            ["families", "IPv4"],
        ),
        (with("families", json!(["IPv5"])), ["body", "IPv5"]),
        (
            with("affinity", json!({"clientIp": {"timeoutSeconds": 0}})),
            ["timeoutSeconds", "0"],
        ),
        (
            with("requestedAddresses", json!(["::1"])),
            ["requestedAddresses", "::1"],
        ),
        (
            with("sourceRanges", json!(["10.0.0.0/64"])),
            ["body", "invalid"],
        ),
        (with("color", json!("red")), ["body", "color"]),
    ] {
        let (status, problem) = call(&cloud, "PUT", "/v1/load-balancers/web", Some(body)).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("invalid")));
        let message = problem["message"].as_str().unwrap();
        assert!(
            needles.iter().all(|needle| message.contains(needle)),
            "{message}"
        );
    }
    let (status, problem) = put(&cloud, "Web", "", &json!({})).await;
    assert_eq!(status, 400);
    assert!(problem["message"].as_str().unwrap().contains("\"Web\""));
    for path in [
        "/v1/load-balancers?limit=0",
        "/v1/load-balancers?tag=x",
        "/v1/changes?since=x",
    ] {
        assert_eq!(get(&cloud, path).await.0, 400, "{path}");
    }
    assert_eq!(get(&cloud, "/v2").await.0, 404);
    assert_eq!(get(&cloud, "/healthz").await.0, 200);
}

#[tokio::test]
async fn changes_come_in_order_and_an_unknown_place_is_said_so() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let address = cloud.endpoint();
    let waiting = tokio::spawn(async move {
        let uri: http::Uri = format!("{address}/v1/changes?since=0&wait=20")
            .parse()
            .unwrap();
        crate::support::fetch(uri).await
    });
    put(&cloud, "web", "", &json!({"k": "v"})).await;
    let (_, first) = waiting.await.unwrap();
    assert_eq!(first["items"][0]["kind"], "created");
    assert_eq!(first["items"][0]["tags"]["k"], "v");
    call(&cloud, "DELETE", "/v1/load-balancers/web", None).await;
    let all = eventually("three changes", async || {
        let (_, page) = get(&cloud, "/v1/changes?since=0").await;
        (page["items"].as_array()?.len() == 3).then_some(page)
    })
    .await;
    let kinds: Vec<&str> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["created", "active", "deleted"]);
    assert_eq!(all["position"]["seq"], 3);
    for query in ["since=99", "since=3&epoch=another"] {
        let (status, problem) = get(&cloud, &format!("/v1/changes?{query}")).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (410, Some("sequenceUnknown"))
        );
    }
    cloud.stop().await;
}

#[tokio::test]
async fn the_meter_runs_while_something_is_there_and_keeps_what_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let meter = async |cloud: &Cloud| {
        let (status, meter) = get(cloud, "/v1/meter").await;
        assert_eq!(status, 200);
        meter
    };
    let none = meter(&cloud).await;
    assert_eq!(
        (&none["perHour"], &none["soFar"]),
        (&json!(0.0), &json!(0.0))
    );
    for name in ["a", "b"] {
        assert_eq!(put(&cloud, name, "", &json!({})).await.0, 201);
    }
    let both = meter(&cloud).await;
    let expected =
        json!([2, 2, 0.055, 40.15, {"loadBalancerHour": 0.0225, "publicAddressHour": 0.005}]);
    let keys = [
        "loadBalancers",
        "publicAddresses",
        "perHour",
        "perMonth",
        "prices",
    ];
    assert_eq!(json!(keys.map(|key| both[key].clone())), expected);
    assert_eq!(both["since"], none["since"]);
    let so_far = |meter: &Value| meter["soFar"].as_f64().unwrap();
    // A millionth of a dollar takes two of them 66 ms.
    let seen = eventually("the meter counts", async || {
        let seen = meter(&cloud).await;
        (so_far(&seen) > so_far(&both)).then_some(seen)
    })
    .await;
    assert_eq!(
        call(&cloud, "DELETE", "/v1/load-balancers/a", None).await.0,
        204
    );
    cloud.stop().await;
    // The clock does not stop for what is left.
    let cloud = Cloud::start(options(&state)).await;
    let one = meter(&cloud).await;
    assert_eq!(
        (&one["loadBalancers"], &one["since"]),
        (&json!(1), &none["since"])
    );
    assert!(so_far(&one) >= so_far(&seen), "{seen} {one}");
    assert_eq!(
        call(&cloud, "DELETE", "/v1/load-balancers/b", None).await.0,
        204
    );
    let end = meter(&cloud).await;
    assert_eq!(
        (&end["perHour"], &end["perMonth"]),
        (&json!(0.0), &json!(0.0))
    );
    assert!(so_far(&end) >= so_far(&one), "{one} {end}");
    cloud.stop().await;
}

#[tokio::test]
async fn only_mutating_calls_need_the_token() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.token = Some("s3cret".into());
    let cloud = Cloud::start(options).await;
    assert_eq!(get(&cloud, "/v1/load-balancers").await.0, 200);
    let (status, problem) = put(&cloud, "web", "", &json!({})).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (401, Some("unauthorized"))
    );
    let (_, log) = get(&cloud, "/v1/calls").await;
    let last = log["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["method"].as_str(), last["status"].as_u64()),
        (Some("PUT"), Some(401))
    );
    assert_eq!(last["mutating"], true);
}

#[tokio::test]
async fn a_second_server_on_the_same_state_does_not_start() {
    let state = tempfile::tempdir().unwrap();
    let options = options(&state);
    let _cloud = Cloud::start(options.clone()).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let second = ballast_mock::server::Server::start(options, shutdown).await;
    assert!(second.is_err());
}

#[tokio::test]
async fn clients_that_finish_nothing_keep_nobody_out() {
    use tokio::io::AsyncWriteExt;

    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let mut unfinished = Vec::new();
    for number in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(cloud.address).await.unwrap();
        // Half of the clients start a body and half start a head; none of them finishes.
        let begun = if number % 2 == 0 {
            "PUT /v1/load-balancers/web HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
        } else {
            "GET /v1/calls HTTP/1.1\r\nhost:"
        };
        // The server closes the oldest ones.
        let _ = stream.write_all(begun.as_bytes()).await;
        unfinished.push(stream);
    }
    assert_eq!(get(&cloud, "/v1/load-balancers").await.0, 200);
    let long = format!("/v1/calls?x={}", "a".repeat(64_000));
    assert_eq!(get(&cloud, &long).await.0, 431);
}
