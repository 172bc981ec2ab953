//! Windows on known nights, with what the clock on the wall showed.

use clawgress_config::policy::{Day, TimeWindow};
use clawgress_policy::{Window, Zone};
use jiff::{Timestamp, tz::TimeZoneDatabase};

use crate::made::{EVERY_DAY, window};

/// The changes after `from` in UTC, as many as asked for, with whether it is open from then on.
fn changes(zone: &str, window: &TimeWindow, from: &str, count: usize) -> Vec<(String, bool)> {
    let (zone, window) = (Zone::named(zone).unwrap(), Window::from(window));
    let mut now = at(from);
    let mut changes = Vec::new();
    for _ in 0..count {
        let Some(next) = window.next_change(&zone, now) else {
            break;
        };
        assert_ne!(window.is_open(&zone, next), window.is_open(&zone, next - 1));
        changes.push((
            Timestamp::from_second(next).unwrap().to_string(),
            window.is_open(&zone, next),
        ));
        now = next;
    }
    changes
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn told(changes: &[(&str, bool)]) -> Vec<(String, bool)> {
    changes
        .iter()
        .map(|(at, open)| ((*at).to_owned(), *open))
        .collect()
}

#[test]
fn office_hours_in_berlin_follow_the_clock_on_the_wall() {
    let office = window(&[Day::Mon, Day::Fri], "09:00", "17:00");
    // The clocks go forward on Sunday, 29 March 2026.
    assert_eq!(
        changes("Europe/Berlin", &office, "2026-03-26T00:00:00Z", 4),
        told(&[
            ("2026-03-27T08:00:00Z", true),
            ("2026-03-27T16:00:00Z", false),
            ("2026-03-30T07:00:00Z", true),
            ("2026-03-30T15:00:00Z", false),
        ])
    );
}

#[test]
fn the_day_is_the_one_on_which_it_starts() {
    let night = window(&[Day::Fri], "22:00", "06:00");
    assert_eq!(
        changes("UTC", &night, "2026-03-02T00:00:00Z", 3),
        told(&[
            ("2026-03-06T22:00:00Z", true),
            ("2026-03-07T06:00:00Z", false),
            ("2026-03-13T22:00:00Z", true),
        ])
    );
}

#[test]
fn it_may_end_at_24_and_go_on_at_0() {
    let evening = window(&[Day::Sun], "23:00", "24:00");
    assert_eq!(
        changes("UTC", &evening, "2026-03-01T12:00:00Z", 2),
        told(&[
            ("2026-03-01T23:00:00Z", true),
            ("2026-03-02T00:00:00Z", false)
        ])
    );
    let weekend = window(&[Day::Sat, Day::Sun], "00:00", "24:00");
    assert_eq!(
        changes("UTC", &weekend, "2026-03-01T12:00:00Z", 2),
        told(&[
            ("2026-03-02T00:00:00Z", false),
            ("2026-03-07T00:00:00Z", true)
        ])
    );
    let always = window(&EVERY_DAY, "00:00", "24:00");
    assert_eq!(
        changes("America/New_York", &always, "2026-03-01T12:00:00Z", 1),
        []
    );
}

#[test]
fn inside_the_skipped_hour_it_does_not_open_that_night() {
    // New York, Sunday, 8 March 2026: 01:59:59 is followed by 03:00.
    let inside = window(&EVERY_DAY, "02:15", "02:45");
    assert_eq!(
        changes("America/New_York", &inside, "2026-03-07T12:00:00Z", 2),
        told(&[
            ("2026-03-09T06:15:00Z", true),
            ("2026-03-09T06:45:00Z", false)
        ])
    );
    let sundays = window(&[Day::Sun], "02:15", "02:45");
    assert_eq!(
        changes("America/New_York", &sundays, "2026-03-07T12:00:00Z", 1),
        told(&[("2026-03-15T06:15:00Z", true)])
    );
}

#[test]
fn reaching_into_the_skipped_hour_it_ends_at_the_jump_and_out_of_it_begins_there() {
    let into = window(&[Day::Sun], "01:30", "02:30");
    assert_eq!(
        changes("America/New_York", &into, "2026-03-07T12:00:00Z", 2),
        told(&[
            ("2026-03-08T06:30:00Z", true),
            ("2026-03-08T07:00:00Z", false)
        ])
    );
    let out_of = window(&[Day::Sun], "02:30", "03:30");
    assert_eq!(
        changes("America/New_York", &out_of, "2026-03-07T12:00:00Z", 2),
        told(&[
            ("2026-03-08T07:00:00Z", true),
            ("2026-03-08T07:30:00Z", false)
        ])
    );
}

#[test]
fn inside_the_hour_that_comes_twice_it_opens_twice() {
    // New York, Sunday, 1 November 2026: 01:59:59 is followed by 01:00.
    let inside = window(&[Day::Sun], "01:15", "01:45");
    assert_eq!(
        changes("America/New_York", &inside, "2026-10-31T12:00:00Z", 4),
        told(&[
            ("2026-11-01T05:15:00Z", true),
            ("2026-11-01T05:45:00Z", false),
            ("2026-11-01T06:15:00Z", true),
            ("2026-11-01T06:45:00Z", false),
        ])
    );
    let over_night = window(&[Day::Sat], "22:00", "01:30");
    assert_eq!(
        changes("America/New_York", &over_night, "2026-10-31T12:00:00Z", 4),
        told(&[
            ("2026-11-01T02:00:00Z", true),
            ("2026-11-01T05:30:00Z", false),
            ("2026-11-01T06:00:00Z", true),
            ("2026-11-01T06:30:00Z", false),
        ])
    );
}

#[test]
fn midnight_itself_may_be_skipped_or_come_twice() {
    // Cairo, Friday, 24 April 2026: 23:59:59 on Thursday is followed by 01:00.
    let first_minutes = window(&[Day::Fri], "00:00", "00:30");
    assert_eq!(
        changes("Africa/Cairo", &first_minutes, "2026-04-23T12:00:00Z", 1),
        told(&[("2026-04-30T21:00:00Z", true)])
    );
    let late = window(&[Day::Thu], "23:00", "24:00");
    assert_eq!(
        changes("Africa/Cairo", &late, "2026-04-23T12:00:00Z", 2),
        told(&[
            ("2026-04-23T21:00:00Z", true),
            ("2026-04-23T22:00:00Z", false)
        ])
    );
    // And on Friday, 30 October 2026, 00:00 goes back to 23:00 on Thursday.
    assert_eq!(
        changes("Africa/Cairo", &late, "2026-10-29T12:00:00Z", 2),
        told(&[
            ("2026-10-29T20:00:00Z", true),
            ("2026-10-29T22:00:00Z", false)
        ])
    );
}

#[test]
fn instants_that_no_calendar_has_are_shut_and_harm_nothing() {
    let zone = Zone::named("America/New_York").unwrap();
    let always = Window::from(&window(&EVERY_DAY, "00:00", "24:00"));
    let office = Window::from(&window(&[Day::Mon], "09:00", "17:00"));
    for now in [i64::MIN, i64::MAX, -400_000_000_000, 400_000_000_000] {
        assert!(!always.is_open(&zone, now));
        assert_eq!(office.next_change(&zone, now), None);
    }
    let last = Timestamp::MAX.as_second();
    assert!(
        office
            .next_change(&zone, last)
            .is_none_or(|next| next > last)
    );
    assert!(
        office
            .next_change(&zone, Timestamp::MIN.as_second())
            .is_some()
    );
}

#[test]
fn every_zone_that_a_configuration_may_name_is_in_the_bundle() {
    let zones = include_str!("../../../config/data/zones.txt");
    for zone in zones.lines().filter(|line| !line.starts_with('#')) {
        assert!(Zone::named(zone).is_ok(), "{zone}");
    }
    assert!(TimeZoneDatabase::bundled().get("UTC").is_ok());
    let error = Zone::named("Mars/Olympus").err().unwrap().to_string();
    assert!(
        error.contains("Mars/Olympus") && error.contains("Europe/Berlin"),
        "{error}"
    );
}
