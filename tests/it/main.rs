//! Drives the public interface and the built program on files.

mod geometry {}
mod io;
