//! Stage 6: where tiles lie (see [`Tiling`]), and how much each of their voxels counts.

use half::f16;
use ndarray::Array3;

pub use crate::volume::{Tiling, tile_starts};

/// Weight of each voxel of a tile: a Gaussian about the tile's centre voxel (edge / 2),
/// sigma an eighth of the edge, scaled to a maximum of 10.
///
/// The reference stores its map in fp16, where the far corners underflow; they take the
/// smallest value left. The result here is that map exactly, widened to `f32`.
#[must_use]
pub fn gaussian(patch: [usize; 3]) -> Array3<f32> {
    bell(patch, |weight| f16::from_f64(weight).to_f32())
}

/// As [`gaussian`], as nnU-Net v1 stores it: in `f32`, where nothing underflows.
#[must_use]
pub fn gaussian_single(patch: [usize; 3]) -> Array3<f32> {
    bell(patch, |weight| weight as f32)
}

fn bell(patch: [usize; 3], rounded: impl Fn(f64) -> f32) -> Array3<f32> {
    let [wz, wy, wx] = patch.map(axis_weights);
    let peak = wz[patch[0] / 2] * wy[patch[1] / 2] * wx[patch[2] / 2];
    let mut map = Array3::from_shape_fn(patch, |(z, y, x)| {
        rounded(wz[z] * wy[y] * wx[x] / (peak / PEAK_WEIGHT))
    });
    let smallest = map.iter().copied().filter(|&w| w > 0.0).fold(f32::INFINITY, f32::min);
    map.mapv_inplace(|w| if w == 0.0 { smallest } else { w });
    map
}

/// nnU-Net's `value_scaling_factor`.
const PEAK_WEIGHT: f64 = 10.0;

/// `scipy.ndimage.gaussian_filter` of a unit impulse along one axis.
fn axis_weights(edge: usize) -> Vec<f64> {
    let sigma_voxels = edge as f64 / 8.0;
    let radius = (4.0 * sigma_voxels + 0.5) as usize;
    let height = |d: usize| (-0.5 / (sigma_voxels * sigma_voxels) * (d * d) as f64).exp();
    let total: f64 = (1..=radius).map(height).sum::<f64>() * 2.0 + height(0);
    (0..edge)
        .map(|i| i.abs_diff(edge / 2))
        .map(|d| if d <= radius { height(d) / total } else { 0.0 })
        .collect()
}

/// Every tile weight 1: the reference without Gaussian weighting.
#[must_use]
pub fn uniform(patch: [usize; 3]) -> Array3<f32> {
    Array3::ones(patch)
}
