//! Checking the squashfs against the hashes that the initramfs carries.
//!
//! Size first, then every chunk, on all processors. Reads go one after the other, because a CD
//! or a stick is slow at seeking, while the other threads hash. Never mounts anything.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use clawgress_initramfs::identity::{SquashfsIdentity, chunk_digest, short_id};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// What is wrong with the squashfs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("it has {found} bytes instead of {expected}")]
    Size { expected: u64, found: u64 },
    #[error("it can't be read at byte {offset}: {error}")]
    Read { offset: u64, error: io::Error },
    #[error(
        "bytes {offset} to {end} are wrong: their digest is {}… instead of {}…",
        short_id(found),
        short_id(expected)
    )]
    Wrong {
        offset: u64,
        end: u64,
        expected: String,
        found: String,
    },
}

impl VerifyError {
    fn offset(&self) -> u64 {
        match self {
            Self::Size { .. } => 0,
            Self::Read { offset, .. } | Self::Wrong { offset, .. } => *offset,
        }
    }
}

/// Checks all of `file`; the error is that of the first bad chunk.
pub(crate) fn verify(file: &File, expected: &SquashfsIdentity) -> Result<(), VerifyError> {
    let found = file
        .metadata()
        .map_err(|error| VerifyError::Read { offset: 0, error })?
        .len();
    if found != expected.size {
        return Err(VerifyError::Size {
            expected: expected.size,
            found,
        });
    }
    // Only a hint: the kernel then reads further ahead.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    let work = Work {
        file,
        expected,
        next: Mutex::new(0),
        first_error: Mutex::new(None),
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(8);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Too little memory for a thread only makes this slower.
            let _ = std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, || work.run());
        }
        work.run();
    });
    match work
        .first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Work<'f> {
    file: &'f File,
    expected: &'f SquashfsIdentity,
    /// The next chunk to read. Held while reading.
    next: Mutex<usize>,
    first_error: Mutex<Option<VerifyError>>,
}

impl Work<'_> {
    /// Reads and hashes chunks until none is left or one is bad.
    fn run(&self) {
        let mut buffer = Vec::new();
        loop {
            let Some((offset, expected)) = self.read_next(&mut buffer) else {
                return;
            };
            let found = chunk_digest(&buffer);
            if found != *expected {
                self.fail(VerifyError::Wrong {
                    offset,
                    end: offset.saturating_add(buffer.len() as u64),
                    expected: expected.clone(),
                    found,
                });
                return;
            }
        }
    }

    fn read_next(&self, buffer: &mut Vec<u8>) -> Option<(u64, &String)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = self.expected.chunks.get(*next)?;
        let offset = self.expected.chunk.saturating_mul(*next as u64);
        let length = self
            .expected
            .size
            .saturating_sub(offset)
            .min(self.expected.chunk);
        *next = next.saturating_add(1);
        buffer.resize(usize::try_from(length).unwrap_or(0), 0);
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Some((offset, expected)),
            Err(error) => {
                *next = usize::MAX;
                drop(next);
                self.fail(VerifyError::Read { offset, error });
                None
            }
        }
    }

    /// Keeps the error nearest to the start, and lets nobody begin another chunk. Chunks before
    /// it are already being hashed, so the earliest error is always found.
    fn fail(&self, error: VerifyError) {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if first
            .as_ref()
            .is_none_or(|known| error.offset() < known.offset())
        {
            *first = Some(error);
        }
        drop(first);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = usize::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_initramfs::identity::ImageIdentity;
    use std::io::Write;

    fn sample(chunk: u64, size: usize) -> (Vec<u8>, SquashfsIdentity) {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
        let mut identity = ImageIdentity::from_bytes("1", &bytes).unwrap().squashfs;
        identity.chunk = chunk;
        identity.chunks = bytes.chunks(chunk as usize).map(chunk_digest).collect();
        (bytes, identity)
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn an_intact_image_passes() {
        for size in [1, 99, 100, 101, 12_345] {
            let (bytes, identity) = sample(100, size);
            verify(&file_of(&bytes), &identity).unwrap();
        }
    }

    #[test]
    fn the_first_bad_chunk_is_named() {
        let (mut bytes, identity) = sample(100, 12_345);
        for at in [12_300, 4_250, 9_000] {
            bytes[at] ^= 1;
        }
        for _ in 0..20 {
            let error = verify(&file_of(&bytes), &identity).unwrap_err();
            let VerifyError::Wrong { offset, end, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!((*offset, *end), (4_200, 4_300));
            assert!(error.to_string().contains(&identity.chunks[42][..16]));
        }
    }

    #[test]
    fn size_is_checked_before_any_hash() {
        let (bytes, identity) = sample(100, 500);
        let error = verify(&file_of(&bytes[..499]), &identity).unwrap_err();
        assert_eq!(error.to_string(), "it has 499 bytes instead of 500");
    }

    #[test]
    fn what_cannot_be_read_is_reported() {
        let (_, mut identity) = sample(100, 500);
        let directory = File::open("/").unwrap();
        identity.size = directory.metadata().unwrap().len();
        let error = verify(&directory, &identity).unwrap_err();
        assert!(matches!(error, VerifyError::Read { .. }), "{error}");
    }
}
