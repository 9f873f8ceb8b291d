//! Questions to the person at the terminal.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::Stop;

/// What the person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `y` or `yes`.
    Yes,
    /// Anything else.
    No,
    /// A signal came instead.
    Stopped,
}

/// Asks a question that is answered with yes or no.
pub(super) async fn ask(question: &str, stop: Stop<'_>) -> Result<Answer> {
    Ok(match typed(question, stop).await? {
        None => Answer::Stopped,
        Some(text) if ["y", "yes"].contains(&text.to_lowercase().as_str()) => Answer::Yes,
        Some(_) => Answer::No,
    })
}

/// What the person types, without the spaces around it; `None`: a signal came instead.
pub(super) async fn typed(question: &str, stop: Stop<'_>) -> Result<Option<String>> {
    eprint!("{question}");
    std::io::stderr().flush()?;
    let (answer, answered) = oneshot::channel();
    // A thread of its own: the end of the process does not wait for it.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        let _ = answer.send(read.map(|_| line));
    });
    tokio::select! {
        line = answered => {
            let line = line.context("cannot read the answer")?.context("cannot read the answer")?;
            Ok(Some(line.trim().to_owned()))
        }
        () = stop => {
            eprintln!();
            Ok(None)
        }
    }
}
