//! Axis swaps and flips between an array as stored and in a model's orientation.

use super::{Affine, Orientation, VoxelView};
use ndarray::{ArrayView3, ArrayViewMut3, Axis};

/// Which axes to swap and flip to get from one array layout to another.
///
/// Axis `k` of the result is axis `source[k]` of the original, reversed where `flip[k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisMap {
    /// Original axis of each resulting axis, `[z, y, x]`.
    pub source: [usize; 3],
    /// Whether the resulting axis runs backwards through the original.
    pub flip: [bool; 3],
}

impl AxisMap {
    /// Leaves everything where it is.
    pub const IDENTITY: Self = Self { source: [0, 1, 2], flip: [false; 3] };

    /// Pure transposition: axis `k` of the result is axis `source[k]` of the original.
    #[must_use]
    pub fn transpose(source: [usize; 3]) -> Self {
        Self { source, flip: [false; 3] }
    }

    /// The map that applies `self` first and `next` to its result.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        Self {
            source: next.source.map(|k| self.source[k]),
            flip: std::array::from_fn(|k| self.flip[next.source[k]] ^ next.flip[k]),
        }
    }

    /// Reorders per-axis values (a shape, a spacing) of the original for the result.
    #[must_use]
    pub fn permute<T: Copy>(&self, original: [T; 3]) -> [T; 3] {
        self.source.map(|k| original[k])
    }

    /// The original seen in the resulting layout, without copying.
    #[must_use]
    pub fn view<'a, T>(&self, original: ArrayView3<'a, T>) -> ArrayView3<'a, T> {
        let mut view = original.permuted_axes(self.source);
        for (axis, &flip) in self.flip.iter().enumerate() {
            if flip {
                view.invert_axis(Axis(axis));
            }
        }
        view
    }

    /// As [`view`](Self::view), for voxels of any type.
    #[must_use]
    pub fn voxels<'a>(&self, original: VoxelView<'a>) -> VoxelView<'a> {
        match original {
            VoxelView::I16(stored, scale) => VoxelView::I16(self.view(stored), scale),
            VoxelView::F32(values) => VoxelView::F32(self.view(values)),
        }
    }

    /// As [`view`](Self::view), for writing results back into the original layout.
    #[must_use]
    pub fn view_mut<'a, T>(&self, original: ArrayViewMut3<'a, T>) -> ArrayViewMut3<'a, T> {
        let mut view = original.permuted_axes(self.source);
        for (axis, &flip) in self.flip.iter().enumerate() {
            if flip {
                view.invert_axis(Axis(axis));
            }
        }
        view
    }
}

impl AxisMap {
    /// The swaps and flips that bring an array with this `affine` closest to `orientation`.
    ///
    /// Oblique axes go to the nearest patient axis: the largest direction cosine is
    /// assigned first, then the largest among the axes left, as ITK's `DICOMOrient` does.
    #[must_use]
    pub fn to(orientation: Orientation, affine: &Affine) -> Self {
        // World axes in the order of array axes [z, y, x], and whether the array axis
        // should grow against the world axis (NIfTI's world is right, anterior, superior).
        let against = match orientation {
            Orientation::Native => return Self::IDENTITY,
            Orientation::Lps => [false, true, true],
            Orientation::Ras => [false; 3],
        };
        let nearest = nearest_world_axes(affine);
        let source: [usize; 3] = std::array::from_fn(|k| {
            let world = 2 - k;
            nearest.iter().position(|&(w, _)| w == world).unwrap_or(k)
        });
        Self { source, flip: std::array::from_fn(|k| nearest[source[k]].1 ^ against[k]) }
    }
}

/// For each array axis `[z, y, x]`: the world axis it is nearest to (0 right, 1 anterior,
/// 2 superior), each used once, and whether it runs against it.
fn nearest_world_axes(affine: &Affine) -> [(usize, bool); 3] {
    let cosines: [[f64; 3]; 3] = std::array::from_fn(|axis| {
        let step = affine.step(axis);
        let length = step.iter().map(|s| s * s).sum::<f64>().sqrt();
        // Where a step is no direction, any axis that is left will do.
        step.map(|s| s / length).map(|cosine| if cosine.is_finite() { cosine } else { 0.0 })
    });
    let mut nearest = [(usize::MAX, false); 3];
    let mut taken = [false; 3];
    for _ in 0..3 {
        let (mut best, mut size) = ((0, 0), -1.0);
        for axis in 0..3 {
            for world in 0..3 {
                let free = nearest[axis].0 == usize::MAX && !taken[world];
                if free && cosines[axis][world].abs() > size {
                    (best, size) = ((axis, world), cosines[axis][world].abs());
                }
            }
        }
        let (axis, world) = best;
        nearest[axis] = (world, cosines[axis][world] < 0.0);
        taken[world] = true;
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    fn all_maps() -> Vec<AxisMap> {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let mut maps = Vec::new();
        for source in orders {
            for bits in 0..8_u8 {
                maps.push(AxisMap { source, flip: [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0] });
            }
        }
        maps
    }

    fn numbered(shape: [usize; 3]) -> Array3<u32> {
        Array3::from_shape_vec(shape, (0..shape.iter().product::<usize>() as u32).collect())
            .expect("count matches the shape")
    }

    #[test]
    fn writing_through_the_view_restores_all_48_orientations() {
        let original = numbered([2, 3, 4]);
        for map in all_maps() {
            let seen = map.view(original.view()).to_owned();
            let mut restored = Array3::zeros([2, 3, 4]);
            map.view_mut(restored.view_mut()).assign(&seen);
            assert_eq!(restored, original, "{map:?}");
            assert_eq!(seen.shape(), map.permute([2, 3, 4]), "{map:?}");
        }
    }

    #[test]
    fn then_equals_one_view_after_the_other() {
        let original = numbered([2, 3, 4]);
        for first in all_maps() {
            let once = first.view(original.view()).to_owned();
            for second in all_maps() {
                let twice = second.view(once.view()).to_owned();
                let joined = first.then(&second);
                assert_eq!(joined.view(original.view()), twice, "{first:?} then {second:?}");
            }
        }
    }

    /// A grid whose array axes follow `map` from RAS, each axis with its own step length.
    fn affine_of(map: &AxisMap) -> Affine {
        let mut rows = [[0.0; 4]; 3];
        for axis in 0..3 {
            let world = 2 - map.source[axis];
            rows[world][2 - axis] = if map.flip[axis] { -1.5 } else { 2.5 };
        }
        Affine(rows)
    }

    #[test]
    fn axis_map_undoes_each_of_the_48_orientations() {
        let ras = numbered([2, 3, 4]);
        for stored in all_maps() {
            let file = stored.view(ras.view());
            let back = AxisMap::to(Orientation::Ras, &affine_of(&stored));
            assert_eq!(back.view(file), ras, "{stored:?}");
        }
    }

    #[test]
    fn lps_is_ras_with_x_and_y_reversed() {
        let affine = affine_of(&AxisMap::IDENTITY);
        let map = AxisMap::to(Orientation::Lps, &affine);
        assert_eq!(map, AxisMap { source: [0, 1, 2], flip: [false, true, true] });
        assert_eq!(AxisMap::to(Orientation::Native, &affine), AxisMap::IDENTITY);
    }
}
