//! What can go wrong, as a sentence: what was found and what was expected.

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

/// What is wrong with one file or one series, before it is known where it lies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub(crate) struct Fault {
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Fault {
    pub(crate) fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    pub(crate) fn at(self, path: impl Into<PathBuf>) -> Error {
        Error::Input { path: path.into(), found: self.found, expected: self.expected }
    }
}
