//! Drives the public interface and the built program on files.

mod build_script;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cpu;
mod engines;
#[cfg(feature = "cli")]
mod folders;
mod golden;
mod io;
mod labels;
mod models;
mod nifti_files;
mod postprocess;
mod nnunet;
mod preview;
mod resample;
mod stages;
mod streaming;
mod tricky;
