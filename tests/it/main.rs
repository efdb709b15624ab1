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
mod nifti_files;
mod resample;
mod stages;
mod tricky;
