//! Measured figures: one table, one JSON form, one judgement against what was promised.

use serde::{Deserialize, Serialize};

/// What a measurement's output puts before the JSON of a figure.
const MARK: &str = "figure: ";

/// What was promised of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Must {
    AtMost(f64),
    AtLeast(f64),
    /// At most this many times the peer's value of the same run.
    TimesPeer(f64),
    AtLeastTimesPeer(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub must: Must,
    /// The same thing done by whoever we compare with, in the same run.
    pub peer: Option<(&'static str, f64)>,
}

/// A figure as it is told: to people in a table, to programs as one object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub figure: String,
    pub value: f64,
    pub unit: String,
    pub must: String,
    pub holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    pub value: f64,
}

impl Figure {
    pub fn holds(&self) -> bool {
        let peer = self.peer.map(|(_, value)| value);
        match (self.must, peer) {
            (Must::AtMost(limit), _) => self.value <= limit,
            (Must::AtLeast(limit), _) => self.value >= limit,
            (Must::TimesPeer(factor), Some(peer)) => self.value <= factor * peer,
            (Must::AtLeastTimesPeer(factor), Some(peer)) => self.value >= factor * peer,
            (Must::TimesPeer(_) | Must::AtLeastTimesPeer(_), None) => false,
        }
    }

    fn must_words(&self) -> String {
        match self.must {
            Must::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Must::AtLeast(limit) => format!("≥ {limit} {}", self.unit),
            Must::TimesPeer(factor) => format!("≤ {factor} × peer"),
            Must::AtLeastTimesPeer(factor) => format!("≥ {factor} × peer"),
        }
    }

    pub fn line(&self) -> Line {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        Line {
            figure: self.name.to_owned(),
            value: round(self.value),
            unit: self.unit.to_owned(),
            must: self.must_words(),
            holds: self.holds(),
            peer: self.peer.map(|(name, value)| Peer {
                name: name.to_owned(),
                value: round(value),
            }),
        }
    }
}

impl Line {
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Tells whoever runs this program, among whatever else it prints.
    pub fn announce(&self) {
        println!("{MARK}{}", self.json());
    }

    /// The figure that a line of a program's output announces.
    pub fn announced(output: &str) -> Option<Self> {
        // A test runner may have begun the line.
        let (_, json) = output.split_once(MARK)?;
        serde_json::from_str(json).ok()
    }

    fn row(&self) -> String {
        let peer = self.peer.as_ref().map_or_else(String::new, |peer| {
            let (value, name) = (peer.value, &peer.name);
            let times = self.value / value;
            format!("{value:.2} {} ({name}; {times:.2} ×)", self.unit)
        });
        format!(
            "| {} | {:.2} {} | {peer} | {} | {} |",
            self.figure,
            self.value,
            self.unit,
            self.must,
            if self.holds { "yes" } else { "NO" }
        )
    }
}

/// Prints the figures; tells how many do not hold.
pub fn print(figures: &[Line], json: bool) -> usize {
    if !json {
        println!("| figure | value | peer | must be | holds |\n| --- | ---: | ---: | --- | --- |");
    }
    for figure in figures {
        println!("{}", if json { figure.json() } else { figure.row() });
    }
    figures.iter().filter(|figure| !figure.holds).count()
}

/// The middle one of some measurements.
pub fn median(values: &mut [f64]) -> f64 {
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
        let json = figure.line().json();
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["figure"], "start");
        assert_eq!(line["holds"], true);
        assert_eq!(line["peer"]["value"], 5.0);
        assert_eq!(line["must"], "≤ 0.4 × peer");
        let announced = Line::announced(&format!("test a … figure: {json}"));
        assert_eq!(announced, Some(figure.line()));
        assert_eq!(Line::announced("test a … ok"), None);
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
