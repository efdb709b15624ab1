//! The one error type of the public interface.

use std::path::PathBuf;

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
impl From<fastnnunet_model::Mismatch> for Error {
    fn from(e: fastnnunet_model::Mismatch) -> Self {
        Self::Model { model: "ONNX graph".into(), found: e.found, expected: e.expected }
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

impl Error {
    /// Process exit code for this error, as the command line documents it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Read { .. } | Self::Input { .. } | Self::Volume { .. } => 3,
            Self::Model { .. } => 4,
            Self::Device { .. } => 5,
            Self::Memory { .. } => 6,
            Self::Write { .. } => 7,
            Self::Interrupted => 130,
        }
    }
}
