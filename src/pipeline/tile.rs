//! Stage 6: where tiles lie, what is in them, and how much each of their voxels counts.

use half::f16;
use ndarray::{Array3, ArrayView4, ArrayViewMut4, s};

/// Tiles over one image, in the order they run.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    /// Voxels per tile, `[z, y, x]`.
    pub patch: [usize; 3],
    /// Voxels of the image the tiles cover.
    pub image: [usize; 3],
    /// First voxel of each tile. Negative where the image is smaller than the patch: the
    /// tile then sticks out on both sides, the odd voxel on the high side.
    pub origins: Vec<[isize; 3]>,
}

impl Tiling {
    /// Lays tiles of `patch` voxels over an `image`, `step` patches apart.
    ///
    /// Every slice gets its own tiles where the patch is one voxel thick, which is how a
    /// two-dimensional network runs: the first axis is outermost.
    ///
    /// # Panics
    ///
    /// If an axis is empty or `step` is not in `(0, 1]`.
    #[must_use]
    pub fn new(image: [usize; 3], patch: [usize; 3], step: f64) -> Self {
        let starts: [Vec<isize>; 3] = std::array::from_fn(|k| {
            let padded = image[k].max(patch[k]);
            let pad_low = ((padded - image[k]) / 2) as isize;
            if patch[k] == 1 {
                return (0..image[k] as isize).collect();
            }
            tile_starts(padded, patch[k], step).iter().map(|&s| s as isize - pad_low).collect()
        });
        let [zs, ys, xs] = &starts;
        let mut origins = Vec::with_capacity(zs.len() * ys.len() * xs.len());
        for &z in zs {
            for &y in ys {
                origins.extend(xs.iter().map(|&x| [z, y, x]));
            }
        }
        Self { patch, image, origins }
    }

    /// The overlap of a tile with the image: per axis the first voxel in the tile, the
    /// first in the image, and the count.
    #[must_use]
    pub fn overlap(&self, origin: [isize; 3]) -> [(usize, usize, usize); 3] {
        std::array::from_fn(|k| {
            let in_tile = (-origin[k]).max(0) as usize;
            let in_image = origin[k].max(0) as usize;
            let count = (self.patch[k] - in_tile).min(self.image[k] - in_image);
            (in_tile, in_image, count)
        })
    }

    /// Copies a tile out of `image` (`[c, z, y, x]`) into `tile`; voxels outside are 0,
    /// which after normalization is the mean and not air, as in the reference.
    ///
    /// # Panics
    ///
    /// If the shapes are not those of the tiling.
    pub fn cut(
        &self,
        image: ArrayView4<'_, f32>,
        origin: [isize; 3],
        mut tile: ArrayViewMut4<'_, f32>,
    ) {
        let [(tz, iz, nz), (ty, iy, ny), (tx, ix, nx)] = self.overlap(origin);
        if [nz, ny, nx] != self.patch {
            tile.fill(0.0);
        }
        tile.slice_mut(s![.., tz..tz + nz, ty..ty + ny, tx..tx + nx]).assign(&image.slice(s![
            ..,
            iz..iz + nz,
            iy..iy + ny,
            ix..ix + nx
        ]));
    }
}

/// Number of tiles along one axis.
fn starts(image: usize, tile: usize, step: f64) -> usize {
    (((image - tile) as f64) / (tile as f64 * step)).ceil() as usize + 1
}

/// Number of tiles that [`Tiling::new`] lays, without laying them.
pub(super) fn tile_count(image: [usize; 3], patch: [usize; 3], step: f64) -> u64 {
    let along = |k: usize| match patch[k] {
        1 => image[k],
        edge => starts(image[k].max(edge), edge, step),
    };
    (0..3).fold(1, |count: u64, k| count.saturating_mul(along(k) as u64))
}

/// First voxel of each tile along one axis of at least `tile` voxels.
///
/// Tiles are at most `step` of their edge apart and spread evenly, rounded half to even.
///
/// # Panics
///
/// If `image` is smaller than `tile`, `tile` is 0, or `step` is not in `(0, 1]`.
#[must_use]
pub fn tile_starts(image: usize, tile: usize, step: f64) -> Vec<usize> {
    assert!(tile > 0 && image >= tile, "an image of {image} voxels holds no tile of {tile}");
    assert!(step > 0.0 && step <= 1.0, "step {step} is not in (0, 1]");
    let count = starts(image, tile, step);
    if count == 1 {
        return vec![0];
    }
    let spacing = (image - tile) as f64 / (count - 1) as f64;
    (0..count).map(|i| (spacing * i as f64).round_ties_even() as usize).collect()
}

/// Weight of each voxel of a tile: a Gaussian about the tile's centre voxel (edge / 2),
/// sigma an eighth of the edge, scaled to a maximum of 10.
///
/// The reference stores its map in fp16, where the far corners underflow; they take the
/// smallest value left. The result here is that map exactly, widened to `f32`.
#[must_use]
pub fn gaussian(patch: [usize; 3]) -> Array3<f32> {
    let [wz, wy, wx] = patch.map(axis_weights);
    let peak = wz[patch[0] / 2] * wy[patch[1] / 2] * wx[patch[2] / 2];
    let mut map = Array3::from_shape_fn(patch, |(z, y, x)| {
        f16::from_f64(wz[z] * wy[y] * wx[x] / (peak / PEAK_WEIGHT)).to_f32()
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
    let bell = |d: usize| (-0.5 / (sigma_voxels * sigma_voxels) * (d * d) as f64).exp();
    let total: f64 = (1..=radius).map(bell).sum::<f64>() * 2.0 + bell(0);
    (0..edge)
        .map(|i| i.abs_diff(edge / 2))
        .map(|d| if d <= radius { bell(d) / total } else { 0.0 })
        .collect()
}

/// Every tile weight 1: the reference without Gaussian weighting.
#[must_use]
pub fn uniform(patch: [usize; 3]) -> Array3<f32> {
    Array3::ones(patch)
}
