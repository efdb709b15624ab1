//! Drives the public interface and the built program on files.

mod cpu;
mod golden;
mod stages;
