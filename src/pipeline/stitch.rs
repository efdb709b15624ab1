//! Stage 8: overlapping tiles become one map, plane after plane.
//!
//! Tiles come with their first axis outermost, so planes that no later tile reaches are
//! finished early: they are read, and forgotten, while the rest is still being computed.

use super::tile::Tiling;
use crate::Result;
use crate::infer::TakeSlice;
use ndarray::{
    Array3, Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut3, ArrayViewMut4, Axis, Zip,
    parallel::prelude::*, s,
};
use std::sync::{Mutex, PoisonError};

/// Per axis the first voxel in the tile, the first in the image, and the count.
type Overlap = [(usize, usize, usize); 3];

/// Adds weighted values to the sums of their channels, `[c, a, b]` both.
fn add(
    mut sums: ArrayViewMut3<'_, f32>,
    values: ArrayView3<'_, f32>,
    weights: ArrayView2<'_, f32>,
) {
    for (mut sums, values) in sums.outer_iter_mut().zip(values.outer_iter()) {
        Zip::from(&mut sums)
            .and(&values)
            .and(&weights)
            .for_each(|sum, &value, &weight| *sum += value * weight);
    }
}

/// The weighted sum of tiles in a window of planes that moves along the first axis.
///
/// Sums are `f32` where the reference keeps fp16; tiles are added in the order given, each
/// voxel by one thread, so the result does not depend on the number of threads.
#[derive(Debug)]
pub struct Stitcher {
    tiling: Tiling,
    weights: Array3<f32>,
    sums: Array4<f32>,
    totals: Array3<f32>,
    /// Plane of the image that the window begins with.
    first: usize,
    /// Planes of the image below this one are means; from here on they are sums.
    finished: usize,
}

/// Finished planes that wait for more, at most, before they are read. Slabs of several planes
/// keep all threads busy.
const SLAB: usize = 8;

impl Stitcher {
    /// Starts with nothing for `channels` output channels. `weights` has the patch's shape.
    #[must_use]
    pub fn new(tiling: Tiling, weights: Array3<f32>, channels: usize) -> Self {
        let [_, y, x] = tiling.image;
        let planes = Self::planes(&tiling);
        Self {
            weights,
            sums: Array4::zeros([channels, planes, y, x]),
            totals: Array3::zeros([planes, y, x]),
            first: 0,
            finished: 0,
            tiling,
        }
    }

    /// Planes held at a time: a patch, a slab, and one that interpolation still reads.
    fn planes(tiling: &Tiling) -> usize {
        tiling.image[0].min(tiling.patch[0] + SLAB + 1)
    }

    /// Numbers held for tiles of `patch` voxels over an `image`, with `channels` channels.
    #[must_use]
    pub fn floats(image: [usize; 3], patch: [usize; 3], channels: usize) -> u64 {
        let planes = Self::planes(&Tiling { patch, image, origins: Vec::new() });
        (planes * image[1] * image[2]) as u64 * (channels as u64 + 1)
    }

    /// Adds one tile's output (`[c, z, y, x]`, of the patch's size).
    ///
    /// # Panics
    ///
    /// If the tile reaches planes that are finished or do not fit the window: see
    /// [`is_due`](Self::is_due).
    pub fn add(&mut self, origin: [isize; 3], tile: ArrayView4<'_, f32>) {
        let overlap = self.tiling.overlap(origin);
        let [(tz, _, nz), (ty, _, ny), (tx, _, nx)] = overlap;
        let (mut sums, mut totals, weights) = self.under(overlap);
        totals += &weights;
        let tile = tile.slice(s![.., tz..tz + nz, ty..ty + ny, tx..tx + nx]);
        // Planes, not channels: there may be fewer channels than threads.
        sums.axis_iter_mut(Axis(1))
            .into_par_iter()
            .zip(tile.axis_iter(Axis(1)).into_par_iter())
            .zip(weights.axis_iter(Axis(0)).into_par_iter())
            .for_each(|((sums, tile), weights)| add(sums, tile, weights));
    }

