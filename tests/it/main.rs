//! Drives the public interface and the built program on files.

mod build_script;
mod engines;
mod golden;
mod resample;
mod stages;
