//! What the program says: results on standard output, an error as one line.

use super::interrupt;
use fastnnunet::model::is_shown;
use fastnnunet::{Error, ErrorKind as Kind, Result};
use std::borrow::Cow;
use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

/// What may be shown of a text that came out of a file or is a file's name: whatever moves a cursor,
/// turns the direction of writing or is invisible becomes its number. In JSON it means the same.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) {
            clean.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(clean, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(clean)
}

/// Writes lines to standard output; what stands in them is [`shown`] one by one, and a cell that has
/// lines of its own was made one before. A reader that has gone away has read what it wanted.
pub(crate) fn say(text: &str) -> Result<()> {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(shown).collect();
    let text = lines.join("\n");
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Write { path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. That nobody can read it, on a full disk for instance, is no reason
/// to end the run.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown(line));
}

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
    if let Error::NotInstalled { model, released, .. } = error {
        let _ = if released.is_empty() {
            write!(
                line,
                " that --models-dir names; `fastnnunet convert TRAINED_FOLDER -o FOLDER --name \
                 {model}` makes the two files from a folder that nnU-Net trained"
            )
        } else {
            write!(
                line,
                ", which `fastnnunet import FOLDER` takes; docs/weights.md says where it is"
            )
        };
    }
    line
}

/// The exit code that the help lists for an error.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Usage => 2,
        Kind::Input => 3,
        Kind::Model => 4,
        Kind::Device => 5,
        Kind::Memory => 6,
        Kind::Output => 7,
        Kind::Interrupted => interrupt::code(),
        _ => 1,
    }
}
