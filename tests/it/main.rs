//! Drives the public interface and the built program on files.

mod build_script;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cpu;
mod engines;
mod golden;
#[cfg(feature = "reference")]
mod gpu;
mod io;
mod labels;
mod models;
mod nifti_files;
mod preview;
mod resample;
mod stages;
mod streaming;
