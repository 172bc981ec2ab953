//! Time since the kernel started, and calendar dates. Never the wall clock for durations: it jumps.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the kernel started, suspend included.
pub(crate) fn since_boot_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        seconds * 1000 + u64::try_from(now.tv_nsec() / 1_000_000).unwrap_or(0)
    })
}

/// What the machine believes the time to be; 0 if it believes in a time before 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Year, month and day of a Unix time.
pub(crate) fn date(unix: u64) -> (i32, u8, u8) {
    // Days are counted in 400-year eras that begin on a first of March, so that leap days come last.
    let days = unix / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (i32::try_from(year).unwrap_or(9999), month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(951_782_400), (2000, 2, 29));
        assert_eq!(date(1_700_000_000), (2023, 11, 14));
        assert_eq!(date(4_102_444_799), (2099, 12, 31));
    }

    #[test]
    fn the_boot_clock_rises() {
        let before = since_boot_ms();
        assert!(before > 0 && since_boot_ms() >= before);
    }
}
