//! Drives the public interface and the built program on files.

mod build_script;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cortical;
mod cpu;
mod engines;
mod golden;
mod io;
mod nifti_files;
mod postprocess;
mod resample;
mod stages;
