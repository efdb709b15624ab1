//! A generated network on a GPU, for single patches and for whole images.

use super::memory::{self, Footprint};
use super::sweep;
use crate::infer::burn::Generated;
use crate::infer::{Device, Engine, EngineOptions, LinearHead, Precision, Tiles};
use crate::registry::Model;
use crate::{Error, Result};
use ndarray::{Array4, ArrayView4};

/// Most tiles in one batch: beyond this a GPU gains nothing and the first answer comes later.
const MOST_TILES: usize = 8;

/// Device memory assumed where the device does not say how much is free.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
const ASSUMED_BYTES: u64 = 4 << 30;

/// A network on a device of burn's.
///
/// As an [`Engine`] it runs whole images ([`Engine::run_image`]) as long as image, sums and one
/// tile fit the device, and single patches always.
pub struct GpuEngine {
    network: Generated,
    patch: [usize; 3],
    footprint: Footprint,
    limits: Limits,
}

/// What a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes in all.
    pub(super) budget_bytes: u64,
    /// Bytes of one array.
    pub(super) array_bytes: u64,
    /// Whether these bytes are the host's own.
    pub(super) on_host: bool,
}

impl Limits {
    /// The reason why not even one tile runs, as a sentence without a full stop.
    fn check(self, footprint: Footprint) -> Result<(), String> {
        let (need, have) = (footprint.weights.saturating_add(footprint.patch), self.budget_bytes);
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        if need > have {
            return Err(format!(
                "the network needs {} MiB and {} are planned with; see --gpu-memory-limit, or use \
                 --device cpu",
                mib(need),
                have >> 20
            ));
        }
        if footprint.array > self.array_bytes {
            return Err(format!(
                "the network needs {} MiB in one piece and the device offers {}; use --device cpu",
                mib(footprint.array),
                self.array_bytes >> 20
            ));
        }
        Ok(())
    }
}

