//! The pins on a file of memory, so that a restarted enforcer knows what the kernel holds and why. One line a pin,
//! written before the kernel learns of it.
//!
//! Lives in /run: after a boot there is nothing to remember. A line that can't be read is passed over: at worst an
//! agent has to ask for its name again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::table::{Pinned, Table};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    principal: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    addresses: Vec<IpAddr>,
    /// 0: it is gone.
    until: u64,
}

/// More lines than this beyond the pins that live, and the file is written anew.
const SLACK: usize = 20_000;

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct JournalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError {
        doing,
        path,
        source,
    }
}

impl Journal {
    /// Opens the file and puts into the table what it holds.
    pub fn open(path: &Path, table: &mut Table) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let file = options
            .open(path)
            .map_err(failed("opening the journal of pins", path))?;
        let mut lines = 0;
        let mut read = BufReader::new(&file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = read
                .read_until(b'\n', &mut text)
                .map_err(failed("reading the journal of pins", path))?;
            if length == 0 {
                break;
            }
            lines += 1;
            match serde_json::from_slice::<Line<'_>>(&text) {
                Ok(Line {
                    principal,
                    name,
                    addresses,
                    until: 0,
                }) => addresses
                    .iter()
                    .for_each(|address| table.forget(&principal, &name, *address)),
                Ok(line) => {
                    table
                        .pin(&line.principal, &line.name, &line.addresses, line.until)
                        .ok();
                }
                Err(_) => {}
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            lines,
        })
    }

    /// Notes a pin. What is not noted must not be pinned.
    pub fn note(
        &mut self,
        principal: &str,
        name: &str,
        addresses: &[IpAddr],
        until: u64,
    ) -> Result<(), JournalError> {
        let line = Line {
            principal: principal.into(),
            name: name.into(),
            addresses: addresses.to_vec(),
            until,
        };
        let doing = "writing the journal of pins";
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| failed(doing, &self.path)(io::Error::other(error)))?;
        text.push(b'\n');
        self.file
            .write_all(&text)
            .map_err(failed(doing, &self.path))?;
        self.lines += 1;
        Ok(())
    }

    /// Notes that these are pinned no longer.
    pub fn forget(
        &mut self,
        principal: &str,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<(), JournalError> {
        self.note(principal, name, addresses, 0)
    }

    /// Writes the file anew once it holds much more than what lives.
    pub fn compact(&mut self, table: &Table) -> Result<(), JournalError> {
        if self.lines <= 2 * table.len() + SLACK {
            return Ok(());
        }
        self.rewrite(table)
    }

    pub fn rewrite(&mut self, table: &Table) -> Result<(), JournalError> {
        let aside = self.path.with_extension("new");
        let doing = "writing the journal of pins";
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let file = options.open(&aside).map_err(failed(doing, &aside))?;
        let mut out = BufWriter::new(file);
        let mut lines = 0;
        for Pinned {
            principal,
            address,
            name,
            until,
            leaving: _,
        } in table.iter()
        {
            let line = Line {
                principal: (&*principal).into(),
                name: (&*name).into(),
                addresses: vec![address],
                until,
            };
            serde_json::to_writer(&mut out, &line)
                .map_err(io::Error::other)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(failed(doing, &aside))?;
            lines += 1;
        }
        out.flush().map_err(failed(doing, &aside))?;
        drop(out);
        fs::rename(&aside, &self.path).map_err(failed("replacing", &self.path))?;
        self.file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(failed("opening the journal of pins", &self.path))?;
        self.lines = lines;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::table::Limits;

    fn table() -> Table {
        Table::new(Limits {
            per_principal: 100,
            total: 1000,
        })
    }

    fn all(table: &Table) -> Vec<String> {
        let mut all: Vec<String> = table
            .iter()
            .map(|pin| {
                format!(
                    "{} {} {} {}",
                    pin.principal, pin.name, pin.address, pin.until
                )
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn what_was_noted_is_read_again_and_a_torn_line_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pins.journal");
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let mut journal = Journal::open(&path, &mut table()).unwrap();
        journal.note("a", "one.test", &addresses, 50).unwrap();
        fs::write(
            &path,
            [
                fs::read(&path).unwrap(),
                b"{\"principal\":\"b\",\"na".to_vec(),
            ]
            .concat(),
        )
        .unwrap();
        let mut read = table();
        Journal::open(&path, &mut read).unwrap();
        assert_eq!(
            all(&read),
            ["a one.test 192.0.2.1 50", "a one.test 2001:db8::1 50"]
        );
    }

    #[test]
    fn what_was_forgotten_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pins.journal");
        let addresses = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let mut journal = Journal::open(&path, &mut table()).unwrap();
        journal.note("a", "one.test", &addresses, 50).unwrap();
        journal.note("a", "two.test", &addresses[..1], 60).unwrap();
        journal.forget("a", "one.test", &addresses[..1]).unwrap();
        let mut read = table();
        Journal::open(&path, &mut read).unwrap();
        assert_eq!(
            all(&read),
            ["a one.test 192.0.2.2 50", "a two.test 192.0.2.1 60"]
        );
    }

    #[test]
    fn rewriting_keeps_what_lives_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pins.journal");
        let mut live = table();
        let mut journal = Journal::open(&path, &mut live).unwrap();
        let address = ["192.0.2.1".parse().unwrap()];
        for until in 0..100 {
            journal.note("a", "one.test", &address, until).unwrap();
            live.pin("a", "one.test", &address, until).unwrap();
        }
        journal.rewrite(&live).unwrap();
        journal.note("b", "two.test", &address, 7).unwrap();
        let mut read = table();
        let journal = Journal::open(&path, &mut read).unwrap();
        assert_eq!(journal.lines, 2);
        assert_eq!(
            all(&read),
            ["a one.test 192.0.2.1 99", "b two.test 192.0.2.1 7"]
        );
    }
}
