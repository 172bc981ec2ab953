//! Windows against a naive model that looks at the clock on the wall in every minute of a year.

use clawgress_config::policy::{Day, TimeOfDay, TimeWindow};
use clawgress_policy::{Window, Zone};
use jiff::{Timestamp, civil::Weekday, tz::TimeZoneDatabase};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::made::EVERY_DAY;

/// Half an hour of summer time, 45 minutes in the offset, a summer time that pauses for a month, skipped and doubled
/// midnights, and the usual.
const ZONES: [&str; 9] = [
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Chatham",
    "America/Havana",
    "Africa/Cairo",
    "Atlantic/Azores",
];

const MINUTES: i64 = 366 * 24 * 60;

/// What the wall shows in one minute: today, yesterday, minute of the day.
struct Shown(Day, Day, u16);

fn day(weekday: Weekday) -> Day {
    EVERY_DAY[usize::try_from(weekday.to_monday_zero_offset()).unwrap()]
}

fn year(zone: &str, from: i64) -> Vec<Shown> {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
    (0..MINUTES)
        .map(|minute| {
            let now = Timestamp::from_second(from + minute * 60).unwrap();
            let wall = zone.to_datetime(now);
            let minute =
                u16::try_from(wall.hour()).unwrap() * 60 + u16::try_from(wall.minute()).unwrap();
            let yesterday = wall.date().yesterday().unwrap().weekday();
            Shown(day(wall.weekday()), day(yesterday), minute)
        })
        .collect()
}

fn is_open(window: &TimeWindow, Shown(today, yesterday, minute): &Shown) -> bool {
    let (start, end) = (window.start.0, window.end.0);
    if start < end {
        window.days.contains(today) && (start..end).contains(minute)
    } else {
        window.days.contains(today) && *minute >= start
            || window.days.contains(yesterday) && *minute < end
    }
}

/// Often near the hours at which clocks change.
fn time(most: u16) -> impl Strategy<Value = u16> {
    prop_oneof![
        0..=most,
        0..=240u16,
        Just(0),
        Just(most),
        (0..24u16).prop_map(|hour| hour * 60)
    ]
}

fn any_window() -> impl Strategy<Value = TimeWindow> {
    let days = prop_oneof![
        prop::sample::subsequence(EVERY_DAY.to_vec(), 1..=7),
        Just(EVERY_DAY.to_vec()),
        Just(vec![Day::Sun]),
    ];
    (days, time(1439), time(1440))
        .prop_filter("it has a length", |(_, start, end)| start != end)
        .prop_map(|(days, start, end)| TimeWindow {
            days: days.into_iter().collect(),
            start: TimeOfDay(start),
            end: TimeOfDay(end),
        })
}

fn agrees_with_the_model(first_year: &str) {
    let from = first_year.parse::<Timestamp>().unwrap().as_second();
    for name in ZONES {
        let (zone, shown) = (Zone::named(name).unwrap(), year(name, from));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(8));
        let run = runner.run(&any_window(), |naive| {
            let window = Window::from(&naive);
            let mut state = window.is_open(&zone, from - 1);
            let mut told = window.next_change(&zone, from - 1);
            for (shown, now) in shown.iter().zip((from..).step_by(60)) {
                let open = is_open(&naive, shown);
                if open != state {
                    prop_assert_eq!(told, Some(now), "{}: the change to {}", name, open);
                    prop_assert!(
                        window.is_open(&zone, now) == open
                            && window.is_open(&zone, now - 1) == state
                    );
                    told = window.next_change(&zone, now);
                    state = open;
                } else if now % 4_020 == 0 {
                    prop_assert_eq!(window.is_open(&zone, now + 59), open, "{} at {}", name, now);
                    prop_assert_eq!(
                        window.next_change(&zone, now + 30),
                        told,
                        "{} after {}",
                        name,
                        now
                    );
                }
            }
            // What was told last lies beyond the year.
            prop_assert!(
                told.is_none_or(|told| told >= from + MINUTES * 60),
                "{}: {:?}",
                name,
                told
            );
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_year_of_the_table_agrees_with_the_wall_minute_by_minute() {
    agrees_with_the_model("2025-12-31T00:00:00Z");
}

/// Beyond the table of the data base, where only the zone's rule goes on.
#[test]
fn a_year_far_ahead_agrees_with_the_wall_minute_by_minute() {
    agrees_with_the_model("2043-12-31T00:00:00Z");
}
