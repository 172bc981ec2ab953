//! Unpredictable numbers for the ids of questions, from the kernel.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

const SOURCE: &str = "/dev/urandom";

#[derive(Debug)]
pub struct Random {
    source: File,
    buffer: [u8; 1024],
    used: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("reading random numbers from {}: {source}", path.display())]
pub struct RandomError {
    path: PathBuf,
    source: std::io::Error,
}

fn failed(source: std::io::Error) -> RandomError {
    RandomError {
        path: SOURCE.into(),
        source,
    }
}

impl Random {
    pub fn new() -> Result<Self, RandomError> {
        let source = File::open(SOURCE).map_err(failed)?;
        Ok(Self {
            source,
            buffer: [0; 1024],
            used: 1024,
        })
    }

    pub fn number(&mut self) -> Result<u16, RandomError> {
        if let Some(number) = self.next() {
            return Ok(number);
        }
        self.source.read_exact(&mut self.buffer).map_err(failed)?;
        self.used = 0;
        // The buffer is full now.
        Ok(self.next().unwrap_or_default())
    }

    fn next(&mut self) -> Option<u16> {
        let bytes = self.buffer.get(self.used..)?.first_chunk::<2>()?;
        self.used += 2;
        Some(u16::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_repeat_like_a_counter() {
        let mut random = Random::new().unwrap();
        let numbers: std::collections::BTreeSet<u16> =
            (0..2000).map(|_| random.number().unwrap()).collect();
        assert!(numbers.len() > 1800);
    }
}
