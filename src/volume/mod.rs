//! Voxel arrays and where they lie in the patient.
//!
//! Arrays are `[z, y, x]`: `z` is the slowest axis in memory and in a NIfTI file,
//! whatever anatomical direction it follows. Geometry is `f64` millimetres.

mod affine;
mod axis_map;
mod labels;
mod tiling;
mod voxels;

pub use affine::Affine;
pub use axis_map::AxisMap;
pub use fastnnunet_model::Orientation;
pub use labels::LabelMap;
pub(crate) use tiling::tile_count;
pub use tiling::{Tiling, tile_starts};
pub use voxels::{Image, Scale, VoxelView, Voxels};
pub(crate) use voxels::{Stored, with_stored};

use fastnnunet_model::Mismatch;
use ndarray::Array3;

/// Distance between voxel centres per array axis `[z, y, x]`, in millimetres.
pub type Spacing = [f64; 3];

/// A voxel grid in patient space.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Voxels per axis, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Millimetres per voxel, `[z, y, x]`.
    pub spacing: Spacing,
    /// Voxel index to patient millimetres.
    pub affine: Affine,
}

/// Smallest spacing in millimetres: an atom. What is smaller is a mistake or an attack, and what is
/// computed of it, such as how many voxels a millimetre is, would have no end.
const SMALLEST_MM: f64 = 1e-7;

impl Grid {
    /// Fails unless spacings are above 0 and all that is computed of the geometry stays finite:
    /// lengths of steps and volumes too, which are products of what a file says.
    pub(crate) fn check(&self) -> Result<(), Mismatch> {
        if let Some(tiny) = self.spacing.iter().find(|&&mm| mm > 0.0 && mm < SMALLEST_MM) {
            let found = format!("a voxel spacing of {tiny:e} mm");
            return Err(Mismatch::new(found, format!("at least {SMALLEST_MM:e} mm")));
        }
        let lengths = [0, 1, 2].map(|axis| self.affine.step(axis).iter().map(|s| s * s).sum());
        let products: [f64; 2] = [self.affine.determinant(), self.voxel_ml()];
        let stated = self.spacing.iter().chain(self.affine.0.as_flattened());
        let finite = stated.chain(&lengths).chain(&products).all(|v: &f64| v.is_finite());
        if finite && self.spacing.iter().all(|&s| s > 0.0) {
            return Ok(());
        }
        Err(Mismatch::new(
            format!("a spacing of {:?} and an affine of {:?}", self.spacing, self.affine.0),
            "spacings above 0, and steps and volumes that are finite numbers",
        ))
    }

    /// Volume of one voxel in millilitres.
    #[must_use]
    pub fn voxel_ml(&self) -> f64 {
        self.spacing.iter().product::<f64>() / 1000.0
    }
}

/// Voxel values on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume<T> {
    /// Values, `[z, y, x]`, of the grid's shape.
    pub data: Array3<T>,
    /// Where the values lie.
    pub grid: Grid,
}
