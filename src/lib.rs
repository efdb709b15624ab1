//! Segments CT volumes with distilled nnU-Net models.
//!
//! ```text
//! io::load -> pipeline::segment (orient, crop, normalize, resample, tile, infer, stitch,
//!             resample back, label) -> pipeline::postprocess -> io::save_labels
//! ```
//!
//! A model comes from [`model::registry`], an engine for it from [`infer::open`]; the README
//! has a whole example. The library does not print, exit or read the environment.

pub mod infer;
pub mod io;
pub mod model;
pub mod nnunet;
pub mod pipeline;
pub mod preview;
pub mod segmenter;
pub mod selftest;
pub mod volume;

mod error;

pub use error::{Error, Result};

/// Compiles the README's example.
#[cfg(all(doctest, feature = "reference"))]
#[doc = include_str!("../README.md")]
struct Readme;
