//! How a call ended, and the border that neither an error nor a panic crosses.

use crate::text;
use fastnnunet::{Error, ErrorKind};
use std::any::Any;
use std::cell::RefCell;
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended. The numbers are the exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// As it should.
    Ok = 0,
    /// By a fault of the library. The segmenter that was at work answers no more; the process and
    /// everything else in it go on.
    Internal = 1,
    /// The request is wrong in itself.
    Usage = 2,
    /// An image cannot be read, or is not one that can be segmented.
    Input = 3,
    /// A model or its configuration is missing or invalid.
    Model = 4,
    /// A device is missing or failed.
    Device = 5,
    /// More memory is needed than allowed.
    Memory = 6,
    /// A result could not be written; nothing was left behind.
    Output = 7,
    /// The progress callback said so.
    Interrupted = 130,
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Input => Self::Input,
            ErrorKind::Model => Self::Model,
            ErrorKind::Device => Self::Device,
            ErrorKind::Memory => Self::Memory,
            ErrorKind::Output => Self::Output,
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Internal,
        }
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// What went wrong in the last call of this thread that did not return `FNN_STATUS_OK`: one sentence
/// in UTF-8, which says what was found and what was expected. Valid until the next such call of the
/// same thread; empty before the first. Names of files may be in it, attributes of patients never.
#[unsafe(no_mangle)]
pub extern "C" fn fnn_error_message() -> *const c_char {
    shielded(c"".as_ptr(), || MESSAGE.with_borrow(|message| message.as_ptr()))
}

/// The version of the library, for instance `"0.1.0"`. The shared library's name and symbols carry
/// its first two numbers: they stay the same as long as the interface does.
#[unsafe(no_mangle)]
pub extern "C" fn fnn_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// A request that is wrong in itself.
pub(crate) fn usage(what: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Usage { what: what.to_owned(), found: found.into(), expected: expected.into() }
}

/// Does the work of a call. An error becomes its status and message, and so does a panic.
pub(crate) fn guard(work: impl FnOnce() -> Result<(), Error>) -> Status {
    let (status, message) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(error)) => (error.kind().into(), sentence(&error)),
        Err(panic) => (Status::Internal, format!("internal fault: {}", spoken(&*panic))),
    };
    MESSAGE.with_borrow_mut(|kept| *kept = text::of(&message));
    status
}

/// Does the work of a call that cannot fail; what a panic gives is `otherwise`.
pub(crate) fn shielded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// The error and its causes.
fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// What a panic said.
fn spoken(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        MESSAGE.with_borrow(|message| message.to_string_lossy().into_owned())
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_sentence() {
        assert_eq!(guard(|| panic!("seven {}", 7)), Status::Internal);
        assert_eq!(message(), "internal fault: seven 7");
        assert_eq!(guard(|| std::panic::panic_any(7)), Status::Internal);
        assert_eq!(message(), "internal fault: a panic without words");
        assert_eq!(shielded(3, || panic!("no")), 3);
    }

    #[test]
    fn an_error_comes_with_its_cause_and_stays_until_the_next() {
        let source = std::io::Error::other("the cable is out\0");
        let fails = || Err(Error::Read { path: "ct.nii".into(), source });
        assert_eq!(guard(fails), Status::Input);
        assert_eq!(guard(|| Ok(())), Status::Ok);
        assert_eq!(message(), "cannot read ct.nii: the cable is out\u{fffd}");
        let other = std::thread::spawn(message).join().expect("no panic");
        assert_eq!(other, "", "of another thread");
    }
}
