//! Stages 6 to 8 on the device: the image goes up once, tiles are cut, mirrored, run, weighted
//! and summed there, and only the finished map comes back.
//!
//! The arithmetic and its order are those of `pipeline::stitch`: `f32` sums, tiles in the
//! order of the tiling, passes in the order of [`mirror_passes`](crate::pipeline::mirror_passes).

use super::memory::{self, Footprint};
use crate::infer::burn::{Generated, failed, guard};
use crate::infer::{Device, Engine};
use crate::model::Model;
use crate::pipeline::tile::Tiling;
use crate::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, s};
use std::ops::Range;

/// Most tiles in one batch: beyond this a GPU gains nothing and the first answer comes later.
const MOST_TILES: usize = 8;

/// Device memory assumed where the device does not say how much it has.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
const ASSUMED_BYTES: u64 = 4 << 30;

/// A network on a device, ready to run over whole images.
pub struct Sweep {
    network: Generated,
    name: String,
    channels: usize,
    footprint: Footprint,
    budget_bytes: u64,
}

/// What a sweep runs over.
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    /// The normalized image on the network's grid, `[c, z, y, x]`.
    pub image: ArrayView4<'a, f32>,
    /// Where the tiles lie.
    pub tiling: &'a Tiling,
    /// Weight of each voxel of a tile.
    pub weights: ArrayView3<'a, f32>,
    /// Axes flipped in each pass over a tile.
    pub passes: &'a [Vec<usize>],
}

impl Sweep {
    /// Loads an embedded model onto `device` for tiles of `patch` voxels (`[z, y, x]`).
    ///
    /// `memory_limit_bytes` caps the device memory a sweep plans with; without it the memory
    /// free now is the limit. [`Device::Reference`] runs the same code on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device is not part of this build, is missing or fails, and for
    /// [`Device::Auto`] and [`Device::Cpu`], which have engines of their own;
    /// [`Error::Memory`] if one tile does not fit the limit.
    pub fn open(
        model: &Model,
        patch: [usize; 3],
        device: Device,
        memory_limit_bytes: Option<u64>,
    ) -> Result<Self> {
        let facts = model.facts()?;
        let footprint = memory::footprint(&model.onnx()?, facts.input_channels, patch)?;
        let limit = memory_limit_bytes.unwrap_or(u64::MAX);
        footprint.batch(0, limit, 1)?;
        let (on, name, free) = match device {
            Device::Reference => (burn::tensor::Device::flex(), device.to_string(), u64::MAX),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let (on, name) = super::cuda(index, footprint.weights + footprint.patch)?;
                let free = crate::kernels::cuda::gpu(index).map_or(ASSUMED_BYTES, |g| g.free_bytes);
                (on, name, free.saturating_sub(super::RESERVED_BYTES))
            }
            #[cfg(feature = "vulkan")]
            Device::Vulkan(index) => {
                let (on, name) = super::vulkan(index)?;
                (on, name, ASSUMED_BYTES)
            }
            _ => {
                return Err(Error::Device {
                    device: device.to_string(),
                    reason: "this build runs no whole images there".to_owned(),
                });
            }
        };
        Ok(Self {
            network: Generated::load(model, on, name.clone())?,
            name,
            channels: facts.output_channels,
            footprint,
            budget_bytes: limit.min(free),
        })
    }

    /// Tiles that run at once over an image of `shape` voxels (`[z, y, x]`).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if image, sums and one tile do not fit the device.
    pub fn batch(&self, shape: [usize; 3], patch: [usize; 3]) -> Result<usize> {
        let voxels = (0..3).fold(1_u64, |n, k| n.saturating_mul(shape[k].max(patch[k]) as u64));
        let maps = (self.network.input_channels() + self.channels + 1) as u64;
        let fixed = voxels.saturating_mul(maps * size_of::<f32>() as u64);
        self.footprint.batch(fixed, self.budget_bytes, MOST_TILES)
    }

    /// Runs every tile and returns the weighted mean of their logits, `[c, z, y, x]`.
    ///
    /// `advance` is called after each pass over a tile has been queued; an error it returns
    /// ends the run.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] before any work if the image does not fit, [`Error::Device`] if the
    /// device fails, and what `advance` returns.
    ///
    /// # Panics
    ///
    /// If the shapes in `tiles` do not fit each other or the network.
    pub fn run(
        &self,
        tiles: Tiles<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Array4<f32>> {
        let Tiles { image, tiling, weights, passes } = tiles;
        let (channels, z, y, x) = image.dim();
        assert_eq!([z, y, x], tiling.image, "the image and its tiling");
        assert_eq!(channels, self.network.input_channels(), "channels of the image");
        assert_eq!(weights.shape(), tiling.patch, "weights of a tile");
        assert!(!passes.is_empty(), "no pass over the tiles");
        let batch = self.batch(tiling.image, tiling.patch)?;
        let padded = Padded::new(tiling);

        let mut sums = guard(&self.name, || Sums::new(self, tiles, &padded))?;
        for origins in tiling.origins.chunks(batch) {
            let boxes: Vec<_> = origins.iter().map(|&origin| padded.of_tile(origin)).collect();
            let input = guard(&self.name, || sums.cut(&boxes))?;
            let mut mean: Option<Tensor<5>> = None;
            for axes in passes {
                let answer = guard(&self.name, || {
                    flip(self.network.forward(flip(input.clone(), axes)), axes)
                })?;
                mean = Some(match mean {
                    Some(sum) => guard(&self.name, || sum + answer)?,
                    None => answer,
                });
                for _ in origins {
                    advance()?;
                }
            }
            if let Some(mean) = mean {
                guard(&self.name, || sums.add(mean, passes.len(), &boxes))?;
            }
        }
        let data = guard(&self.name, || sums.finish().try_into_data())?;
        let data = data.map_err(|error| failed(&self.name, &error.to_string()))?;
        let [pz, py, px] = padded.shape;
        let map = data.as_slice::<f32>().ok();
        let map = map.and_then(|m| ArrayView4::from_shape((self.channels, pz, py, px), m).ok());
        let map = map.ok_or_else(|| failed(&self.name, "logits of another shape"))?;
        let [lz, ly, lx] = padded.low;
        Ok(map.slice(s![.., lz..lz + z, ly..ly + y, lx..lx + x]).to_owned())
    }

    /// The device as the user knows it.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.name
    }
}

