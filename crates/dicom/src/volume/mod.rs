//! A series as a volume.

mod load;
mod regrid;
mod source;
mod voxels;

pub(crate) use load::same_pixels;
pub use load::{LoadOptions, Loaded};
#[cfg(test)]
pub(crate) use source::COPIED;
pub(crate) use source::Planes;
pub use source::{Source, SourceSlice};
pub use voxels::Voxels;

/// Maps a voxel index `(x, y, z)` to millimetres `(right, anterior, superior)`.
///
/// NIfTI's convention: rows are world axes, the fourth column is the position of voxel
/// `(0, 0, 0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

/// A voxel grid in patient space.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Voxels per axis, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Millimetres per voxel, `[z, y, x]`.
    pub spacing: [f64; 3],
    /// Voxel index to patient millimetres.
    pub affine: Affine,
}

impl Grid {
    /// Volume of one voxel in cubic millimetres.
    #[must_use]
    pub fn voxel_mm3(&self) -> f64 {
        self.spacing.iter().product()
    }
}
