//! Measured figures: one table, one JSON form, one judgement against what was promised.

use anyhow::Result;
use serde::Serialize;

/// What was promised of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Must {
    AtMost(f64),
    /// At most this many times the peer's value of the same run.
    TimesPeer(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) must: Must,
    /// The same thing done by whoever we compare with, in the same run.
    pub(crate) peer: Option<(&'static str, f64)>,
}

#[derive(Serialize)]
struct Line<'a> {
    figure: &'a str,
    value: f64,
    unit: &'a str,
    must: String,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer<'a>>,
}

#[derive(Serialize)]
struct Peer<'a> {
    name: &'a str,
    value: f64,
}

impl Figure {
    pub(crate) fn holds(&self) -> bool {
        match (self.must, self.peer) {
            (Must::AtMost(limit), _) => self.value <= limit,
            (Must::TimesPeer(factor), Some((_, peer))) => self.value <= factor * peer,
            (Must::TimesPeer(_), None) => false,
        }
    }

    fn must_words(&self) -> String {
        match self.must {
            Must::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Must::TimesPeer(factor) => format!("≤ {factor} × peer"),
        }
    }

    fn json(&self) -> Result<String> {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        Ok(serde_json::to_string(&Line {
            figure: self.name,
            value: round(self.value),
            unit: self.unit,
            must: self.must_words(),
            holds: self.holds(),
            peer: self.peer.map(|(name, value)| Peer {
                name,
                value: round(value),
            }),
        })?)
    }
}

/// Prints the figures; tells how many do not hold.
pub(crate) fn print(figures: &[Figure], json: bool) -> Result<usize> {
    if json {
        for figure in figures {
            println!("{}", figure.json()?);
        }
    } else {
        println!("| figure | value | peer | must be | holds |\n| --- | ---: | ---: | --- | --- |");
        for figure in figures {
            let peer = figure.peer.map_or_else(String::new, |(name, value)| {
                format!(
                    "{value:.2} {} ({name}; {:.2} ×)",
                    figure.unit,
                    figure.value / value
                )
            });
            println!(
                "| {} | {:.2} {} | {peer} | {} | {} |",
                figure.name,
                figure.value,
                figure.unit,
                figure.must_words(),
                if figure.holds() { "yes" } else { "NO" }
            );
        }
    }
    Ok(figures.iter().filter(|figure| !figure.holds()).count())
}

/// The middle one of some measurements.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_and_written_as_promised() {
        let mut figure = Figure {
            name: "start",
            value: 2.0,
            unit: "s",
            must: Must::TimesPeer(0.4),
            peer: Some(("other", 5.0)),
        };
        assert!(figure.holds());
        let line: serde_json::Value = serde_json::from_str(&figure.json().unwrap()).unwrap();
        assert_eq!(line["figure"], "start");
        assert_eq!(line["holds"], true);
        assert_eq!(line["peer"]["value"], 5.0);
        assert_eq!(line["must"], "≤ 0.4 × peer");
        figure.value = 2.1;
        assert!(!figure.holds());
        figure.peer = None;
        assert!(
            !figure.holds(),
            "without its peer a comparison holds for nobody"
        );
        assert!(
            !Figure {
                must: Must::AtMost(1.0),
                ..figure
            }
            .holds()
        );
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(&mut []).is_nan());
    }
}
