//! Errors as the exceptions that `fastnnunet/_errors.py` defines.

use fastnnunet::{Error, ErrorKind};
use pyo3::prelude::*;
use std::any::Any;
use std::error::Error as _;

/// The exception for an error: its kind's, with the error and its causes as one sentence.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let name = match error.kind() {
        ErrorKind::Usage => "UsageError",
        ErrorKind::Input => "InputError",
        ErrorKind::Model => "ModelError",
        ErrorKind::Device => "DeviceError",
        ErrorKind::Memory => "MemoryLimitError",
        ErrorKind::Output => "OutputError",
        ErrorKind::Interrupted => "Interrupted",
        _ => "Error",
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    exception(py, name, &text)
}

/// The exception for a panic, which ends one segmenter and nothing else.
pub(crate) fn fault(py: Python<'_>, panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = format!("internal fault: {}", text.unwrap_or("a panic without words"));
    exception(py, "Error", &text)
}

fn exception(py: Python<'_>, name: &str, text: &str) -> PyErr {
    let class = py.import("fastnnunet._errors").and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((text,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// A request that is wrong in itself.
pub(crate) fn usage(what: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Usage { what: what.to_owned(), found: found.into(), expected: expected.into() }
}
