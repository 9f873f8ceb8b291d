//! A class without a status inherits the recorded drain before it is served.
//!
//! A class with a status has its switch there. So a record that somebody forgot never drains a
//! class that is served.
//!
//! The record is read after the class was seen. So a class that was created after `ballast
//! teardown` wrote the record always drains, however late this process learns of either, and so
//! does one that was created while no controller ran.

use std::time::Duration;

use ballast_crds::Draining;
use ballast_provider::ProviderError;
use serde_json::json;
use tracing::{info, warn};

use super::{DrainError, Drains};
use crate::class::ClassView;
use crate::class::board::Board;
use crate::cluster::writer::{ECHO, WriteError, Writer};

/// Tries of a write that conflicts with another one.
const TRIES: u32 = 5;
/// How long the watch may take to deliver that other one.
const NEWS: Duration = Duration::from_secs(1);

/// Sets the drain switch of a class that the record covers, and waits until this process sees it.
/// An error is tried again; until then the class is not served.
pub async fn inherit(
    drains: &Drains,
    writer: &Writer,
    board: &Board,
    class: &ClassView,
) -> Result<(), ProviderError> {
    let name = &class.name;
    if class.draining().is_some() || !class.status.conditions.is_empty() {
        return Ok(());
    }
    let record = match drains.read().await {
        Ok(record) => record,
        // The rights are of an earlier release: better served than not.
        Err(DrainError::Forbidden(error)) => {
            warn!(
                class = name,
                error,
                "cannot read {drains}; a class that is created during a teardown does not drain"
            );
            return Ok(());
        }
        Err(error) => return Err(unknown(drains, &error)),
    };
    let Some(draining) = record.covers(name) else {
        return Ok(());
    };
    if is_draining(board, class) {
        return Ok(());
    }
    flip(writer, board, class, Some(draining)).await?;
    info!(class = name, "the class drains, as {drains} says");
    // `--undo` first ends the record, and then looks for classes that drain. It may have looked
    // before the switch was set; then this read sees that the record has ended.
    let record = drains.read().await;
    let record = record.map_err(|error| unknown(drains, &error))?;
    if record.covers(name).is_none() {
        return flip(writer, board, class, None).await;
    }
    seen(board, class).await
}

fn unknown(drains: &Drains, error: &DrainError) -> ProviderError {
    ProviderError::transient(format!(
        "cannot find out whether the class drains: cannot read {drains}: {error}"
    ))
}

/// Writes the switch. Of this object only, so over a version; the status of a new class is written
/// at the same time, so a conflict is tried again with what the watch delivers next.
async fn flip(
    writer: &Writer,
    board: &Board,
    class: &ClassView,
    draining: Option<&Draining>,
) -> Result<(), ProviderError> {
    let mut changes = board.subscribe();
    for _ in 0..TRIES {
        match write(writer, board, class, draining).await {
            Err(WriteError::Conflict) => {
                let _ = tokio::time::timeout(NEWS, changes.changed()).await;
            }
            written => return written.map_err(|error| failed(&error)),
        }
    }
    Err(failed(&WriteError::Conflict))
}

fn failed(error: &WriteError) -> ProviderError {
    ProviderError::transient(format!("cannot drain the class: {error}"))
}

async fn write(
    writer: &Writer,
    board: &Board,
    class: &ClassView,
    draining: Option<&Draining>,
) -> Result<(), WriteError> {
    let classes = board.snapshot();
    let now = classes.get(&class.name).filter(|it| it.uid == class.uid);
    let version = now.unwrap_or(class).version;
    let mut body = json!({"status": {"draining": draining}});
    if draining.is_some() {
        body["metadata"] = json!({"resourceVersion": version.to_string()});
    }
    let written = writer.patch_class_status(&class.name, &body).await?;
    tracing::debug!(class = class.name, ?written, "wrote the drain switch");
    Ok(())
}

fn is_draining(board: &Board, class: &ClassView) -> bool {
    let classes = board.snapshot();
    let now = classes.get(&class.name).filter(|it| it.uid == class.uid);
    now.is_some_and(|now| now.draining().is_some())
}

