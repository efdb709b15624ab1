//! The one error type of the public interface.

use fastnnunet_model::Mismatch;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a case could not be segmented.
///
/// `Display` states what was found and what was expected and leaves the cause to
/// [`source`](std::error::Error::source). File names appear; patient attributes never do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong: an unknown mode, an option out of range.
    #[error("{what}: found {found}, expected {expected}")]
    Usage {
        /// The option or argument.
        what: String,
        /// What was given.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// A file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system or the decoder said.
        source: std::io::Error,
    },
    /// A file was read but is not a CT volume this program can use.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// What would have been usable.
        expected: String,
    },
    /// A volume handed to the pipeline cannot be segmented.
    #[error("volume: found {found}, expected {expected}")]
    Volume {
        /// What the volume is like.
        found: String,
        /// What would have been usable.
        expected: String,
    },
    /// A model file or its configuration is missing or invalid.
    #[error("model {model}: found {found}, expected {expected}")]
    Model {
        /// Name of the model or configuration.
        model: String,
        /// What was found.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// No model of a mode is installed.
    #[error("model {model}: found no weights for mode {mode}{others}, expected {files}")]
    NotInstalled {
        /// The mode and what was chosen of it.
        mode: String,
        /// The model that would answer best.
        model: String,
        /// In parentheses, the others that could; empty for none.
        others: String,
        /// What to add.
        files: String,
        /// Released folders of weights that give it when imported; empty where files are added.
        released: Vec<String>,
    },
    /// The device asked for is not there.
    #[error("device {device} is not available: {reason}")]
    Device {
        /// Name of the device as the user knows it.
        device: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The case would need more memory than allowed.
    #[error("{what} needs {}, the limit is {}", size(*need_bytes), size(*limit_bytes))]
    Memory {
        /// What the memory is for.
        what: String,
        /// Bytes that would be allocated.
        need_bytes: u64,
        /// Bytes allowed.
        limit_bytes: u64,
    },
    /// The result could not be written; nothing was left behind.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The caller asked to stop through the progress callback.
    #[error("interrupted")]
    Interrupted,
}

/// A network that does not fit, before the model's name is known.
impl From<Mismatch> for Error {
    fn from(what: Mismatch) -> Self {
        Self::model("ONNX graph", what)
    }
}

/// A number of bytes as people read it.
fn size(bytes: u64) -> String {
    const MIB: f64 = (1 << 20) as f64;
    match bytes as f64 / MIB {
        mib if mib < 1.0 => format!("{bytes} bytes"),
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// What kind of thing went wrong: what a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong in itself.
    Usage,
    /// An image cannot be read or is not one that can be segmented.
    Input,
    /// A model or its configuration is missing or invalid.
    Model,
    /// A device is missing or failed.
    Device,
    /// More memory is needed than allowed.
    Memory,
    /// A result could not be written.
    Output,
    /// The caller asked to stop.
    Interrupted,
}

impl Error {
    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage { .. } => ErrorKind::Usage,
            Self::Read { .. } | Self::Input { .. } | Self::Volume { .. } => ErrorKind::Input,
            Self::Model { .. } | Self::NotInstalled { .. } => ErrorKind::Model,
            Self::Device { .. } => ErrorKind::Device,
            Self::Memory { .. } => ErrorKind::Memory,
            Self::Write { .. } => ErrorKind::Output,
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// A file that was read and cannot be used.
    pub(crate) fn input(path: &Path, what: Mismatch) -> Self {
        let Mismatch { found, expected } = what;
        Self::Input { path: path.to_path_buf(), found, expected }
    }

    /// A model, its configuration or one of its files that cannot be used; `place` names it.
    pub(crate) fn model(place: impl Into<String>, what: Mismatch) -> Self {
        let Mismatch { found, expected } = what;
        Self::Model { model: place.into(), found, expected }
    }

    /// As [`model`](Self::model), for a file.
    pub(crate) fn model_file(path: &Path, what: Mismatch) -> Self {
        Self::model(path.display().to_string(), what)
    }

    /// What was wrong with a model before the file it is in was known; other errors as they are.
    pub(crate) fn of_model_file(self, path: &Path) -> Self {
        match self {
            Self::Model { found, expected, .. } => {
                Self::model_file(path, Mismatch { found, expected })
            }
            other => other,
        }
    }

    /// Says where in a model something was found; other errors as they are.
    pub(crate) fn within(self, place: &str) -> Self {
        match self {
            Self::Model { model, found, expected } => {
                Self::model(model, Mismatch { found, expected }.within(place))
            }
            other => other,
        }
    }

    /// A request that is wrong in itself; `what` names the argument.
    pub(crate) fn usage(
        what: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let Mismatch { found, expected } = Mismatch::new(found, expected);
        Self::Usage { what: what.into(), found, expected }
    }

    /// A volume from a caller that cannot be segmented.
    pub(crate) fn volume(found: impl Into<String>, expected: impl Into<String>) -> Self {
        let Mismatch { found, expected } = Mismatch::new(found, expected);
        Self::Volume { found, expected }
    }
}
