//! Images where the arrays of Python have them.

use fastnnunet::volume::{Affine, Grid, Scale, VoxelView};
use numpy::PyReadonlyArray3;
use pyo3::prelude::*;

/// One image as `fastnnunet/_images.py` hands it over: an aligned array of int16 or float32, `[z, y, x]`,
/// what its numbers stand for, and its place.
#[derive(FromPyObject)]
pub(crate) struct Image<'py> {
    voxels: Stored<'py>,
    slope: f64,
    intercept: f64,
    /// Millimetres, `[z, y, x]`.
    spacing: [f64; 3],
    /// From (x, y, z, 1) to millimetres right, anterior and superior.
    affine: [[f64; 4]; 3],
}

#[derive(FromPyObject)]
enum Stored<'py> {
    I16(PyReadonlyArray3<'py, i16>),
    F32(PyReadonlyArray3<'py, f32>),
}

impl Image<'_> {
    /// The image, lent for as long as the array is held.
    pub(crate) fn lent(&self) -> (VoxelView<'_>, Grid) {
        let view = match &self.voxels {
            Stored::I16(stored) => {
                let scale = Scale { slope: self.slope, intercept: self.intercept };
                VoxelView::I16(stored.as_array(), scale)
            }
            Stored::F32(values) => VoxelView::F32(values.as_array()),
        };
        let affine = Affine(self.affine);
        (view, Grid { shape: view.shape(), spacing: self.spacing, affine })
    }
}
