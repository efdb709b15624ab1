//! Stages 6 to 8 on the device: the image goes up once, tiles are cut, mirrored, run, weighted
//! and summed there, and only the finished map comes back.
//!
//! The arithmetic and its order are those of `pipeline::stitch`: `f32` sums, tiles in the
//! order of the tiling, passes in the order of [`mirror_passes`](crate::pipeline::mirror_passes).

use crate::Result;
use crate::infer::burn::{Generated, failed, guard};
use crate::infer::{Engine, Tiles};
use crate::volume::Tiling;
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array3, Array4, s};
use std::ops::Range;

/// Runs every tile, `batch` at once, and returns the weighted mean of what the network gives,
/// `[c, z, y, x]`.
///
/// # Panics
///
/// If the shapes in `tiles` do not fit each other or the network.
pub(super) fn run(
    network: &Generated,
    tiles: Tiles<'_>,
    batch: usize,
    advance: &mut dyn FnMut() -> Result<()>,
) -> Result<Array4<f32>> {
    let Tiles { image, tiling, weights, passes } = tiles;
    let (channels, z, y, x) = image.dim();
    assert_eq!([z, y, x], tiling.image, "the image and its tiling");
    assert_eq!(channels, network.input_channels(), "channels of the image");
    assert_eq!(weights.shape(), tiling.patch, "weights of a tile");
    assert!(!passes.is_empty(), "no pass over the tiles");
    let padded = Padded::new(tiling);
    let name = network.device();

    let mut sums = guard(name, || Sums::new(network, tiles, &padded))?;
    for origins in tiling.origins.chunks(batch) {
        let boxes: Vec<_> = origins.iter().map(|&origin| padded.of_tile(origin)).collect();
        let input = guard(name, || sums.cut(&boxes))?;
        let mut mean: Option<Tensor<5>> = None;
        for axes in passes {
            let answer = guard(name, || flip(network.forward(flip(input.clone(), axes)), axes))?;
            mean = Some(match mean {
                Some(sum) => guard(name, || sum + answer)?,
                None => answer,
            });
            // Work is only queued so far; whoever watches or stops a run wants it done.
            let done = guard(name, || network.on().sync())?;
            done.map_err(|error| failed(name, &error.to_string()))?;
            for _ in origins {
                advance()?;
            }
        }
        if let Some(mean) = mean {
            guard(name, || sums.add(mean, passes.len(), &boxes))?;
        }
    }
    let data = guard(name, || sums.finish().try_into_data())?;
    let data = data.map_err(|error| failed(name, &error.to_string()))?;
    let values = data.try_into_vec::<f32>().map_err(|error| failed(name, &error.to_string()))?;
    let [pz, py, px] = padded.shape;
    let map = Array4::from_shape_vec((network.output_channels(), pz, py, px), values);
    let map = map.map_err(|error| failed(name, &error.to_string()))?;
    let [lz, ly, lx] = padded.low;
    Ok(map.slice_move(s![.., lz..lz + z, ly..ly + y, lx..lx + x]))
}

/// The image grown to hold every tile, so that cutting is plain slicing.
struct Padded {
    /// Voxels added below the image.
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
    fn new(network: &Generated, tiles: Tiles<'_>, padded: &Padded) -> Self {
        let device = network.on();
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
            weighted: Tensor::zeros([1, network.output_channels(), pz, py, px], device),
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
