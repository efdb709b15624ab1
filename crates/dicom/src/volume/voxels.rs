//! Values in the number type that slices store them in.

use ndarray::{Array2, Array3, Axis};
use rayon::prelude::*;

/// The values of a volume, `[z, y, x]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Stored integers; a value is `stored * slope + intercept`, computed in `f64` and then rounded
    /// to `f32`.
    I16 {
        /// What is stored.
        stored: Array3<i16>,
        /// Factor of all slices.
        slope: f64,
        /// Added after it.
        intercept: f64,
    },
    /// Hounsfield units, where slices differ in their factors, are resampled or need more bits.
    F32(Array3<f32>),
}

impl Voxels {
    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::I16 { stored, .. } => stored.dim().into(),
            Self::F32(values) => values.dim().into(),
        }
    }

    /// Hounsfield units of a slice.
    ///
    /// # Panics
    ///
    /// If there is no such slice.
    #[must_use]
    pub fn slice(&self, number: usize) -> Array2<f32> {
        match self {
            Self::I16 { stored, slope, intercept } => {
                let value = |stored: i16| (f64::from(stored) * slope + intercept) as f32;
                stored.index_axis(Axis(0), number).mapv(value)
            }
            Self::F32(values) => values.index_axis(Axis(0), number).to_owned(),
        }
    }

    /// Hounsfield units of all voxels.
    #[must_use]
    pub fn to_f32(&self) -> Array3<f32> {
        let mut values = Array3::zeros(self.shape());
        values
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .enumerate()
            .for_each(|(number, mut slice)| slice.assign(&self.slice(number)));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr3;

    #[test]
    fn values_are_scaled_in_f64() {
        let stored = arr3(&[[[3_i16, -7]], [[i16::MAX, 0]]]);
        let expected = stored.mapv(|s| (f64::from(s) * 0.1 - 1024.0) as f32);
        let voxels = Voxels::I16 { stored, slope: 0.1, intercept: -1024.0 };
        assert_eq!(voxels.to_f32(), expected);
        assert_eq!(voxels.slice(1), expected.index_axis(Axis(0), 1));
        assert_eq!(voxels.shape(), [2, 1, 2]);
        assert_eq!(Voxels::F32(expected.clone()).to_f32(), expected);
    }
}
