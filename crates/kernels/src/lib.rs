//! The arithmetic of the network on CPUs: an operation per folder, an instruction set per file.
//!
//! This crate holds the unsafe code, and it knows nothing of models, images or files. Every entry
//! function is safe: it checks lengths once and calls what an [`Isa`] brings, which proves that
//! the CPU has the instructions. The folder `sets` has one file for each.
#![allow(unsafe_code)]

pub mod buffer;
pub mod conv;
pub mod isa;
pub mod layout;
pub mod row;
mod sets;

pub use isa::Isa;
pub use layout::Layout;
