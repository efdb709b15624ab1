//! Segments CT volumes with distilled nnU-Net models.

pub mod infer;
pub mod io;
pub mod model;
pub mod pipeline;
pub mod volume;

#[doc(hidden)]
pub mod kernels;

mod error;

pub use error::{Error, Result};
