//! An error as one line.

use fastnnunet::Error;
use std::error::Error as _;
use std::io::ErrorKind;

/// The error, its causes, and what helps.
pub(crate) fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        line = format!("{line}: {inner}");
        cause = inner.source();
    }
    if let Error::Write { source, .. } = error
        && source.kind() == ErrorKind::AlreadyExists
    {
        line += "; --overwrite replaces it";
    }
    line
}
