//! What can go wrong inside this module, before the file's name is attached.

use crate::Error;
use std::io;
use std::path::Path;

/// An [`Error`] that does not know its file yet.
#[derive(Debug)]
pub(super) enum Failure {
    /// The operating system or the decompressor failed.
    Io(io::Error),
    /// The content is not what is expected.
    Unusable { found: String, expected: String },
    /// The voxels do not fit.
    Memory { need_bytes: u64, limit_bytes: u64 },
}

impl Failure {
    pub(super) fn unusable(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Unusable { found: found.into(), expected: expected.into() }
    }

    /// Names the file. Streams that end early or do not decompress are a fault of the
    /// content, everything else of reading it.
    pub(super) fn at(self, path: &Path) -> Error {
        let path = path.to_path_buf();
        let input = |found: &str, expected: &str| (found.to_owned(), expected.to_owned());
        let (found, expected) = match self {
            Self::Memory { need_bytes, limit_bytes } => {
                return Error::Memory { what: "the image".to_owned(), need_bytes, limit_bytes };
            }
            Self::Unusable { found, expected } => (found, expected),
            Self::Io(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    input("a file that ends too early", "a complete file")
                }
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                    input("damaged gzip data", "an intact file")
                }
                _ => return Error::Read { path, source: e },
            },
        };
        Error::Input { path, found, expected }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}
