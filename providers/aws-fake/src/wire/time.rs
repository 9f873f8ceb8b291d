//! Times in answers. The fake began at a fixed time, so that answers can be compared.

use jiff::Timestamp;

use crate::state::Moment;

/// The time of a moment, in the notation of XML Schema.
pub(crate) fn timestamp(moment: Moment) -> String {
    // 1 January 2026.
    let start = Timestamp::from_second(1_767_225_600).unwrap_or_default();
    let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
    let time = start.checked_add(jiff::SignedDuration::new(seconds, 0));
    let time = time.unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
