//! Voxel values in the number type they are stored in.

use ndarray::{Array2, Array3, ArrayView3, ArrayViewMut3, Axis, Zip};
use std::ops::Range;

/// From stored numbers to values: `stored * slope + intercept`, computed in `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Factor.
    pub slope: f64,
    /// Added after it.
    pub intercept: f64,
}

impl Scale {
    /// Stored numbers are values.
    pub const NONE: Self = Self { slope: 1.0, intercept: 0.0 };
}

/// The values of one image, `[z, y, x]`, in Hounsfield units for a CT.
///
/// Integers of 8 and 16 bits, which is what scanners write, take two bytes per voxel; everything
/// else is `f32`. Values are read as `f32` either way: see [`value`](VoxelView::at).
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// 16-bit integers and what they stand for.
    I16(Array3<i16>, Scale),
    /// Values.
    F32(Array3<f32>),
}

/// A [`Voxels`] seen in another order of axes, flipped or in part.
#[derive(Clone, Copy, Debug)]
pub enum VoxelView<'a> {
    /// 16-bit integers and what they stand for.
    I16(ArrayView3<'a, i16>, Scale),
    /// Values.
    F32(ArrayView3<'a, f32>),
}

impl Voxels {
    /// The values as they lie.
    #[must_use]
    pub fn view(&self) -> VoxelView<'_> {
        match self {
            Self::I16(stored, scale) => VoxelView::I16(stored.view(), *scale),
            Self::F32(values) => VoxelView::F32(values.view()),
        }
    }

    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.view().shape()
    }

    /// Bytes of the array.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.view().bytes()
    }

    /// The values as an array of their own.
    #[must_use]
    pub fn to_f32(&self) -> Array3<f32> {
        self.view().to_f32()
    }
}

impl From<Array3<f32>> for Voxels {
    fn from(values: Array3<f32>) -> Self {
        Self::F32(values)
    }
}

impl From<Array3<i16>> for Voxels {
    fn from(values: Array3<i16>) -> Self {
        Self::I16(values, Scale::NONE)
    }
}

impl<'a> From<ArrayView3<'a, f32>> for VoxelView<'a> {
    fn from(values: ArrayView3<'a, f32>) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<ArrayView3<'a, i16>> for VoxelView<'a> {
    fn from(values: ArrayView3<'a, i16>) -> Self {
        Self::I16(values, Scale::NONE)
    }
}

/// One image of a case: lent, in whatever order it lies, or handed over and freed once it is used.
#[derive(Clone, Debug)]
pub enum Image<'a> {
    /// It stays where it is.
    Lent(VoxelView<'a>),
    /// It is the case's own.
    Own(Voxels),
}

impl Image<'_> {
    /// The values as they lie.
    #[must_use]
    pub fn view(&self) -> VoxelView<'_> {
        match self {
            Self::Lent(VoxelView::I16(stored, scale)) => VoxelView::I16(stored.reborrow(), *scale),
            Self::Lent(VoxelView::F32(values)) => VoxelView::F32(values.reborrow()),
            Self::Own(voxels) => voxels.view(),
        }
    }

    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.view().shape()
    }

    /// Bytes of the values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.view().bytes()
    }
}

impl<'a> From<&'a Voxels> for Image<'a> {
    fn from(voxels: &'a Voxels) -> Self {
        Self::Lent(voxels.view())
    }
}

impl<'a> From<VoxelView<'a>> for Image<'a> {
    fn from(view: VoxelView<'a>) -> Self {
        Self::Lent(view)
    }
}

impl From<Voxels> for Image<'_> {
    fn from(voxels: Voxels) -> Self {
        Self::Own(voxels)
    }
}

/// A number voxels are stored in.
pub(crate) trait Stored: Copy + Send + Sync {
    /// What it stands for.
    fn value(self, scale: Scale) -> f32;

    /// The same before it is rounded to 32 bits.
    fn exact(self, scale: Scale) -> f64;
}

impl Stored for i16 {
    fn value(self, scale: Scale) -> f32 {
        self.exact(scale) as f32
    }

    fn exact(self, scale: Scale) -> f64 {
        f64::from(self) * scale.slope + scale.intercept
    }
}

