//! Times and spans as people type them: `90d`, `1h30m`, `2026-01-31`, `2026-01-31 08:30`. Times without an offset are UTC,
//! as all times that this program shows.
//!
//! Reads no clock: whoever has one passes the moment in.

use jiff::{Timestamp, civil, tz::TimeZone};

/// When something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// So many seconds from now.
    In(u32),
    /// At this second since 1970.
    At(i64),
}

impl End {
    /// In seconds from now; an error if that is over.
    pub(crate) fn seconds(self, now: i64) -> Result<u32, String> {
        match self {
            Self::In(seconds) => Ok(seconds),
            Self::At(at) => match u32::try_from(at.saturating_sub(now)) {
                Ok(seconds) if seconds > 0 => Ok(seconds),
                Ok(_) => Err("that time is over already".to_owned()),
                Err(_) if at <= now => Err("that time is over already".to_owned()),
                Err(_) => Err("that is more than a century away".to_owned()),
            },
        }
    }
}

/// A moment that has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So many seconds ago.
    Ago(u32),
    At(Timestamp),
}

impl Since {
    pub(crate) fn text(self, now: Timestamp) -> String {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(seconds) => {
                let then = now.as_second().saturating_sub(seconds.into());
                Timestamp::from_second(then).unwrap_or(now)
            }
        };
        at.to_string()
    }
}

pub(crate) fn end(text: &str) -> Result<End, String> {
    if let Some(seconds) = seconds(text) {
        return if seconds == 0 {
            Err("nothing is good for no time at all; write a span such as 90d".to_owned())
        } else {
            Ok(End::In(seconds))
        };
    }
    let at =
        time(text).ok_or("write a span such as 90d, 12h or 30m, or a date such as 2026-12-31")?;
    Ok(End::At(at.as_second()))
}

pub(crate) fn since(text: &str) -> Result<Since, String> {
    if let Some(seconds) = seconds(text) {
        return Ok(Since::Ago(seconds));
    }
    let at = time(text).ok_or(
        "write a time such as '2026-01-31 08:30' (UTC), a date such as 2026-01-31, or how long ago: 1h, 30m, 7d",
    )?;
    Ok(Since::At(at))
}

pub(crate) fn span(text: &str) -> Result<u32, String> {
    seconds(text).ok_or_else(|| "write a span such as 30m, 12h or 7d".to_owned())
}

/// `1h30m`, each number with its unit. None: it is no span, or a longer one than anybody means.
fn seconds(text: &str) -> Option<u32> {
    let mut rest = text.trim();
    let mut seconds: u32 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next()?;
        let each = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u32>().ok()?.checked_mul(each)?)?;
        rest = tail.get(1..)?;
    }
    Some(seconds)
}

fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let local = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_as_they_are_typed() {
        assert_eq!(span("90d"), Ok(7_776_000));
        assert_eq!(span("1h30m"), Ok(5400));
        assert_eq!(span("2w"), Ok(1_209_600));
        for wrong in ["", "5", "h", "1y", "99999999999d", "200000d", "-1h", "1 h"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert_eq!(end("2026-12-31"), Ok(End::At(1_798_675_200)));
        assert_eq!(end("2026-12-31T01:00:00+01:00"), Ok(End::At(1_798_675_200)));
        assert_eq!(end("30m"), Ok(End::In(1800)));
        assert!(end("0d").unwrap_err().contains("90d"));
        assert!(end("tomorrow").unwrap_err().contains("2026-12-31"));
        let now: Timestamp = "2026-01-31T08:30:00Z".parse().unwrap();
        for (typed, meant) in [
            ("1h", "2026-01-31T07:30:00Z"),
            ("2026-01-30", "2026-01-30T00:00:00Z"),
            ("2026-01-30 12:00", "2026-01-30T12:00:00Z"),
            ("2026-01-30T12:00:00-01:00", "2026-01-30T13:00:00Z"),
        ] {
            assert_eq!(since(typed).unwrap().text(now), meant, "{typed}");
        }
        assert!(since("yesterday").unwrap_err().contains("7d"));
    }

    #[test]
    fn what_is_over_is_no_end() {
        assert_eq!(End::At(100).seconds(40), Ok(60));
        assert!(
            End::At(40)
                .seconds(40)
                .unwrap_err()
                .contains("over already")
        );
        assert!(End::At(1).seconds(40).unwrap_err().contains("over already"));
        assert!(
            End::At(i64::MAX)
                .seconds(40)
                .unwrap_err()
                .contains("century")
        );
        assert_eq!(End::In(5).seconds(40), Ok(5));
    }
}
