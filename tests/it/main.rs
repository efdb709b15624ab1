//! Drives the public interface and the built program on files.

mod build_script;
#[cfg(feature = "reference")]
mod cases;
#[cfg(all(feature = "cli", feature = "reference"))]
mod cli;
mod engines;
mod golden;
mod io;
mod nifti_files;
mod resample;
mod stages;
