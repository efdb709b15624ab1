//! Segments CT volumes with distilled nnU-Net models, and with any nnU-Net that people have.
//!
//! ```no_run
//! use fastnnunet::{Scan, Segmenter};
//!
//! # fn main() -> fastnnunet::Result<()> {
//! let mut bone = Segmenter::open("bone")?;
//! let scan = Scan::open("ct.nii.gz")?;
//! bone.segment(&scan)?.save("bone.nii.gz")?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Segmenter::open_with`] takes [`Options`]: what the command line can choose, a program can. The
//! result is the file that the command writes. The library does not print, exit or read the
//! environment.
//!
//! Behind the front door the rooms lie in the order data moves:
//!
//! ```text
//! files, io -> pipeline (orient, crop, normalize, resample, tile, infer, stitch, resample back,
//!              label, postprocess) -> segmenter (models, parts, recipe, fallback) -> preview, statistics,
//!              output, cli
//! ```

pub mod cohort;
pub mod import;
pub mod infer;
pub mod io;
pub mod mesh;
pub mod nnunet;
pub mod output;
pub mod pipeline;
pub mod preview;
pub mod registry;
pub mod segmenter;
pub mod selftest;
pub mod statistics;
pub mod volume;

mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "dicom")]
pub use fastnnunet_dicom as dicom;
pub use fastnnunet_model as model;
pub use fastnnunet_model::Mismatch;
pub use files::{Access, Existing, discard_unfinished};
pub use io::Scan;
pub use output::OutputType;
pub use segmenter::{
    Case, LabelsBack, Names, Options, Postprocessing, PreviousStage, Quality, Segmentation,
    Segmenter, Source,
};

/// Compiles the README's example.
#[cfg(all(doctest, feature = "reference"))]
#[doc = include_str!("../README.md")]
struct Readme;
