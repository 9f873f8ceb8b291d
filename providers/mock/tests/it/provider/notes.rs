//! Tags that say when something happened or what people wish.

use std::collections::BTreeMap;

use ballast_mock::{MockInventory, Token};
use ballast_provider::mark::{
    CLUSTER, CREATED_AT, KEEP, LAST_SEEN, NOTES, ORPHANED_AT, RETAINED, Sign,
};
use ballast_provider::{Inventory, Key, Life, Provider, Released, Removal};
use serde_json::json;

use super::{ensure, restored, tcp};
use crate::support::nodes::port;
use crate::support::{Cloud, balancer, call, id, listener, options};

fn note(key: &str, value: Option<&str>) -> BTreeMap<String, Option<String>> {
    [(key.to_owned(), value.map(str::to_owned))].into()
}

#[tokio::test]
async fn notes_stay_in_every_change() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let mut web = tcp("web");
    ensure(&provider, &balancer(web.clone())).await;
    let before = provider.survey().await.unwrap();
    assert!(before[0].created.is_some() && before[0].tags.contains_key(CREATED_AT));
    assert_eq!(before[0].billed.load_balancers, 1);
    assert_eq!(before[0].billed.public_addresses, 1);
    let sign = Sign::of(&before[0].tags, LAST_SEEN).unwrap();
    assert_eq!(sign.writer, "1");
    for key in [LAST_SEEN, ORPHANED_AT, KEEP] {
        provider.tag(&before, &note(key, Some("x"))).await.unwrap();
    }
    web.listeners
        .push(listener(ballast_provider::Protocol::Tcp, port(), 30_081));
    ensure(&provider, &balancer(web.clone())).await;
    let after = provider.survey().await.unwrap();
    for key in NOTES {
        let expected = if key == CREATED_AT {
            before[0].tags.get(key).map(String::as_str)
        } else {
            Some("x")
        };
        assert_eq!(
            after[0].tags.get(key).map(String::as_str),
            expected,
            "{key}"
        );
    }
    provider.tag(&after, &note(KEEP, None)).await.unwrap();
    ensure(&provider, &balancer(web)).await;
    let last = provider.survey().await.unwrap();
    assert!(!last[0].is_kept(), "{last:?}");
    cloud.stop().await;
}

#[tokio::test]
async fn what_people_keep_is_retained() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    ensure(&provider, &balancer(tcp("web"))).await;
    let name = provider.survey().await.unwrap()[0].name.clone();
    // Somebody else, a moment before the Service is deleted.
    let path = format!("/v1/load-balancers/{name}/tags");
    let body = json!({"tags": {KEEP: "please"}});
    let (status, _) = call(&cloud, "PATCH", &path, Some(body)).await;
    assert_eq!(status, 200);
    let key = Key::alone(&id("web"));
    let released = provider.release(&id("web"), &key, Removal::Delete).await;
    assert_eq!(released.unwrap(), Released::Gone);
    let left = provider.survey().await.unwrap();
    assert!(
        left[0].is_kept() && left[0].tags.contains_key(RETAINED),
        "{left:?}"
    );
    cloud.stop().await;
}

#[tokio::test]
async fn the_inventory_reads_tags_and_life_again() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    ensure(&provider, &balancer(tcp("web"))).await;
    let inventory = MockInventory::new(&cloud.endpoint(), Token::default()).unwrap();
    let account = inventory.account().await.unwrap();
    assert_eq!(account, format!("mock cloud {}", cloud.endpoint()));
    let all = inventory.all().await.unwrap();
    assert_eq!(
        inventory.life(&all[0]).await.unwrap(),
        Life::Silent,
        "no targets"
    );
    // Without the tag of its cluster it is nobody's, and still found.
    let path = format!("/v1/load-balancers/{}/tags", all[0].name);
    call(
        &cloud,
        "PATCH",
        &path,
        Some(json!({"tags": {CLUSTER: null}})),
    )
    .await;
    let tags = inventory.tags(&all[0]).await.unwrap().unwrap();
    assert!(!tags.contains_key(CLUSTER));
    assert_eq!(inventory.all().await.unwrap().len(), 1);
    // Its former owner does not touch it.
    let key = Key::alone(&id("web"));
    let released = provider.release(&id("web"), &key, Removal::Delete).await;
    assert_eq!(released.unwrap(), Released::Gone);
    assert_eq!(inventory.all().await.unwrap().len(), 1);
    call(
        &cloud,
        "DELETE",
        &format!("/v1/load-balancers/{}", all[0].name),
        None,
    )
    .await;
    assert_eq!(inventory.tags(&all[0]).await.unwrap(), None);
    cloud.stop().await;
}
