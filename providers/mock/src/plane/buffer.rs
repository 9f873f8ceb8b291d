//! One buffer for each thread, for bytes that are passed on at once: an idle connection, flow
//! or listener has none of its own.

use std::cell::Cell;

/// The largest datagram there is.
const LENGTH: usize = 65_535;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's buffer.
pub(super) fn with<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    buffer.resize(LENGTH, 0);
    let result = work(&mut buffer);
    BUFFER.set(buffer);
    result
}
