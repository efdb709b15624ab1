//! The GPU engine: a network as a plan of kernels, for CUDA and Vulkan.
//!
//! A checked network enters ([`fastnnunet_model::network`]); `Network` runs patches and whole images
//! on a `Device`. Which kernels run on how many cubes, what each buffer holds and all bytes are known
//! before the device is touched.
//!
//! Without one of the features `cuda` and `vulkan` the crate is empty, and costs nothing to build.
#![cfg(any(feature = "cuda", feature = "vulkan"))]
#![cfg_attr(
    not(any(test, feature = "bench")),
    allow(dead_code, reason = "some facts of a plan are asked for by measurements alone")
)]

#[cfg(any(test, feature = "bench"))]
pub mod bench;
mod choose;
mod conv;
mod device;
#[allow(unsafe_code, reason = "launches of kernels")]
mod image;
mod kernels;
mod network;
mod plan;
mod queue;
mod run;
#[cfg(test)]
mod tests;

pub use device::{Device, keep_kernels_in, kernel_counts};
pub use image::{Image, Labels, Means, Neighbors};
pub use network::{Error, Join, Network, Options};
pub use plan::Precision;
