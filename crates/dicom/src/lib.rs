//! CT series in; segmentations, structure sets, reports and pictures out.
//!
//! [`scan`] lists the series below a path, each with a [`Verdict`]; [`Series::load`] makes a volume
//! of one: Hounsfield units, where they lie, and what objects about it refer to ([`Source`]).
//!
//! What is read is bounded before it is believed: no file makes this crate panic or hold more than
//! its [`Limits`] say, and what a file says about a patient appears in no message.
#![forbid(unsafe_code)]

mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod pixels;
mod read;
mod series;
mod uid;
mod volume;
pub mod write;

pub use error::{Error, Result};
pub use limits::Limits;
pub use series::{Catalog, ScanOptions, Series, Study, Texts, Verdict, holds_dicom, scan};
pub use volume::{Affine, Grid, LoadOptions, Loaded, Source, SourceSlice, Voxels};
