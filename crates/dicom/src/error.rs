//! What can go wrong, as a sentence: what was found and what was expected.

use fastnnunet_model::Mismatch;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a series could not be read or an object not be made.
///
/// `Display` leaves the cause to [`source`](std::error::Error::source). File names appear where the
/// caller gave them; what a data set says about a patient never does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong: no such series, several where one is needed.
    #[error("{what}: found {found}, expected {expected}")]
    Usage {
        /// The option or argument.
        what: String,
        /// What was given.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// A file or folder could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// What was read is not a series of images this crate can make a volume of.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Input {
        /// The file, or the path that was scanned.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What would have been usable.
        expected: String,
    },
    /// The volume would need more memory than allowed.
    #[error("{what} needs {need_bytes} bytes, the limit is {limit_bytes}")]
    Memory {
        /// What the memory is for.
        what: &'static str,
        /// Bytes that would be allocated.
        need_bytes: u64,
        /// Bytes allowed.
        limit_bytes: u64,
    },
}

impl Error {
    /// What is wrong with a file or a series, once it is known where it lies.
    pub(crate) fn input(path: impl Into<PathBuf>, what: Mismatch) -> Self {
        let Mismatch { found, expected } = what;
        Self::Input { path: path.into(), found, expected }
    }

    /// What is wrong with a request.
    pub(crate) fn usage(
        what: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Usage { what: what.into(), found: found.into(), expected: expected.into() }
    }
}
