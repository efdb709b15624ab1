//! Voxel index to patient millimetres.

/// Maps a voxel index `(x, y, z)` to millimetres `(right, anterior, superior)`.
///
/// This is NIfTI's convention: positive world axes point to the patient's right-to-left
/// `+x = Right`, `+y = Anterior`, `+z = Superior`. Rows are world axes; the fourth
/// column is the position of voxel `(0, 0, 0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

impl Affine {
    /// World direction and length in millimetres of one step along array axis `axis` of
    /// `[z, y, x]`.
    #[must_use]
    pub fn step(&self, axis: usize) -> [f64; 3] {
        let column = 2 - axis;
        std::array::from_fn(|row| self.0[row][column])
    }

    /// Volume of the parallelepiped that one voxel spans, signed, in cubic millimetres.
    #[must_use]
    pub fn determinant(&self) -> f64 {
        let m = &self.0;
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    }
}