    /// The sums under a tile with their total weights, and the weights of its voxels.
    fn under(
        &mut self,
        overlap: Overlap,
    ) -> (ArrayViewMut4<'_, f32>, ArrayViewMut3<'_, f32>, ArrayView3<'_, f32>) {
        let [(tz, iz, nz), (ty, iy, ny), (tx, ix, nx)] = overlap;
        assert!(iz >= self.finished, "tiles come with the first axis outermost");
        let wz = iz - self.first;
        let weights = self.weights.slice(s![tz..tz + nz, ty..ty + ny, tx..tx + nx]);
        let (z, y, x) = (wz..wz + nz, iy..iy + ny, ix..ix + nx);
        let sums = self.sums.slice_mut(s![.., z.clone(), y.clone(), x.clone()]);
        (sums, self.totals.slice_mut(s![z, y, x]), weights)
    }

    /// Adds one tile's output that comes in parts: `give` hands on the number of the first channel, the
    /// place along the window's `axis`, and the values there, `[c, a, b]`, each once.
    ///
    /// # Errors
    ///
    /// What `give` returns.
    ///
    /// # Panics
    ///
    /// As [`add`](Self::add).
    pub(super) fn add_parts(
        &mut self,
        origin: [isize; 3],
        axis: usize,
        give: impl FnOnce(&TakeSlice<'_>) -> Result<()>,
    ) -> Result<()> {
        let overlap = self.tiling.overlap(origin);
        let (mut sums, mut totals, weights) = self.under(overlap);
        // Nobody waits: every part is added by one thread.
        let parts: Vec<_> = sums.axis_iter_mut(Axis(axis + 1)).map(Mutex::new).collect();
        let inside: Vec<_> = (0..3).filter(|k| *k != axis).map(|k| overlap[k]).collect();
        let [(ta, _, na), (tb, _, nb)] = [inside[0], inside[1]];
        give(&|channel, place, values| {
            let Some(place) = place.checked_sub(overlap[axis].0) else { return };
            let Some(sums) = parts.get(place) else { return };
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            let weights = weights.index_axis(Axis(axis), place);
            let values = values.slice(s![.., ta..ta + na, tb..tb + nb]);
            let sums = sums.slice_mut(s![channel..channel + values.len_of(Axis(0)), .., ..]);
            add(sums, values, weights);
        })?;
        totals += &weights;
        Ok(())
    }

    /// Whether finished planes should be read before tiles are added whose first plane is
    /// `plane`.
    #[must_use]
    pub fn is_due(&self, plane: usize) -> bool {
        plane >= self.finished + SLAB
    }

    /// Turns the sums below `plane` into means: no later tile reaches them.
    pub fn finish_below(&mut self, plane: usize) {
        let planes = self.finished - self.first..plane.max(self.finished) - self.first;
        self.finished = self.first + planes.end;
        let totals = self.totals.slice(s![planes.clone(), .., ..]);
        let mut sums = self.sums.slice_mut(s![.., planes, .., ..]);
        sums.axis_iter_mut(Axis(1))
            .into_par_iter()
            .zip(totals.axis_iter(Axis(0)).into_par_iter())
            .for_each(|(mut sums, totals)| {
                for mut sums in sums.outer_iter_mut() {
                    sums.zip_mut_with(&totals, |sum, &total| *sum /= total);
                }
            });
    }

    /// The finished planes held, `[c, z, y, x]`, and which plane of the image they begin with.
    #[must_use]
    pub fn means(&self) -> (ArrayView4<'_, f32>, usize) {
        (self.sums.slice(s![.., ..self.finished - self.first, .., ..]), self.first)
    }

    /// Forgets the planes below `plane`, all of them finished.
    ///
    /// # Panics
    ///
    /// If they are not.
    pub fn forget_below(&mut self, plane: usize) {
        assert!(plane <= self.finished, "only finished planes are forgotten");
        let gone = plane.saturating_sub(self.first);
        if gone == 0 {
            return;
        }
        self.first = plane;
        let [_, y, x] = self.tiling.image;
        let area = y * x;
        let slide = |planes: &mut [f32]| {
            planes.copy_within(gone * area.., 0);
            let kept = planes.len() - gone * area;
            planes[kept..].fill(0.0);
        };
        let channels = self.sums.axis_iter_mut(Axis(0)).into_par_iter();
        channels.for_each(|mut channel| {
            let Some(planes) = channel.as_slice_mut() else { unreachable!("allocated whole") };
            slide(planes);
        });
        let Some(planes) = self.totals.as_slice_mut() else { unreachable!("allocated whole") };
        slide(planes);
    }
}
