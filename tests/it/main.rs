//! Drives the public interface and the built program on files.

mod golden;
mod resample;
mod stages;
