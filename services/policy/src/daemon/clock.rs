//! The one place that reads the wall clock; everything else takes the time as an argument.

use std::time::SystemTime;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // Before 1970: a machine without a clock.
        Err(_) => 0,
    }
}
