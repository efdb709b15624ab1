//! Label maps on another grid: needed where a model refines another one's result.

use super::slices_first;
use super::taps::{Pair, nearest, nearest_pairs, pairs};
use ndarray::parallel::prelude::*;
use ndarray::{Array3, ArrayView3, Axis};

/// Resamples a label map, `[z, y, x]`, to `shape`.
///
/// Each label's indicator is interpolated linearly in `f64` and the largest wins; exact
/// ties go to the nearest voxel's label if it is among the winners, else to the smallest
/// (batchgenerators since 0.25.4). Along the `separate` axis, from
/// [`separate_axis`](super::separate_axis), the nearest slice is taken. A source of the
/// same shape is returned as it is.
///
/// # Panics
///
/// If `separate` is not below 3.
#[must_use]
pub fn resample_labels<T>(
    source: ArrayView3<'_, T>,
    shape: [usize; 3],
    separate: Option<usize>,
) -> Array3<T>
where
    T: Copy + Default + Ord + Send + Sync,
{
    if source.dim() == shape.into() {
        return source.as_standard_layout().into_owned();
    }
    let mut target = Array3::from_elem(shape, T::default());
    if source.is_empty() || target.is_empty() {
        return target;
    }
    let axes = slices_first(separate.unwrap_or(0));
    let source = source.permuted_axes(axes);
    let (old, new) = (source.dim(), target.view().permuted_axes(axes).dim());
    let along_z = if separate.is_some() { nearest_pairs } else { pairs };
    let [z, y, x] = [along_z(old.0, new.0), pairs(old.1, new.1), pairs(old.2, new.2)];
    let near = [nearest(old.0, new.0), nearest(old.1, new.1), nearest(old.2, new.2)];
    let mut slices = target.view_mut().permuted_axes(axes);
    slices.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(k, mut slice)| {
        for ((i, j), value) in slice.indexed_iter_mut() {
            let tie = source[[near[0][k], near[1][i], near[2][j]]];
            *value = vote(source, [z[k], y[i], x[j]], tie);
        }
    });
    target
}

/// The label with the largest share of the eight voxels around a point.
///
/// Weights are multiplied and added in the order SciPy does, so that ties are the same.
fn vote<T: Copy + Ord>(source: ArrayView3<'_, T>, [z, y, x]: [Pair; 3], nearest: T) -> T {
    let mut shares: [Option<(T, f64)>; 8] = [None; 8];
    for (k, wz) in ends(z) {
        for (i, wy) in ends(y) {
            for (j, wx) in ends(x) {
                let (label, weight) = (source[[k, i, j]], wz * wy * wx);
                for share in &mut shares {
                    match share {
                        Some((other, sum)) if *other == label => *sum += weight,
                        Some(_) => continue,
                        None => *share = Some((label, weight)),
                    }
                    break;
                }
            }
        }
    }
    let shares = || shares.iter().flatten().copied();
    let most = shares().fold(0.0, |most, (_, sum)| f64::max(most, sum));
    let winners = || shares().filter(|&(_, sum)| sum >= most).map(|(label, _)| label);
    if winners().any(|label| label == nearest) {
        nearest
    } else {
        winners().min().unwrap_or(nearest)
    }
}

/// Both neighbors and their weights. SciPy takes the last weight as what is left of one,
/// which is not always `t` to the last bit.
fn ends(pair: Pair) -> [(usize, f64); 2] {
    let first = 1.0 - pair.t;
    [(pair.low, first), (pair.high, 1.0 - first)]
}
