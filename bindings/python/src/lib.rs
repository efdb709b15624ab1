//! The Rust part of the Python package `fastnnunet`: arrays and options come in, labels go out.
//!
//! What a Python user sees is written in Python (`python/fastnnunet`); this module is as small as it
//! can be. Images are read where their arrays are, the interpreter is free while a case runs, and a
//! signal such as Ctrl-C stops it.

#![forbid(unsafe_code)]

mod errors;
mod images;
mod options;
mod run;
mod segmenter;

use pyo3::prelude::*;

/// The native part of fastnnunet.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<segmenter::Segmenter>()?;
    module.add_class::<segmenter::Segmentation>()?;
    Ok(())
}
