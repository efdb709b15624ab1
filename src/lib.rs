//! Segments CT volumes with distilled nnU-Net models.

pub mod infer;
pub mod io;
pub mod model;
pub mod pipeline;
pub mod volume;

mod error;

pub use error::{Error, Result};
