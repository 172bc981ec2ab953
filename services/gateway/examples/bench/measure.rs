//! What is measured, and what each figure must be.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::load::{self, Way};
use crate::peers::Daemon;

const IDLE: usize = 9_900;
const ACTIVE: usize = 2_000;

pub(crate) struct Bench {
    /// The origin first, then the gateway, then the peers.
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) only: Vec<String>,
}

/// A number of each daemon, for one figure.
type Row = Vec<(&'static str, f64)>;

impl Bench {
    pub(crate) fn all(&self) -> Result<()> {
        for daemon in self.tunnelling() {
            load::openings(&daemon.way, 1, 200)
                .with_context(|| format!("warming {}", daemon.way.name))?;
        }
        if self.wants("latency") {
            self.latency(1)?;
            self.latency(4)?;
        }
        if self.wants("rate") {
            self.rate()?;
        }
        if self.wants("bytes") {
            self.bytes(1)?;
            self.bytes(8)?;
        }
        if self.wants("kept") {
            self.kept()?;
        }
        if self.wants("plain") {
            self.plain()?;
        }
        if self.wants("floor") {
            self.floor()?;
        }
        if self.wants("idle") {
            self.idle()?;
        }
        Ok(())
    }

    pub(crate) fn wants(&self, figure: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|only| figure.starts_with(only.as_str()))
    }

    fn tunnelling(&self) -> impl Iterator<Item = &Daemon> {
        self.daemons
            .iter()
            .filter(|daemon| daemon.way.name != "haproxy")
    }

    /// Medians of what is added to the way without a proxy, in turns.
    fn added<'d>(
        &'d self,
        daemons: impl Iterator<Item = &'d Daemon>,
        sample: impl Fn(&Way) -> Result<Vec<f64>>,
    ) -> Result<[Row; 3]> {
        let daemons: Vec<&Daemon> = daemons.collect();
        let mut took = vec![Vec::new(); daemons.len()];
        for _ in 0..self.rounds {
            for (took, daemon) in took.iter_mut().zip(&daemons) {
                took.extend(
                    sample(&daemon.way)
                        .with_context(|| format!("measuring {}", daemon.way.name))?,
                );
            }
        }
        let percentiles: Vec<[f64; 3]> = took.iter_mut().map(|took| percentiles(took)).collect();
        let direct = percentiles[0];
        Ok([0, 1, 2].map(|at| {
            let row = daemons.iter().zip(&percentiles);
            row.skip(1)
                .map(|(daemon, own)| (daemon.way.name, own[at] - direct[at]))
                .collect()
        }))
    }

    fn latency(&self, clients: usize) -> Result<()> {
        let rows = self.added(self.tunnelling(), |way| {
            load::openings(way, clients, 2_000 / clients)
        })?;
        for (row, percentile) in rows.iter().zip([50, 95, 99]) {
            tell(
                &format!(
                    "CONNECT and first byte, added p{percentile}, {}",
                    clients_word(clients)
                ),
                row,
                "µs",
                &Must::AtMost(0.8),
            );
        }
        Ok(())
    }

    fn rate(&self) -> Result<()> {
        let daemons: Vec<&Daemon> = self.tunnelling().collect();
        let mut rates = vec![Vec::new(); daemons.len()];
        let mut costs = vec![Vec::new(); daemons.len()];
        for _ in 0..self.rounds {
            for (at, daemon) in daemons.iter().enumerate() {
                let before = daemon.cpu()?;
                let (count, took) =
                    load::openings_within(&daemon.way, 32, Duration::from_secs(self.seconds))?;
                rates[at].push(count as f64 / took.as_secs_f64());
                costs[at].push((daemon.cpu()? - before) * 1e4 / count as f64);
            }
        }
        let row = |values: &mut [Vec<f64>]| -> Row {
            let medians = values.iter_mut().map(|values| percentiles(values)[0]);
            daemons
                .iter()
                .map(|daemon| daemon.way.name)
                .zip(medians)
                .collect()
        };
        tell(
            "new tunnels, 32 clients",
            &row(&mut rates),
            "1/s",
            &Must::AtLeast(1.25),
        );
        tell(
            "processor time of 10,000 tunnels",
            &row(&mut costs),
            "s",
            &Must::AtMost(0.8),
        );
        Ok(())
    }

    fn bytes(&self, streams: usize) -> Result<()> {
        let daemons: Vec<&Daemon> = self.tunnelling().collect();
        let mut rates = vec![Vec::new(); daemons.len()];
        for _ in 0..self.rounds {
            for (rates, daemon) in rates.iter_mut().zip(&daemons) {
                rates.push(load::bulk(&daemon.way, streams, (4 << 30) / streams as u64)? / 1e9);
            }
        }
        let medians = rates.iter_mut().map(|rates| percentiles(rates)[0]);
        let row: Row = daemons
            .iter()
            .map(|daemon| daemon.way.name)
            .zip(medians)
            .collect();
        tell(
            &format!("bytes through tunnels, {streams} at once"),
            &row,
            "GB/s",
            &Must::AtLeast(1.3),
        );
        Ok(())
    }

    fn kept(&self) -> Result<()> {
        let rows = self.added(self.tunnelling(), |way| load::exchanges(way, 5_000))?;
        tell(
            "inside a kept tunnel, added p50",
            &rows[0],
            "µs",
            &Must::AtMost(1.0),
        );
        Ok(())
    }

    fn plain(&self) -> Result<()> {
        let rows = self.added(self.daemons.iter(), |way| load::pages(way, 3_000))?;
        tell(
            "plain HTTP, kept, added p50",
            &rows[0],
            "µs",
            &Must::AtMost(1.0),
        );
        Ok(())
    }

    /// What every installation may rely on, whatever the peers do.
    fn floor(&self) -> Result<()> {
        let rows = self.added(self.daemons.iter().take(2), |way| {
            let hello = load::hello();
            let active = (0..ACTIVE)
                .map(|_| load::open(way, &hello))
                .collect::<Result<Vec<_>>>()?;
            let took = load::paced(way, 500, Duration::from_secs(self.seconds));
            drop(active);
            took
        })?;
        for (row, percentile, most) in [(&rows[0], 50, 5_000.0), (&rows[1], 95, 15_000.0)] {
            tell(
                &format!("500 requests/s beside 2,000 tunnels, added p{percentile}"),
                row,
                "µs",
                &Must::Below(most),
            );
        }
        Ok(())
    }

    fn idle(&self) -> Result<()> {
        let mut row = Row::new();
        for daemon in self.tunnelling().skip(1) {
            let hello = load::hello();
            let mut open = Vec::with_capacity(IDLE);
            for _ in 0..IDLE {
                open.push(load::open(&daemon.way, &hello)?);
            }
            row.push((
                daemon.way.name,
                daemon.memory()? as f64 / f64::from(1 << 20),
            ));
            for stream in &mut open {
                load::exchange(stream).with_context(|| {
                    format!("asking through an idle tunnel of {}", daemon.way.name)
                })?;
            }
            drop(open);
            std::thread::sleep(Duration::from_secs(1));
        }
        tell(
            "9,900 idle tunnels, each answering afterwards",
            &row,
            "MiB",
            &Must::Below(120.0),
        );
        Ok(())
    }
}