/// Waits until the watch has delivered the switch.
async fn seen(board: &Board, class: &ClassView) -> Result<(), ProviderError> {
    const LONGEST: Duration = ECHO;
    let mut changes = board.subscribe();
    let shown = async {
        while !is_draining(board, class) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let late = |_| ProviderError::transient("the watch does not show that the class drains");
    tokio::time::timeout(LONGEST, shown).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::class::Scope;
    use crate::cluster::metrics::WriteMetrics;
    use crate::cluster::writer::Requests;
    use crate::fixtures::{client, failure, reply};
    use crate::process::lease::Fence;

    const RECORD: &str =
        r#"{"metadata": {}, "data": {"all": "{\"since\":\"2026-03-01T12:00:00Z\"}"}}"#;

    /// What the API server answers to the reads of the record, in order; the last one stays.
    /// Returns the result and what was patched.
    async fn inherited(
        answers: &[u16],
        draining: bool,
        served: bool,
    ) -> (Result<(), ProviderError>, Vec<Value>) {
        let mut view = ClassView::test("local");
        view.version = 7;
        let mut class = view.clone();
        if served {
            let all = r#"{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-03-01T12:00:00Z"}"#;
            class.status.conditions = vec![serde_json::from_str(all).unwrap()];
        }
        if draining {
            view.status.draining =
                serde_json::from_str(r#"{"since": "2026-03-01T12:00:00Z"}"#).ok();
        }
        let board = Board::new(Scope::All, Arc::default());
        board.post_views(vec![Arc::new(view.clone())]);
        let (reads, patched) = (Arc::new(Mutex::new(answers.to_vec())), Arc::default());
        let sent: Arc<Mutex<Vec<Value>>> = Arc::clone(&patched);
        let shown = board.clone();
        let client = client(move |parts, body| {
            if parts.method == http::Method::PATCH {
                let mut now = view.clone();
                now.status.draining =
                    serde_json::from_value(body["status"]["draining"].clone()).ok();
                shown.post_views(vec![Arc::new(now)]);
                sent.lock().unwrap().push(body);
                let answer = reply(200, &json!({"metadata": {"resourceVersion": "8"}}));
                return std::future::ready(answer);
            }
            let mut reads = reads.lock().unwrap();
            let code = if reads.len() > 1 {
                reads.remove(0)
            } else {
                reads[0]
            };
            std::future::ready(match code {
                200 => reply(200, &serde_json::from_str(RECORD).unwrap()),
                code => failure(code),
            })
        });
        let lease = ("kube-system".to_owned(), "ballast".to_owned());
        let drains = Drains::beside(client.clone(), &lease);
        let requests = Requests::new(client, WriteMetrics::default());
        let writer = Writer::new(requests, Fence::leading());
        let result = inherit(&drains, &writer, &board, &class).await;
        let patched = patched.lock().unwrap().clone();
        (result, patched)
    }

    #[tokio::test(start_paused = true)]
    async fn before_it_is_served() {
        let on = json!({
            "metadata": {"resourceVersion": "7"},
            "status": {"draining": {"since": "2026-03-01T12:00:00Z"}},
        });
        let off = json!({"status": {"draining": null}});
        let (result, patched) = inherited(&[200], false, true).await;
        assert!(result.is_ok() && patched.is_empty(), "it has a status");
        for (answers, draining, serves, patches) in [
            // No record; one, and the class does not drain yet; it does already.
            (&[404][..], false, true, vec![]),
            (&[200], false, true, vec![on.clone()]),
            (&[200], true, true, vec![]),
            // It was ended at the same time.
            (&[200, 404], false, true, vec![on.clone(), off]),
            // Without the right to read it; without an answer.
            (&[403], false, true, vec![]),
            (&[500], false, false, vec![]),
            (&[200, 500], false, false, vec![on.clone()]),
        ] {
            let (result, patched) = inherited(answers, draining, false).await;
            assert_eq!(result.is_ok(), serves, "{answers:?}: {result:?}");
            assert_eq!(patched, patches, "{answers:?}");
        }
    }
}
