//! The result: one label per voxel.

use ndarray::Array3;

/// Labels in the smallest unsigned type that holds them, `[z, y, x]` as in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelMap {
    /// Labels up to 255.
    U8(Array3<u8>),
    /// Labels up to 65535.
    U16(Array3<u16>),
}

impl LabelMap {
    /// Voxels per axis, `(z, y, x)`.
    #[must_use]
    pub fn dim(&self) -> (usize, usize, usize) {
        match self {
            Self::U8(labels) => labels.dim(),
            Self::U16(labels) => labels.dim(),
        }
    }

    /// Bytes of the array.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::U8(labels) => labels.len() as u64,
            Self::U16(labels) => labels.len() as u64 * size_of::<u16>() as u64,
        }
    }

    /// Number of voxels of each label, indexed by label; background first.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        fn count<T: Copy + Into<usize>>(labels: &Array3<T>, classes: usize) -> Vec<u64> {
            let mut counts = vec![0; classes];
            labels.iter().for_each(|&label| counts[label.into()] += 1);
            counts
        }
        match self {
            Self::U8(labels) => count(labels, 1 << 8),
            Self::U16(labels) => count(labels, 1 << 16),
        }
    }
}
