//! The arithmetic of the network on CPUs, one folder per operation and one file per instruction set.
//!
//! This crate holds the unsafe code, and it knows nothing of models, images or files. Every entry
//! function is safe: it checks lengths once and dispatches on an [`Isa`], which proves that the CPU
//! has the instructions.
#![allow(unsafe_code)]

pub mod buffer;
pub mod conv;
pub mod isa;
pub mod layout;
pub mod row;

pub use isa::Isa;
pub use layout::Layout;
