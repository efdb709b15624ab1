//! Stage 7 on a GPU: networks on the kernels of `crates/gpu`, for single patches and for whole
//! images. docs/gpu.md is for users.

use super::cpu::constant_bytes;
use super::stopped::{failed, guard};
use super::{Device, Engine, EngineOptions, Labeling, LinearHead, Precision, Tiles, invalid};
use crate::files::Allowance;
use crate::model::network::Network;
use crate::model::onnx::Graph;
use crate::{Error, Result};
use fastnnunet_gpu::{self as gpu, Join, Needs};
use ndarray::{Array3, Array4, ArrayView4};

/// A network on a GPU, or the networks of several folds whose logits are averaged.
///
/// It runs whole images ([`Engine::run_image`]) as long as image, sums and one tile fit the device,
/// and single patches always.
pub struct GpuEngine {
    network: gpu::Network,
    head: Option<LinearHead>,
    device: String,
    precision: Precision,
    /// Bytes of the weights on the host.
    host_bytes: u64,
}

impl GpuEngine {
    /// Puts the networks of one or several folds on the device of `options`, for patches of `patch`
    /// voxels (`[z, y, x]`, z = 1 for a two-dimensional network). `graph` is asked for each in turn.
    ///
    /// Without a limit of the device's memory, what is free now is the limit.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if a network cannot be run; [`Error::Device`] if the device is not part of this
    /// build, is missing, fails, or lacks the precision or the memory; [`Error::Memory`] if one tile
    /// does not fit a limit.
    pub fn open_folds(
        folds: usize,
        graph: &mut dyn FnMut(usize) -> Result<Graph>,
        patch: [usize; 3],
        options: &EngineOptions,
    ) -> Result<Self> {
        Self::open_within(folds, &mut |fold, _| graph(fold), patch, options)
    }

    /// As [`open_folds`](Self::open_folds); `graph` is told what is left beside the folds before.
    pub(super) fn open_within(
        folds: usize,
        graph: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
        patch: [usize; 3],
        options: &EngineOptions,
    ) -> Result<Self> {
        let device = options.device.to_string();
        let precision = options.precision.unwrap_or(Precision::F32);
        let lacking = |reason: String| Error::Device { device: device.clone(), reason };
        let multiplied = match precision {
            Precision::F32 => gpu::Precision::F32,
            Precision::F16 => gpu::Precision::F16,
            Precision::Bf16 => gpu::Precision::Bf16,
            Precision::Int8 => {
                return Err(lacking("int8 runs on the CPU only; use auto or cpu".to_owned()));
            }
        };
        let (mut networks, mut heads, mut host_bytes) = (Vec::new(), Vec::new(), 0);
        for fold in 0..folds {
            let mut network =
                Network::new(graph(fold, options.allowance().beside(host_bytes))?, patch)?;
            host_bytes += constant_bytes(&network);
            options.allowance().check("opening the network", 2 * host_bytes)?;
            heads.extend(LinearHead::late(&mut network, folds));
            networks.push(network);
        }
        if !(heads.is_empty() || heads.len() == folds) {
            return Err(invalid("folds with different last layers", "one architecture"));
        }
        let head = LinearHead::mean(&heads);
        let join = if head.is_some() { Join::Side } else { Join::Mean };
        let mut settings = gpu::Options { precision: multiplied, join, ..gpu::Options::default() };
        let needs = Needs::of(&networks, &settings).map_err(|error| told(&device, error))?;
        let need_bytes = needs.patch_bytes(1);
        // Before the device is touched: what cannot run should fail at once.
        let allowed = Allowance::new(options.gpu_memory_limit_bytes, 0);
        allowed.check("the network on the GPU", need_bytes)?;
        let reached = guard(&device, || reach(options.device))?;
        let reached = reached.map_err(|error| told(&device, error))?;
        if !reached.has(multiplied) {
            let reason = format!("it does not compute in {precision}; use another precision");
            return Err(lacking(reason));
        }
        settings.limit_bytes = match options.gpu_memory_limit_bytes {
            Some(limit) => limit.min(reached.most_bytes()),
            None => reached.bytes(),
        };
        let opened = guard(&device, || gpu::Network::open(&reached, networks, settings))?;
        let network = opened.map_err(|error| told(&device, error))?;
        Ok(Self { network, head, device, precision, host_bytes })
    }

    /// Tiles and passes that run at once over an image of `shape` voxels (`[z, y, x]`); `None` if
    /// image, sums and one tile do not fit the device.
    #[must_use]
    pub fn tiles_at_once(&self, shape: [usize; 3]) -> Option<usize> {
        self.network.tiles_at_once(shape, 0, usize::MAX)
    }
}

/// The device of that name, or what is missing.
fn reach(device: Device) -> std::result::Result<gpu::Device, gpu::Error> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => gpu::Device::cuda(index),
        #[cfg(feature = "vulkan")]
        Device::Vulkan(index) => gpu::Device::vulkan(index),
        _ => Err(gpu::Error::Missing("it is no GPU of this build".to_owned())),
    }
}

/// An error of the device as the program's own.
fn told(device: &str, error: gpu::Error) -> Error {
    match error {
        gpu::Error::Network(what) => what.into(),
        gpu::Error::Missing(reason) => Error::Device { device: device.to_owned(), reason },
        gpu::Error::Memory { what, need_bytes, limit_bytes } => {
            let (need, have) = (need_bytes.div_ceil(1 << 20), limit_bytes >> 20);
            let reason = format!(
                "{what} needs {need} MiB of it and {have} are planned with; close what else uses the \
                 GPU, or use the CPU"
            );
            Error::Device { device: device.to_owned(), reason }
        }
        other => failed(device, &other.to_string()),
    }
}

