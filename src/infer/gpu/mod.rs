//! Stage 7 on a GPU: the generated networks on burn's CUDA and Vulkan backends.
//!
//! `probe` says why CUDA cannot run before burn would panic, `memory` how many tiles fit, and
//! `sweep` keeps everything between the resampled image and the finished map on the device.
//! docs/gpu.md is for users.

#[cfg(feature = "cuda")]
mod driver;
#[cfg(any(feature = "cuda", test))]
mod probe;

#[cfg(feature = "reference")]
mod engine;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub(super) mod kernels;
mod memory;
#[cfg(feature = "reference")]
mod sweep;

#[cfg(feature = "reference")]
pub use engine::GpuEngine;
pub use memory::{Footprint, Image, footprint};

#[cfg(any(feature = "cuda", feature = "vulkan"))]
use super::Device;
#[cfg(feature = "vulkan")]
use super::burn::guard;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
use crate::{Error, Result};

/// Bytes of the device left to the driver's context and to kernels.
#[cfg(feature = "cuda")]
const RESERVED_BYTES: u64 = 300 << 20;

/// The CUDA device of that number, once everything burn needs is there.
#[cfg(feature = "cuda")]
fn cuda(index: usize, need_bytes: u64) -> Result<(burn::tensor::Device, String)> {
    let name = Device::Cuda(index).to_string();
    let facts = probe::Facts::here(index);
    probe::check(&facts, index, need_bytes + RESERVED_BYTES)
        .map_err(|reason| Error::Device { device: name.clone(), reason })?;
    Ok((burn::tensor::Device::cuda(index), name))
}

/// The Vulkan device of that number: discrete GPUs come first, software drivers last.
#[cfg(feature = "vulkan")]
fn vulkan(index: usize) -> Result<(burn::tensor::Device, String)> {
    use burn::tensor::{Device as BurnDevice, DeviceType};
    let name = Device::Vulkan(index).to_string();
    let found = guard(&name, || BurnDevice::enumerate(DeviceType::Vulkan).into_vec())?;
    let reason = match found.len() {
        0 => "no Vulkan driver offers a device here; install the GPU's driver (on Linux a \
              package such as mesa-vulkan-drivers), or use --device cpu"
            .to_owned(),
        1 => "there is one Vulkan device, vulkan:0".to_owned(),
        n => format!("there are {n} Vulkan devices, vulkan:0 to vulkan:{}", n - 1),
    };
    let device = found.into_iter().nth(index);
    device.map(|device| (device, name.clone())).ok_or(Error::Device { device: name, reason })
}

/// Most bytes of one array on a Vulkan device, and the bytes it has where it says so.
#[cfg(feature = "vulkan")]
fn vulkan_limits(device: &burn::tensor::Device) -> (u64, Option<u64>) {
    /// What every Vulkan device can do.
    const GUARANTEED_ARRAY: u64 = 1 << 27;
    let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() else {
        return (GUARANTEED_ARRAY, None);
    };
    let client = device.client();
    let memory = &client.properties().memory;
    (memory.max_page_size, memory.max_memory())
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stdout, reason = "a skipped test says why")]
    fn a_vulkan_device_says_what_it_holds() {
        match vulkan(0) {
            Ok((device, _)) => {
                let (array, all) = vulkan_limits(&device);
                println!("arrays of {array} bytes, {all:?} in all");
                assert!(array >= 1 << 27 && all.is_none_or(|all| all > array / 2));
            }
            Err(error) => {
                assert!(std::env::var_os("REQUIRE_VULKAN").is_none(), "{error}");
                println!("skipped: {error}");
            }
        }
    }
}
