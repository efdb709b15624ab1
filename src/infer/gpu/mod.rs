//! Stage 7 on a GPU: the generated networks on burn's CUDA and Vulkan backends.
//!
//! `probe` says why CUDA cannot run before burn would panic, `memory` how many tiles fit, and
//! [`Sweep`] keeps everything between the resampled image and the finished logits on the
//! device. docs/gpu.md is for users.

#[cfg(any(feature = "cuda", test))]
mod probe;

mod memory;
#[cfg(feature = "reference")]
mod sweep;

pub use memory::{Footprint, footprint};
#[cfg(feature = "reference")]
pub use sweep::{Sweep, Tiles};

#[cfg(any(feature = "cuda", feature = "vulkan"))]
use super::burn::{Generated, guard};
#[cfg(any(feature = "cuda", feature = "vulkan"))]
use super::{Device, Engine};
#[cfg(any(feature = "cuda", feature = "vulkan"))]
use crate::{Error, Result, model::Model};

/// Bytes of the device left to the driver's context and to kernels.
#[cfg(feature = "cuda")]
const RESERVED_BYTES: u64 = 300 << 20;

/// Loads a model onto a CUDA device, one patch at a time.
#[cfg(feature = "cuda")]
pub(super) fn open_cuda(model: &Model, patch: [usize; 3], index: usize) -> Result<Box<dyn Engine>> {
    let footprint = memory::footprint(&model.onnx()?, model.facts()?.input_channels, patch)?;
    let (device, name) = cuda(index, footprint.weights + footprint.patch)?;
    Ok(Box::new(Generated::load(model, device, name)?))
}

/// The CUDA device of that number, once everything burn needs is there.
#[cfg(feature = "cuda")]
fn cuda(index: usize, need_bytes: u64) -> Result<(burn::tensor::Device, String)> {
    let name = Device::Cuda(index).to_string();
    let facts = probe::Facts::here(index);
    probe::check(&facts, index, need_bytes + RESERVED_BYTES)
        .map_err(|reason| Error::Device { device: name.clone(), reason })?;
    Ok((burn::tensor::Device::cuda(index), name))
}

/// Loads a model onto a Vulkan device.
#[cfg(feature = "vulkan")]
pub(super) fn open_vulkan(model: &Model, index: usize) -> Result<Box<dyn Engine>> {
    let (device, name) = vulkan(index)?;
    Ok(Box::new(Generated::load(model, device, name)?))
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