/// The device of `options`, its name, and what it holds.
fn reach(
    options: &EngineOptions,
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))] footprint: Footprint,
) -> Result<(burn::tensor::Device, String, Limits)> {
    let name = options.device.to_string();
    match options.device {
        Device::Reference => {
            let limits = Limits { budget_bytes: u64::MAX, array_bytes: u64::MAX, on_host: true };
            Ok((burn::tensor::Device::flex(), name, limits))
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => {
            let (on, name) = super::cuda(index, footprint.weights + footprint.patch)?;
            let free = super::driver::gpu(index).map_or(ASSUMED_BYTES, |g| g.free_bytes);
            let budget_bytes = free.saturating_sub(super::RESERVED_BYTES);
            Ok((on, name, Limits { budget_bytes, array_bytes: u64::MAX, on_host: false }))
        }
        #[cfg(feature = "vulkan")]
        Device::Vulkan(index) => {
            let (on, name) = super::vulkan(index)?;
            let (array_bytes, all) = super::vulkan_limits(&on);
            // How much of it is free is not known; a caller who names a limit knows better.
            let named = options.gpu_memory_limit_bytes.is_some();
            let assumed = if named { u64::MAX } else { ASSUMED_BYTES };
            let budget_bytes = all.unwrap_or(u64::MAX).min(assumed);
            Ok((on, name, Limits { budget_bytes, array_bytes, on_host: false }))
        }
        _ => Err(Error::Device {
            device: name,
            reason: "this build runs no generated code there".to_owned(),
        }),
    }
}

impl GpuEngine {
    /// Loads an embedded model onto the device of `options` for tiles of `patch` voxels
    /// (`[z, y, x]`).
    ///
    /// Without a limit of the device's memory, what is free now is the limit.
    /// [`Device::Reference`] runs the same code on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device is not part of this build, is missing, fails or lacks the
    /// precision, and for [`Device::Auto`] and [`Device::Cpu`], which have engines of their own;
    /// [`Error::Memory`] if one tile does not fit the limit.
    pub fn open(model: &Model, patch: [usize; 3], options: &EngineOptions) -> Result<Self> {
        let facts = model.facts()?;
        let precision = crate::infer::device::of_generated_code(options.precision);
        let footprint = memory::footprint(&model.onnx()?, facts.input_channels, patch, precision)?;
        let limit = options.gpu_memory_limit_bytes.unwrap_or(u64::MAX);
        // Before the device is touched: what cannot run should fail at once.
        footprint.batch(0, limit, 1)?;
        let (on, name, mut limits) = reach(options, footprint)?;
        limits.check(footprint).map_err(|reason| Error::Device { device: name.clone(), reason })?;
        limits.budget_bytes = limits.budget_bytes.min(limit);
        let network = Generated::load(model, on, name, precision)?;
        Ok(Self { network, patch, footprint, limits })
    }

    /// Tiles that run at once over an image of `shape` voxels (`[z, y, x]`), with `passes`
    /// passes over each.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if image, sums and one tile do not fit the device.
    pub fn batch(&self, shape: [usize; 3], passes: usize) -> Result<usize> {
        let image = self.image(shape);
        let largest = image.image_bytes().max(image.sums_bytes());
        if largest > self.limits.array_bytes || !image.is_indexable() {
            return Err(Error::Memory {
                what: format!("an array over an image of {shape:?} voxels on the GPU"),
                need_bytes: largest,
                limit_bytes: self.limits.array_bytes.min(memory::MOST_ELEMENTS * 4),
            });
        }
        let per_tile = self.footprint.with_passes(image, passes);
        // A batch is one array.
        let array_bytes = self.limits.array_bytes.min(memory::MOST_ELEMENTS * 4);
        let most = array_bytes.checked_div(self.footprint.array).unwrap_or(u64::MAX);
        let most = usize::try_from(most).unwrap_or(MOST_TILES).clamp(1, MOST_TILES);
        per_tile.batch(image.fixed_bytes(), self.limits.budget_bytes, most)
    }

    fn image(&self, shape: [usize; 3]) -> memory::Image {
        memory::Image {
            shape,
            patch: self.patch,
            inputs: self.network.input_channels(),
            outputs: self.network.output_channels(),
        }
    }
}

impl Engine for GpuEngine {
    fn device(&self) -> &str {
        self.network.device()
    }

    fn precision(&self) -> Precision {
        self.network.precision()
    }

    fn input_channels(&self) -> usize {
        self.network.input_channels()
    }

    fn output_channels(&self) -> usize {
        self.network.output_channels()
    }

    fn head(&self) -> Option<&LinearHead> {
        self.network.head()
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        self.network.run(input, output)
    }

    fn image_bytes(&self, shape: [usize; 3], patch: [usize; 3], passes: usize) -> Option<u64> {
        let batch = self.batch(shape, passes).ok().filter(|_| patch == self.patch)?;
        let image = self.image(shape);
        let device = if self.limits.on_host {
            let tiles = self.footprint.with_passes(image, passes);
            image.fixed_bytes() + tiles.weights + tiles.patch.saturating_mul(batch as u64)
        } else {
            0
        };
        Some(image.host_bytes().saturating_add(device))
    }

    fn run_image(
        &mut self,
        tiles: Tiles<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array4<f32>>> {
        assert_eq!(tiles.tiling.patch, self.patch, "the patch this engine was opened for");
        let Ok(batch) = self.batch(tiles.tiling.image, tiles.passes.len()) else {
            return Ok(None);
        };
        sweep::run(&self.network, tiles, batch, advance).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_too_small_for_one_tile_says_both_numbers() {
        let footprint = Footprint { weights: 10 << 20, patch: 100 << 20, array: 50 << 20 };
        let limits = |budget: u64, array: u64| Limits {
            budget_bytes: budget << 20,
            array_bytes: array << 20,
            on_host: false,
        };
        assert_eq!(limits(110, 50).check(footprint), Ok(()));
        for (limits, numbers) in
            [(limits(109, 50), ["110", "109"]), (limits(110, 49), ["50", "49"])]
        {
            let reason = limits.check(footprint).expect_err("too small");
            assert!(numbers.iter().all(|number| reason.contains(number)), "{reason}");
            assert!(!reason.ends_with('.') && reason.contains("--device cpu"), "{reason}");
        }
    }
}
