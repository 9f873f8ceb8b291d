//! The call log: the newest calls, and counters of all calls. It is in memory, so it starts
//! with the process. It is bounded by bytes, because callers choose the length of a path.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::api::{CallView, CallsPage};

/// The maximum number of calls in the log.
const MOST_CALLS: usize = 10_000;

/// The maximum number of bytes of the log, as [`weight`] counts them.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The maximum number of bytes of a path or method in the log.
const PATH: usize = 512;
const METHOD: usize = 16;

/// The number of calls per answer.
const PAGE: usize = 1_000;

/// The call log.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    ring: VecDeque<CallView>,
    bytes: usize,
    total: u64,
    mutating: u64,
}

// === impl CallLog ===

impl CallLog {
    pub(super) fn record(
        &mut self,
        now: Timestamp,
        method: &http::Method,
        path: &str,
        status: u16,
    ) {
        let mutating = is_mutating(method);
        self.total += 1;
        self.mutating += u64::from(mutating);
        let call = CallView {
            seq: self.total,
            time: now,
            method: shortened(method.as_str(), METHOD),
            path: shortened(path, PATH),
            status,
            mutating,
        };
        self.bytes += weight(&call);
        self.ring.push_back(call);
        while self.ring.len() > MOST_CALLS || self.bytes > MOST_BYTES {
            match self.ring.pop_front() {
                Some(oldest) => self.bytes -= weight(&oldest),
                None => break,
            }
        }
    }

    /// The calls after a number, oldest first.
    pub(super) fn since(&self, seq: u64) -> CallsPage {
        let items = self.ring.iter().filter(|call| call.seq > seq).take(PAGE);
        CallsPage {
            items: items.cloned().collect(),
            last: self.total,
            total: self.total,
            mutating: self.mutating,
        }
    }
}

/// The memory of a call, in bytes.
fn weight(call: &CallView) -> usize {
    size_of::<CallView>() + call.method.len() + call.path.len()
}

/// Shortens a text that is too long, and appends `…`.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}…", &text[..end])
}

/// Whether a method can change something.
pub(super) fn is_mutating(method: &http::Method) -> bool {
    !matches!(
        *method,
        http::Method::GET | http::Method::HEAD | http::Method::OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_do_not_make_the_log_large() {
        let mut log = CallLog::default();
        let path = format!("/v1/calls?x={}", "é".repeat(30_000));
        let method = http::Method::from_bytes(&b"X".repeat(4_000)).unwrap();
        for _ in 0..2 * MOST_CALLS {
            log.record(Timestamp::UNIX_EPOCH, &method, &path, 200);
        }
        let held = |call: &CallView| call.path.capacity() + call.method.capacity();
        let bytes: usize = log.ring.iter().map(held).sum();
        assert!(
            bytes + log.ring.len() * size_of::<CallView>() <= 2 * MOST_BYTES,
            "{bytes}"
        );
        assert!(log.ring.len() > 1_000, "{}", log.ring.len());
        let counted: usize = log.ring.iter().map(weight).sum();
        assert_eq!(counted, log.bytes);
        let page = log.since(0);
        assert_eq!(
            (page.items.len(), page.total),
            (PAGE, 2 * MOST_CALLS as u64)
        );
        assert!(page.items[0].path.ends_with('…'), "{}", page.items[0].path);
    }

    #[test]
    fn short_calls_are_kept_whole() {
        let mut log = CallLog::default();
        for number in 0..MOST_CALLS + 5 {
            let path = format!("/v1/load-balancers/{number}");
            log.record(Timestamp::UNIX_EPOCH, &http::Method::PUT, &path, 200);
        }
        assert_eq!(log.ring.len(), MOST_CALLS);
        assert_eq!(log.since(0).items[0].seq, 6);
        assert_eq!(log.since(0).items[0].path, "/v1/load-balancers/5");
    }
}
