//! The GPU engine: a network as a plan of kernels, for CUDA and Vulkan.
//!
//! A checked network enters ([`fastnnunet_model::network`]); `Network` runs patches and whole images
//! on a `Device`. Which kernels run on how many cubes, what each buffer holds and all bytes are known
//! before the device is touched.
//!
//! Without one of the features `cuda` and `vulkan` the crate is empty, and costs nothing to build.
#![cfg(any(feature = "cuda", feature = "vulkan"))]

#[cfg(any(test, feature = "bench"))]
pub mod bench;
mod choose;
mod conv;
mod device;
#[cfg(feature = "cuda")]
mod driver;
#[allow(unsafe_code, reason = "launches of kernels")]
mod image;
mod kernels;
mod needs;
mod network;
mod plan;
#[cfg(feature = "cuda")]
mod probe;
mod queue;
mod run;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub use device::check_cuda;
pub use device::{Device, keep_kernels_in, kernel_counts};
pub use image::{Image, Labels, MOST_FEATURES, MOST_LABELS, Means};
pub use needs::Needs;
pub use network::{Error, Join, Network, Options};
pub use plan::Precision;
