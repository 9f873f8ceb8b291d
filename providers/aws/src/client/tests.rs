//! What needs no server. `tests/client.rs` makes every call against one.

use super::*;

/// The provider's futures move between threads.
#[test]
fn all_futures_can_move_between_threads() {
    fn check<T: Send>(_: impl FnOnce(&Client, Manner) -> T) {}
    check(|client, manner| {
        let client = client.clone();
        async move {
            let ids = Ids::default();
            let call = Call::DeleteListener {
                listener: String::new(),
            };
            let _ = client
                .call(&call, &ids, manner.urgency, Duration::ZERO)
                .await;
            let _ = client.all_load_balancers(manner).await;
            let _ = client.load_balancers(&[], manner).await;
            let _ = client.target_groups_named(&[], manner).await;
            let _ = client.tags(&[], manner).await;
            let _ = client.listeners("", manner).await;
            let _ = client.target_health("", manner).await;
            let _ = client.subnets(&[], manner).await;
            let _ = client.instances(&[], manner).await;
        }
    });
}
