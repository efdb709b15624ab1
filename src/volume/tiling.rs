//! Where tiles lie over an image, and what is in them: stage 6, for the pipeline and for devices that
//! run a whole image.

use ndarray::{ArrayView4, ArrayViewMut4, s};

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
pub(crate) fn tile_count(image: [usize; 3], patch: [usize; 3], step: f64) -> u64 {
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