/// The image grown to hold every tile, so that cutting is plain slicing.
struct Padded {
    low: [usize; 3],
    shape: [usize; 3],
    patch: [usize; 3],
}

impl Padded {
    fn new(tiling: &Tiling) -> Self {
        let reach = |k: usize| {
            let first = tiling.origins.iter().map(|origin| origin[k]).min().unwrap_or(0);
            let low = (-first).max(0) as usize;
            (low, tiling.image[k].max(tiling.patch[k]))
        };
        let axes: [(usize, usize); 3] = std::array::from_fn(reach);
        Self { low: axes.map(|a| a.0), shape: axes.map(|a| a.1), patch: tiling.patch }
    }

    fn of_tile(&self, origin: [isize; 3]) -> [Range<usize>; 3] {
        std::array::from_fn(|k| {
            let start = (origin[k] + self.low[k] as isize) as usize;
            start..start + self.patch[k]
        })
    }
}

/// The image, the running sums and their total weights, on the device.
struct Sums {
    image: Tensor<5>,
    weights: Tensor<5>,
    weighted: Tensor<5>,
    totals: Tensor<5>,
}

impl Sums {
    fn new(sweep: &Sweep, tiles: Tiles<'_>, padded: &Padded) -> Self {
        let device = sweep.network.on();
        let [pz, py, px] = padded.shape;
        let [lz, ly, lx] = padded.low;
        let (channels, z, y, x) = tiles.image.dim();
        let mut grown = Array4::zeros([channels, pz, py, px]);
        grown.slice_mut(s![.., lz..lz + z, ly..ly + y, lx..lx + x]).assign(&tiles.image);
        let image = TensorData::new(grown.into_raw_vec_and_offset().0, [1, channels, pz, py, px]);

        // The totals depend on no voxel, so the CPU adds them up.
        let mut totals = Array3::<f32>::zeros(padded.shape);
        for &origin in &tiles.tiling.origins {
            let [rz, ry, rx] = padded.of_tile(origin);
            let mut part = totals.slice_mut(s![rz, ry, rx]);
            part += &tiles.weights;
        }
        let totals = TensorData::new(totals.into_raw_vec_and_offset().0, [1, 1, pz, py, px]);
        let [tz, ty, tx] = padded.patch;
        let weights: Vec<f32> = tiles.weights.iter().copied().collect();
        let weights = TensorData::new(weights, [1, 1, tz, ty, tx]);
        Self {
            image: Tensor::from_data(image, device),
            weights: Tensor::from_data(weights, device),
            weighted: Tensor::zeros([1, sweep.channels, pz, py, px], device),
            totals: Tensor::from_data(totals, device),
        }
    }

    /// Tiles as one batch, `[n, c, z, y, x]`.
    fn cut(&self, boxes: &[[Range<usize>; 3]]) -> Tensor<5> {
        let channels = self.image.dims()[1];
        let tile = |[z, y, x]: &[Range<usize>; 3]| {
            self.image.clone().slice([0..1, 0..channels, z.clone(), y.clone(), x.clone()])
        };
        Tensor::cat(boxes.iter().map(tile).collect(), 0)
    }

    /// Adds a batch of answers, each the sum of `passes`.
    fn add(&mut self, answers: Tensor<5>, passes: usize, boxes: &[[Range<usize>; 3]]) {
        let [_, channels, z, y, x] = answers.dims();
        let answers = if passes > 1 { answers / passes as f32 } else { answers };
        for (k, [bz, by, bx]) in boxes.iter().enumerate() {
            let answer = answers.clone().slice([k..k + 1, 0..channels, 0..z, 0..y, 0..x]);
            let place = [0..1, 0..channels, bz.clone(), by.clone(), bx.clone()];
            let part = self.weighted.clone().slice(place.clone()) + answer * self.weights.clone();
            // Taken out first: with one owner left the device writes in place.
            let device = part.device();
            let sums = std::mem::replace(&mut self.weighted, Tensor::zeros([1; 5], &device));
            self.weighted = sums.slice_assign(place, part);
        }
    }

    fn finish(self) -> Tensor<5> {
        self.weighted / self.totals
    }
}

/// A batch with the spatial `axes` reversed.
fn flip(batch: Tensor<5>, axes: &[usize]) -> Tensor<5> {
    match *axes {
        [] => batch,
        [a] => batch.flip([a + 2]),
        [a, b] => batch.flip([a + 2, b + 2]),
        [a, b, c, ..] => batch.flip([a + 2, b + 2, c + 2]),
    }
}
