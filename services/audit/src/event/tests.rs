//! An event's text: absent fields, foreign characters, and the way back.

use super::*;

fn text(begun: &Begun<'_>, outcome: &Outcome<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    open_text(begun, &mut text).unwrap();
    closing_text(outcome, &mut text).unwrap();
    text
}

fn origin() -> Origin {
    Origin {
        gateway: "gw-1".to_owned(),
        queue: "00ff".to_owned(),
        sequence: 7,
    }
}

#[test]
fn what_is_not_known_is_absent() {
    let begun = Begun {
        agent_id: Some("a".into()),
        ..Begun::default()
    };
    let mut line = Vec::new();
    with_origin(&origin(), &text(&begun, &Outcome::default()), &mut line).unwrap();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"gateway\":\"gw-1\",\"queue\":\"00ff\",\"sequence\":7,\
         \"timestamp\":\"1970-01-01T00:00:00.000000Z\",\"source\":\"proxy\",\"agent_id\":\"a\",\"decision\":\"deny\"}"
    );
}

#[test]
fn foreign_text_comes_back_as_it_was_and_breaks_no_line() {
    let nasty = "/a\"b\\c\n\r\t\u{0}\u{7f}\u{2028}ü🦀";
    let begun = Begun {
        path: Some(nasty.into()),
        destination_host: Some(nasty.into()),
        ..Begun::default()
    };
    let outcome = Outcome {
        decision: Decision::Allow,
        reason: Some(nasty.into()),
        latency_ms: Some(0.125),
        dlp_matches: vec![nasty.to_owned()].into(),
        interrupted: true,
        ..Outcome::default()
    };
    let mut line = Vec::new();
    with_origin(&origin(), &text(&begun, &outcome), &mut line).unwrap();
    assert!(!line.contains(&b'\n'));
    let event = Event::parse(&line).unwrap();
    assert_eq!(
        (event.origin, event.begun, event.outcome),
        (origin(), begun, outcome)
    );
}

#[test]
fn a_long_path_is_cut_and_says_so() {
    let long = "ü".repeat(LONGEST_FOREIGN);
    let begun = Begun {
        path: Some(long.as_str().into()),
        ..Begun::default()
    };
    let text = text(&begun, &Outcome::default());
    assert!(text.len() < LONGEST_FOREIGN + 200);
    let kept: Begun<'_> = serde_json::from_slice(&text).unwrap();
    assert!(kept.path.unwrap().ends_with("ü…"));
}

#[test]
fn a_text_that_no_queue_wrote_is_no_line() {
    for text in ["", "{", "{}", "[1]", "{\"a\":1,\n\"b\":2}"] {
        assert_eq!(
            with_origin(&origin(), text.as_bytes(), &mut Vec::new()),
            None,
            "{text}"
        );
    }
    for name in ["", "a b", "a\"b", &"x".repeat(65)] {
        assert!(!is_name(name), "{name}");
    }
}
