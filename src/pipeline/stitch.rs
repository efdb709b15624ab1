//! Stage 8: overlapping tiles become one map of logits.

use super::tile::Tiling;
use ndarray::{Array3, Array4, Axis, Zip, parallel::prelude::*, s};

/// The weighted sum of tiles.
///
/// Sums are `f32` where the reference keeps fp16; tiles are added in the order given, each
/// voxel by one thread, so the result does not depend on the number of threads.
#[derive(Debug)]
pub struct Stitcher {
    tiling: Tiling,
    weights: Array3<f32>,
    sums: Array4<f32>,
    totals: Array3<f32>,
}

impl Stitcher {
    /// Starts with nothing for `channels` output channels.
    #[must_use]
    pub fn new(tiling: Tiling, weights: Array3<f32>, channels: usize) -> Self {
        let [z, y, x] = tiling.image;
        Self {
            weights,
            sums: Array4::zeros([channels, z, y, x]),
            totals: Array3::zeros([z, y, x]),
            tiling,
        }
    }

    /// Adds one tile's output (`[c, z, y, x]`, of the patch's size).
    pub fn add(&mut self, origin: [isize; 3], tile: &Array4<f32>) {
        let [(tz, iz, nz), (ty, iy, ny), (tx, ix, nx)] = self.tiling.overlap(origin);
        let weights = self.weights.slice(s![tz..tz + nz, ty..ty + ny, tx..tx + nx]);
        let mut sums = self.sums.slice_mut(s![.., iz..iz + nz, iy..iy + ny, ix..ix + nx]);
        let tile = tile.slice(s![.., tz..tz + nz, ty..ty + ny, tx..tx + nx]);
        Zip::from(sums.outer_iter_mut()).and(tile.outer_iter()).par_for_each(|mut sums, tile| {
            Zip::from(&mut sums)
                .and(&tile)
                .and(&weights)
                .for_each(|sum, &value, &weight| *sum += value * weight);
        });
        self.totals
            .slice_mut(s![iz..iz + nz, iy..iy + ny, ix..ix + nx])
            .zip_mut_with(&weights, |total, &weight| *total += weight);
    }

    /// The weighted mean of all tiles added, `[c, z, y, x]`.
    #[must_use]
    pub fn finish(mut self) -> Array4<f32> {
        let totals = self.totals;
        self.sums.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut channel| {
            channel.zip_mut_with(&totals, |sum, &total| *sum /= total);
        });
        self.sums
    }
}
