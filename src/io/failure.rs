//! What can go wrong inside this module, before the file's name is attached.

use crate::files::Unreadable;
use crate::{Error, Mismatch};
use std::io;
use std::path::Path;

/// An [`Error`] that does not know its file yet.
#[derive(Debug)]
pub(super) enum Failure {
    /// The operating system or the decompressor failed.
    Io(io::Error),
    /// The content is not what is expected.
    Unusable(Mismatch),
    /// The voxels do not fit.
    Memory { need_bytes: u64, limit_bytes: u64 },
}

impl Failure {
    pub(super) fn unusable(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Unusable(Mismatch::new(found, expected))
    }

    /// Names the file. Streams that end early or do not decompress are a fault of the
    /// content, everything else of reading it.
    pub(super) fn at(self, path: &Path) -> Error {
        let what = match self {
            Self::Memory { need_bytes, limit_bytes } => {
                return Error::Memory { what: "the image".to_owned(), need_bytes, limit_bytes };
            }
            Self::Unusable(what) => what,
            Self::Io(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Mismatch::new("a file that ends too early", "a complete file")
                }
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                    Mismatch::new("damaged compressed data", "an intact file")
                }
                _ => return Error::Read { path: path.to_path_buf(), source: e },
            },
        };
        Error::input(path, what)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<Unreadable> for Failure {
    fn from(e: Unreadable) -> Self {
        match e {
            Unreadable::Io(e) => Self::Io(e),
            other => Self::Unusable(other.instead_of("an image file")),
        }
    }
}
