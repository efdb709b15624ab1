//! Drives the public interface and the built program on files.

mod build_script;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cpu;
mod engines;
mod golden;
mod io;
mod labels;
mod models;
mod nifti_files;
mod preview;
mod resample;
mod stages;
