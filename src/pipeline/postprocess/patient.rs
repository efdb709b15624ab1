//! Patient directions of a label map's axes.

use crate::volume::{AxisMap, Grid, Orientation};

/// Which array axis follows which patient axis, and positions along it in millimetres.
///
/// Oblique axes count as the patient axis they are nearest to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatientAxes {
    shape: [usize; 3],
    spacing: [f64; 3],
    /// Array axis nearest to superior, anterior, right, and whether it runs against it.
    axes: [(usize, bool); 3],
}

impl PatientAxes {
    /// From the grid's affine.
    #[must_use]
    pub fn new(grid: &Grid) -> Self {
        let map = AxisMap::to(Orientation::Ras, &grid.affine);
        let axes = std::array::from_fn(|k| (map.source[k], map.flip[k]));
        Self { shape: grid.shape, spacing: grid.spacing, axes }
    }

    /// Array axis, of `[z, y, x]`, across axial, coronal and sagittal planes.
    #[must_use]
    pub fn across(&self) -> [usize; 3] {
        self.axes.map(|(axis, _)| axis)
    }

    /// Whether a voxel `[z, y, x]` lies in the first or last slice along the body.
    #[must_use]
    pub fn at_end(&self, voxel: [usize; 3]) -> bool {
        let (axis, _) = self.axes[0];
        voxel[axis] == 0 || voxel[axis] + 1 == self.shape[axis]
    }

    /// Millimetres towards `[superior, anterior, right]` from the volume's far corner, of a
    /// voxel `[z, y, x]`.
    #[must_use]
    pub fn position(&self, voxel: [usize; 3]) -> [f64; 3] {
        self.axes.map(|(axis, against)| {
            let at = if against { self.shape[axis] - 1 - voxel[axis] } else { voxel[axis] };
            at as f64 * self.spacing[axis]
        })
    }
}