impl Stored for f32 {
    fn value(self, _: Scale) -> f32 {
        self
    }

    fn exact(self, _: Scale) -> f64 {
        self.into()
    }
}

/// Runs `$body` with `$stored`, the array of either type, and `$scale`.
macro_rules! with_stored {
    ($view:expr, |$stored:ident, $scale:ident| $body:expr) => {
        match $view {
            $crate::volume::VoxelView::I16($stored, $scale) => $body,
            $crate::volume::VoxelView::F32($stored) => {
                let $scale = $crate::volume::Scale::NONE;
                $body
            }
        }
    };
}
pub(crate) use with_stored;

impl VoxelView<'_> {
    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        with_stored!(*self, |stored, _scale| stored.dim().into())
    }

    /// Bytes of the values, without what lies between them in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::I16(stored, _) => (stored.len() * size_of::<i16>()) as u64,
            Self::F32(values) => (values.len() * size_of::<f32>()) as u64,
        }
    }

    /// How many values are not finite.
    pub(crate) fn not_finite(&self) -> usize {
        let ends = [i16::MIN, i16::MAX];
        match *self {
            Self::I16(_, scale) if ends.iter().all(|end| end.value(scale).is_finite()) => 0,
            _ => with_stored!(*self, |stored, scale| {
                let count =
                    |n: usize, &v: &_| n + usize::from(!Stored::value(v, scale).is_finite());
                Zip::from(stored).par_fold(|| 0, count, |a, b| a + b)
            }),
        }
    }

    /// The value of a voxel.
    ///
    /// # Panics
    ///
    /// If there is no such voxel.
    #[must_use]
    pub fn at(&self, voxel: [usize; 3]) -> f32 {
        with_stored!(*self, |stored, scale| stored[voxel].value(scale))
    }

    /// The part inside `bounds`.
    #[must_use]
    pub fn cropped(self, bounds: &[Range<usize>; 3]) -> Self {
        match self {
            Self::I16(stored, scale) => Self::I16(cropped(stored, bounds), scale),
            Self::F32(values) => Self::F32(cropped(values, bounds)),
        }
    }

    /// The values of one slice across axis 0.
    ///
    /// # Panics
    ///
    /// If there is no such slice.
    #[must_use]
    pub fn slice(&self, z: usize) -> Array2<f32> {
        with_stored!(*self, |stored, scale| {
            stored.index_axis(Axis(0), z).mapv(|stored| stored.value(scale))
        })
    }

    /// The values as a contiguous array of their own.
    #[must_use]
    pub fn to_f32(&self) -> Array3<f32> {
        let [z, y, x] = self.shape();
        let mut values = Array3::zeros((z, y, x));
        self.write_to(values.view_mut(), |value| value);
        values
    }

    /// Writes `map` of every value to `target`.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub(crate) fn write_to(&self, target: ArrayViewMut3<'_, f32>, map: impl Fn(f32) -> f32 + Sync) {
        let target = Zip::from(target);
        match *self {
            Self::I16(stored, scale) => {
                target.and(stored).par_for_each(|to, &from| *to = map(from.value(scale)));
            }
            Self::F32(values) => target.and(values).par_for_each(|to, &from| *to = map(from)),
        }
    }
}

fn cropped<'a, T>(mut view: ArrayView3<'a, T>, bounds: &[Range<usize>; 3]) -> ArrayView3<'a, T> {
    for (axis, range) in bounds.iter().enumerate() {
        view.slice_axis_inplace(Axis(axis), range.clone().into());
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr3;

    #[test]
    fn values_are_scaled_in_f64() {
        let scale = Scale { slope: 0.1, intercept: -1024.0 };
        let stored = Voxels::I16(arr3(&[[[3, -7, i16::MAX]]]), scale);
        let expected = [3, -7, i16::MAX].map(|s| (f64::from(s) * 0.1 - 1024.0) as f32);
        assert_eq!(stored.to_f32(), arr3(&[[expected]]));
        assert_eq!(stored.view().at([0, 0, 1]), expected[1]);
        let part = stored.view().cropped(&[0..1, 0..1, 1..3]);
        assert_eq!(part.to_f32(), arr3(&[[[expected[1], expected[2]]]]));
    }
}
