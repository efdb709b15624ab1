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

/// Loads a model onto a Vulkan device, one patch at a time.
#[cfg(feature = "vulkan")]
pub(super) fn open_vulkan(
    model: &Model,
    patch: [usize; 3],
    index: usize,
) -> Result<Box<dyn Engine>> {
    let (device, name) = vulkan(index, patch)?;
    Ok(Box::new(Generated::load(model, device, name)?))
}

/// The Vulkan device of that number: discrete GPUs come first, software drivers last.
#[cfg(feature = "vulkan")]
fn vulkan(index: usize, patch: [usize; 3]) -> Result<(burn::tensor::Device, String)> {
    use burn::tensor::{Device as BurnDevice, DeviceKind, DeviceType};
    let name = Device::Vulkan(index).to_string();
    let found = guard(&name, || BurnDevice::enumerate(DeviceType::Vulkan).into_vec())?;
    let reason = match found.len() {
        0 => "no Vulkan driver offers a device here; install the GPU's driver (on Linux a \
              package such as mesa-vulkan-drivers), or use --device cpu"
            .to_owned(),
        1 => "there is one Vulkan device, vulkan:0".to_owned(),
        n => format!("there are {n} Vulkan devices, vulkan:0 to vulkan:{}", n - 1),
    };
    let Some(device) = found.into_iter().nth(index) else {
        return Err(Error::Device { device: name, reason });
    };
    if device == BurnDevice::vulkan(DeviceKind::Cpu) && too_long_for_software(patch) {
        return Err(Error::Device {
            device: name,
            reason: format!(
                "it is a software driver, and patches of {}x{}x{} voxels are too large for it; \
                 use --device cpu",
                patch[0], patch[1], patch[2]
            ),
        });
    }
    Ok((device, name))
}

/// Whether a mean over a patch takes more rounds than Mesa's software driver runs a loop: it
/// ends loops after 65535 rounds without a word, so statistics would miss the rest. One thread
/// of cubecl's reduction adds all voxels of a channel, up to four a round.
#[cfg(any(feature = "vulkan", test))]
fn too_long_for_software(patch: [usize; 3]) -> bool {
    const MOST_ROUNDS: usize = 65_535;
    let voxels = patch.iter().fold(1_usize, |n, &edge| n.saturating_mul(edge));
    let per_round = [4, 2, 1].into_iter().find(|n| voxels.is_multiple_of(*n)).unwrap_or(1);
    voxels / per_round > MOST_ROUNDS
}

#[cfg(test)]
mod tests {
    use super::too_long_for_software;

    #[test]
    fn software_drivers_get_small_patches() {
        for (patch, too_long) in [
            ([48, 48, 48], false),
            ([60, 64, 64], false),
            ([64, 64, 64], true),
            ([80, 80, 80], true),
            // Odd, so one voxel a round.
            ([43, 39, 39], false),
            ([43, 39, 41], true),
        ] {
            assert_eq!(too_long_for_software(patch), too_long, "{patch:?}");
        }
    }
}
