//! Health on a Unix socket, for probes that run a program in the container.
//!
//! A process on the host network may share its node with the one that it replaces. A probe over the
//! network is then answered by either of them; a socket in a folder of the pod is answered by the
//! process of this pod.
//!
//! A client sends `livez` or `readyz` and ends its side of the connection. The answer is a line,
//! `yes` or `no`, and then the text of the [`admin`](super::admin) endpoint.
//!
//! Invariants:
//! - Clients are answered one after the other, each within [`TIME`], so nothing accumulates.
//! - Only the user of the process can connect, at any moment: the socket gets its mode in a folder that
//!   nobody else can enter, and its place afterwards.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

use super::admin::Health;

/// How long a client and a server wait for each other.
const TIME: Duration = Duration::from_secs(2);
/// The pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest question, in bytes.
const LONGEST_QUESTION: u64 = 16;
/// The longest answer that a client reads, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// The first line of a good answer.
const YES: &str = "yes\n";
const NO: &str = "no\n";

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Whether the process must be restarted.
    Livez,
    /// Whether the process is ready.
    Readyz,
}

/// Answers until it is dropped. A socket of an earlier process is replaced.
pub async fn serve(path: &Path, health: &Health) -> io::Result<()> {
    let listener = bind(path)?;
    loop {
        match listener.accept().await {
            // A client that does not wait for its answer is no error of this process.
            Ok((stream, _)) => drop(timeout(TIME, answer(stream, health)).await),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// A socket that only the user of the process can use.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // Short: the path of a socket has at most 107 bytes.
    let folder = path.with_extension("d");
    let inside = folder.join("s");
    // What a process left that was killed in this function.
    for removed in [std::fs::remove_file(&inside), std::fs::remove_dir(&folder)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    DirBuilder::new().mode(0o700).create(&folder)?;
    let listener = UnixListener::bind(&inside)?;
    std::fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
    std::fs::rename(&inside, path)?;
    std::fs::remove_dir(&folder)?;
    Ok(listener)
}

async fn answer(mut stream: tokio::net::UnixStream, health: &Health) -> io::Result<()> {
    let mut asked = String::new();
    (&mut stream)
        .take(LONGEST_QUESTION)
        .read_to_string(&mut asked)
        .await?;
    let Ok(question) = Question::from_str(asked.trim(), false) else {
        return Ok(());
    };
    let (good, objections) = match question {
        Question::Livez => ("alive", health.failing()),
        Question::Readyz => ("ready", health.missing()),
    };
    let text = if objections.is_empty() {
        format!("{YES}{good}\n")
    } else {
        format!("{NO}{}\n", objections.join("\n"))
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Asks the process behind a socket. Returns whether the answer is yes, and its text.
pub fn ask(path: &Path, question: Question) -> io::Result<(bool, String)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    let word = match question {
        Question::Livez => "livez",
        Question::Readyz => "readyz",
    };
    stream.write_all(word.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut text)?;
    let yes = text.strip_prefix(YES);
    let rest = yes.or_else(|| text.strip_prefix(NO));
    let rest = rest.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((yes.is_some(), rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(path: &Path, question: Question) -> io::Result<(bool, String)> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || ask(&path, question))
            .await
            .unwrap()
    }

    /// Serves, and waits until the socket is there.
    async fn served(path: &Path, health: &Health) -> tokio::task::JoinHandle<io::Result<()>> {
        let (path, health) = (path.to_owned(), health.clone());
        let there = path.clone();
        let task = tokio::spawn(async move { serve(&path, &health).await });
        while UnixStream::connect(&there).is_err() {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn it_answers_as_the_admin_endpoint_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let health = Health::default();
        let gate = health.gate("the list of Services");
        let task = served(&path, &health).await;
        let alive = asked(&path, Question::Livez).await.unwrap();
        assert_eq!(alive, (true, "alive\n".to_owned()));
        let (ready, text) = asked(&path, Question::Readyz).await.unwrap();
        assert!(!ready && text.contains("the list of Services"), "{text}");
        gate.ready();
        let ready = asked(&path, Question::Readyz).await.unwrap();
        assert_eq!(ready, (true, "ready\n".to_owned()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        task.abort();
    }

    /// Another process looks at the path all the time.
    #[tokio::test]
    async fn nobody_else_can_connect_at_any_moment() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut modes = std::collections::BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    let found = std::fs::metadata(&path);
                    modes.extend(found.map(|it| it.permissions().mode() & 0o777));
                }
                modes
            });
            for _ in 0..500 {
                drop(bind(&path).unwrap());
                std::fs::remove_file(&path).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            let mut modes = looking.join().unwrap();
            modes.remove(&0o600);
            let modes: Vec<_> = modes.iter().map(|mode| format!("{mode:o}")).collect();
            assert!(modes.is_empty(), "{modes:?}");
        });
        // A process was killed in between.
        let private = path.with_extension("d");
        std::fs::create_dir(&private).unwrap();
        std::fs::write(private.join("s"), "").unwrap();
        drop(bind(&path).unwrap());
        assert!(!private.exists());
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_keeps_nobody_waiting_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let task = served(&path, &Health::default()).await;
        let silent = UnixStream::connect(&path).unwrap();
        // The client may give up just when the server turns to it.
        let answered = async { while asked(&path, Question::Livez).await.is_err() {} };
        timeout(10 * TIME, answered).await.unwrap();
        drop(silent);
        task.abort();
    }

    #[tokio::test]
    async fn the_socket_of_an_earlier_process_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(ask(&path, Question::Livez).is_err());
        let task = served(&path, &Health::default()).await;
        assert!(asked(&path, Question::Livez).await.unwrap().0);
        task.abort();
    }
}
