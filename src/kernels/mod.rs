//! The arithmetic of the network, one folder per operation and one file per instruction set.
//!
//! This is the only part of the crate with unsafe code, and it imports nothing else from the
//! crate. Every entry function is safe: it checks lengths once and dispatches on an [`Isa`],
//! which proves that the CPU has the instructions. Public for the benches only.
//! `cuda` computes nothing: it is here because asking a driver is unsafe too.
#![allow(unsafe_code)]

pub mod buffer;
pub mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod isa;
pub mod layout;
pub mod row;

pub use isa::Isa;
pub use layout::Layout;