impl Engine for GpuEngine {
    fn device(&self) -> &str {
        &self.device
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn input_channels(&self) -> usize {
        self.network.inputs()
    }

    fn output_channels(&self) -> usize {
        self.network.outputs()
    }

    fn head(&self) -> Option<&LinearHead> {
        self.head.as_ref()
    }

    fn memory_bytes(&self, _: usize) -> u64 {
        // As they were read, and packed for the device.
        2 * self.host_bytes
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let (c, z, y, x) = input.dim();
        assert_eq!((c, [z, y, x]), (self.input_channels(), self.network.patch()), "a patch");
        let expected = (self.output_channels(), z, y, x);
        assert_eq!(output.dim(), expected, "an array for its results");
        let values = input.as_standard_layout();
        let (network, device) = (&mut self.network, &self.device);
        let mut run = |found: &mut [f32]| {
            let values = values.as_slice().expect("an array in standard layout");
            guard(device, || network.run(values, found))?.map_err(|error| told(device, error))
        };
        if let Some(found) = output.as_slice_mut() {
            return run(found);
        }
        let mut found = Array4::zeros(expected);
        run(found.as_slice_mut().expect("a new array"))?;
        output.assign(&found);
        Ok(())
    }

    fn image_bytes(&self, shape: [usize; 3], patch: [usize; 3]) -> Option<u64> {
        let fits = patch == self.network.patch() && self.tiles_at_once(shape).is_some();
        // A copy of the image on the way up; on the way down the map, and once more as it arrives.
        let maps = self.input_channels().max(2 * self.output_channels());
        fits.then(|| bytes_of(shape, 4 * maps))
    }

    fn label_bytes(&self, shape: [usize; 3], patch: [usize; 3], target: [usize; 3]) -> Option<u64> {
        let voxels = usize::try_from(bytes_of(target, 1)).ok().filter(|&n| n < gpu::MOST_LABELS)?;
        let fits = patch == self.network.patch()
            && self.network.tiles_at_once(shape, voxels, usize::MAX).is_some()
            && (self.head.is_none() || self.output_channels() <= gpu::MOST_FEATURES);
        // A copy of the image on the way up; on the way down labels, and once more as they arrive.
        fits.then(|| bytes_of(shape, 4 * self.input_channels()).max(bytes_of(target, 4)))
    }

    fn run_image(
        &mut self,
        tiles: Tiles<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array4<f32>>> {
        let shape = tiles.tiling.image;
        if self.tiles_at_once(shape).is_none() {
            return Ok(None);
        }
        let [z, y, x] = shape;
        let channels = self.output_channels();
        let map = self.means(tiles, 0, advance, |_, means| means.read())?;
        let map = Array4::from_shape_vec((channels, z, y, x), map);
        map.map(Some).map_err(|error| failed(&self.device, &error.to_string()))
    }

    fn label_image(
        &mut self,
        tiles: Tiles<'_>,
        labeling: Labeling<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array3<u16>>> {
        let target = labeling.target();
        if self.label_bytes(tiles.tiling.image, tiles.tiling.patch, target).is_none() {
            return Ok(None);
        }
        let labels = self.means(tiles, target.iter().product(), advance, |head, means| {
            let weights = head.map(|head| head.weights.as_standard_layout());
            let weights = weights.as_ref().and_then(|weights| weights.as_slice());
            means.labels(&gpu::Labels {
                axes: labeling.axes,
                head: weights.zip(head.map(|head| &head.bias[..])),
                above: labeling.above,
            })
        })?;
        let labels = Array3::from_shape_vec(target, labels);
        labels.map(Some).map_err(|error| failed(&self.device, &error.to_string()))
    }
}

impl GpuEngine {
    /// What `read` makes of the means over an image's tiles, on the device; with room for labels of
    /// `target` voxels.
    fn means<T>(
        &mut self,
        tiles: Tiles<'_>,
        target: usize,
        advance: &mut dyn FnMut() -> Result<()>,
        read: impl FnOnce(Option<&LinearHead>, gpu::Means) -> std::result::Result<T, gpu::Error>,
    ) -> Result<T> {
        let Tiles { image, tiling, weights, passes } = tiles;
        assert_eq!(tiling.patch, self.network.patch(), "the patch this engine was opened for");
        let (values, bell) = (image.as_standard_layout(), weights.as_standard_layout());
        let passes: Vec<[bool; 3]> =
            passes.iter().map(|axes| std::array::from_fn(|axis| axes.contains(&axis))).collect();
        let image = gpu::Image {
            values: values.as_slice().expect("an array in standard layout"),
            shape: tiling.image,
            origins: &tiling.origins,
            bell: bell.as_slice().expect("an array in standard layout"),
            passes: &passes,
        };
        let mut stopped = Ok(());
        let mut goes_on = || {
            stopped = advance();
            stopped.is_ok()
        };
        let Self { network, head, device, .. } = self;
        let found = guard(device, || match network.means(&image, target, &mut goes_on)? {
            Some(means) => read(head.as_ref(), means).map(Some),
            None => Ok(None),
        })?;
        let found = found.map_err(|error| told(device, error))?;
        stopped?;
        found.ok_or_else(|| failed(device, "it stopped by itself"))
    }
}

/// Bytes of so many voxels with so many bytes each.
fn bytes_of(shape: [usize; 3], each: usize) -> u64 {
    shape.iter().fold(each as u64, |n, &k| n.saturating_mul(k as u64))
}
