//! What is measured, and what each figure must be.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::load::{self, Way};
use crate::peers::Daemon;

const IDLE: usize = 9_900;

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
        if self.wants("idle") {
            self.idle()?;
        }
        Ok(())
    }

    fn wants(&self, figure: &str) -> bool {
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
                &format!("tunnel_added_p{percentile}_{clients}_clients"),
                row,
                "us",
                Must::AtMost(0.8),
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
            "tunnels_per_second_32_clients",
            &row(&mut rates),
            "1/s",
            Must::AtLeast(1.25),
        );
        tell(
            "cpu_of_10000_tunnels",
            &row(&mut costs),
            "s",
            Must::AtMost(0.8),
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
            &format!("bytes_{streams}_streams"),
            &row,
            "GB/s",
            Must::AtLeast(1.3),
        );
        Ok(())
    }

    fn kept(&self) -> Result<()> {
        let rows = self.added(self.tunnelling(), |way| load::exchanges(way, 5_000))?;
        tell("kept_tunnel_added_p50", &rows[0], "us", Must::AtMost(1.0));
        Ok(())
    }

    fn plain(&self) -> Result<()> {
        let rows = self.added(self.daemons.iter(), |way| load::pages(way, 3_000))?;
        tell("plain_http_added_p50", &rows[0], "us", Must::AtMost(1.0));
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
            "memory_of_9900_idle_tunnels",
            &row,
            "MiB",
            Must::Below(120.0),
        );
        Ok(())
    }
}

enum Must {
    /// Of the best peer's.
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

/// One line: what the gateway has, what the best peer has, and whether that is as it must be.
fn tell(figure: &str, row: &[(&'static str, f64)], unit: &str, must: Must) {
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
    let (must, holds) = match (must, best) {
        (Must::Below(bound), _) => (Some(bound), Some(own <= bound)),
        (Must::AtMost(share), Some((_, best))) => (Some(share * best), Some(own <= share * best)),
        (Must::AtLeast(share), Some((_, best))) => (Some(share * best), Some(own >= share * best)),
        (_, None) => (None, None),
    };
    let all: serde_json::Map<String, serde_json::Value> = row
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    println!(
        "{}",
        json!({"figure": figure, "value": own, "unit": unit, "must": must, "holds": holds, "peer": best.map(|best| best.0), "all": all})
    );
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