/// What a long list costs: processor time of an opening, in turns with a short one.
pub(crate) fn names(few: &Daemon, many: &Daemon) -> Result<()> {
    const OPENINGS: usize = 4_000;
    let cost = |daemon: &Daemon| -> Result<f64> {
        let before = daemon.cpu()?;
        load::openings(&daemon.way, 2, OPENINGS / 2)?;
        Ok((daemon.cpu()? - before) * 1e6 / OPENINGS as f64)
    };
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        short.push(cost(few)?);
        long.push(cost(many)?);
    }
    let row = vec![
        (many.way.name, percentiles(&mut long)[0]),
        (few.way.name, percentiles(&mut short)[0]),
    ];
    tell(
        "processor time of a request with 1,000,000 names on the list",
        &row,
        "µs",
        &Must::AtMost(1.03),
    );
    Ok(())
}

enum Must {
    /// Of the best peer's.
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

/// One line for whoever runs this program: what the gateway has, what the best peer has, and whether that is as it
/// must be. All of them go to the terminal.
fn tell(figure: &str, row: &[(&'static str, f64)], unit: &str, must: &Must) {
    let own = row
        .iter()
        .find(|(name, _)| *name == "gateway")
        .map_or(f64::NAN, |(_, value)| *value);
    let peers = row
        .iter()
        .filter(|(name, _)| !matches!(*name, "gateway" | "direct"));
    let best = match must {
        Must::AtLeast(_) => peers.max_by(|one, other| one.1.total_cmp(&other.1)),
        _ => peers.min_by(|one, other| one.1.total_cmp(&other.1)),
    };
    let (words, holds) = match (must, best) {
        (Must::Below(bound), _) => (format!("≤ {bound} {unit}"), own <= *bound),
        (Must::AtMost(share), best) => (
            format!("≤ {share} × peer"),
            best.is_some_and(|(_, best)| own <= share * best),
        ),
        (Must::AtLeast(share), best) => (
            format!("≥ {share} × peer"),
            best.is_some_and(|(_, best)| own >= share * best),
        ),
    };
    let all: Vec<String> = row
        .iter()
        .map(|(name, value)| format!("{name} {value:.2}"))
        .collect();
    eprintln!("{figure}, in {unit}: {}", all.join(", "));
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let mut line =
        json!({"figure": figure, "value": round(own), "unit": unit, "must": words, "holds": holds});
    if let Some((name, value)) = best {
        line["peer"] = json!({"name": name, "value": round(*value)});
    }
    println!("figure: {line}");
}

fn clients_word(clients: usize) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

fn percentiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [50, 95, 99].map(|percent| {
        values
            .get(values.len() * percent / 100)
            .copied()
            .unwrap_or(f64::NAN)
    })
}
