//! Stage 5: an image in the model's orientation becomes an image of the model's spacing;
//! stage 9 takes the network's logits back (see [`label`](super::label), which never holds
//! them at full size).
//!
//! Results are those of nnU-Net's `resample_data_or_seg_to_shape`, that is of
//! `skimage.transform.resize` with `mode="edge"` and `anti_aliasing=False`. Interpolation
//! is separable: one pass per axis, the axis that shrinks most first.

mod labels;
mod passes;
mod spline;
mod taps;

pub use labels::resample_labels;
pub(crate) use taps::{Pair, nearest_pairs, pairs};

use crate::model::Resampling;
use crate::volume::{Stored, VoxelView, with_stored};
use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};
use passes::{Range, Scratch, along_columns};
use taps::{Order, Taps, nearest};

/// Voxels longer than this many times their width are treated slice by slice.
const ANISOTROPY: f64 = 3.0;

/// Number of voxels per axis after moving from spacing `old` to spacing `new`.
///
/// `shape` and both spacings are `[z, y, x]`; spacings are millimetres per voxel, finite
/// and positive. Each axis becomes `old / new * n`, rounded half to even. There is no lower
/// bound: half a voxel or less becomes none.
#[must_use]
pub fn resampled_shape(shape: [usize; 3], old: [f64; 3], new: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|k| (old[k] / new[k] * shape[k] as f64).round_ties_even() as usize)
}

/// The axis to treat separately, if any: slices across it are resized on their own, and
/// along it the nearest slice is taken.
///
/// Spacings are `[z, y, x]` in millimetres. Without `force` the current spacing is asked
/// first and the new one second; the first whose largest entry is more than three times
/// its smallest decides, and it must have a single coarsest axis.
#[must_use]
pub fn separate_axis(force: Option<bool>, current: [f64; 3], new: [f64; 3]) -> Option<usize> {
    let largest = |spacing: [f64; 3]| spacing.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let smallest = |spacing: [f64; 3]| spacing.into_iter().fold(f64::INFINITY, f64::min);
    let uneven = |spacing: [f64; 3]| largest(spacing) / smallest(spacing) > ANISOTROPY;
    let spacing = match force {
        Some(false) => return None,
        Some(true) => current,
        None => [current, new].into_iter().find(|&spacing| uneven(spacing))?,
    };
    // The reference compares the ratio with one, not the entries with each other.
    let coarsest = |&axis: &usize| largest(spacing) / spacing[axis] >= 1.0;
    let mut axes = (0..3).filter(|axis| coarsest(axis) && largest(spacing) / spacing[*axis] <= 1.0);
    match (axes.next(), axes.next()) {
        (Some(axis), None) => Some(axis),
        _ => None,
    }
}

/// Resamples one channel of an image, `[z, y, x]`, to `shape`, each value read through `map`.
///
/// The view may be flipped, permuted or cropped; the result is contiguous. A view whose
/// slices (across `z`, or across the separate axis) interleave in memory is copied first.
/// `separate` comes from [`separate_axis`]; `resampling` gives the spline orders. Positions
/// and weights are `f64`, values `f32`; results lie within the range of the source, or of
/// its slice if an axis is separate. A source of the same shape is returned as it is.
///
/// # Panics
///
/// If a spline order is not 0, 1 or 3, or `separate` not below 3.
#[must_use]
pub fn resample_image<'a>(
    source: impl Into<VoxelView<'a>>,
    map: impl Fn(f32) -> f32 + Copy + Sync,
    shape: [usize; 3],
    separate: Option<usize>,
    resampling: &Resampling,
) -> Array3<f32> {
    let source = source.into();
    let mut target = Array3::zeros(shape);
    if source.shape() == shape {
        source.write_to(target.view_mut(), map);
    } else if source.shape().iter().all(|&n| n > 0) && !target.is_empty() {
        with_stored!(source, |stored, scale| {
            let value = move |stored: _| map(Stored::value(stored, scale));
            resample_stored((stored, value), target.view_mut(), separate, *resampling);
        });
    }
    target
}

/// Stored numbers, `[z, y, x]`, and what turns them into the values that are interpolated.
type Source<'a, T, V> = (ArrayView3<'a, T>, V);

fn resample_stored<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
    (source, value): Source<'_, T, V>,
    target: ArrayViewMut3<'_, f32>,
    separate: Option<usize>,
    resampling: Resampling,
) {
    let order = Order::new(resampling.order);
    let axes = slices_first(separate.unwrap_or(0));
    let source = source.permuted_axes(axes);
    let copy;
    let source = if slices_interleave(source.strides()) {
        copy = source.as_standard_layout();
        copy.view()
    } else {
        source
    };
    let slices = target.permuted_axes(axes);
    if separate.is_some() {
        resample_slices((source, value), slices, order, Order::new(resampling.order_z));
    } else {
        resample_volume((source, value), slices, order);
    }
}

/// Voxels of the largest intermediate that [`resample_image`] holds beside source and target,
/// for a source whose slices do not interleave in memory.
#[must_use]
pub fn intermediate_voxels(
    source: [usize; 3],
    target: [usize; 3],
    separate: Option<usize>,
    resampling: &Resampling,
) -> u64 {
    if source == target {
        return 0;
    }
    let axes = slices_first(separate.unwrap_or(0));
    let [[depth, rows, columns], [new_depth, new_rows, new_columns]] =
        [source, target].map(|shape| axes.map(|axis| shape[axis]));
    let plane = InPlane::new(Order::Nearest, [rows, columns], [new_rows, new_columns]);
    let voxels = if separate.is_some() {
        let nearest = Order::new(resampling.order_z) == Order::Nearest;
        if nearest || depth == new_depth { 0 } else { depth * new_rows * new_columns }
    } else if depth == new_depth || plane.is_identity() {
        0
    } else if plane.prefers_depth_first(new_depth as f64 / depth as f64) {
        new_depth * rows * columns
    } else {
        depth * new_rows * new_columns
    };
    voxels as u64
}

/// Whether [`resample_image`] copies such a source first.
pub(super) fn is_copied(source: VoxelView<'_>, separate: Option<usize>) -> bool {
    let axes = slices_first(separate.unwrap_or(0));
    with_stored!(source, |stored, _scale| slices_interleave(stored.permuted_axes(axes).strides()))
}

/// The order of axes with `axis` in front.
fn slices_first(axis: usize) -> [usize; 3] {
    [[0, 1, 2], [1, 0, 2], [2, 0, 1]][axis]
}

/// Whether neighbours in memory belong to different slices.
fn slices_interleave(strides: &[isize]) -> bool {
    let [z, y, x] = [0, 1, 2].map(|axis: usize| strides[axis].unsigned_abs());
    z < y && z < x
}

/// Treats the three axes alike.
fn resample_volume<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
    (source, value): Source<'_, T, V>,
    target: ArrayViewMut3<'_, f32>,
    order: Order,
) {
    let (depth, rows, columns) = source.dim();
    let plane = InPlane::new(order, [rows, columns], [target.dim().1, target.dim().2]);
    let along_z = (depth != target.dim().0).then(|| Taps::new(order, depth, target.dim().0));
    match along_z {
        None => {
            let range = range_of(source, value);
            plane.run_all((source, value), target, |_| range);
        }
        Some(taps) if plane.is_identity() => {
            along_depth(&taps, (source, value), target, range_of(source, value));
        }
        Some(taps) if plane.prefers_depth_first(target.dim().0 as f64 / depth as f64) => {
            let range = range_of(source, value);
            let mut middle = Array3::zeros((target.dim().0, rows, columns));
            along_depth(&taps, (source, value), middle.view_mut(), Range::ALL);
            plane.run_all((middle.view(), same), target, |_| range);
        }
        Some(taps) => {
            let mut middle = Array3::zeros((depth, target.dim().1, target.dim().2));
            let range = plane.run_unlimited((source, value), middle.view_mut());
            along_depth(&taps, (middle.view(), same), target, range);
        }
    }
}

/// Resizes each slice on its own, then interpolates along axis 0.
fn resample_slices<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
    (source, value): Source<'_, T, V>,
    target: ArrayViewMut3<'_, f32>,
    order: Order,
    order_z: Order,
) {
    let (depth, rows, columns) = source.dim();
    let (new_depth, new_rows, new_columns) = target.dim();
    let plane = InPlane::new(order, [rows, columns], [new_rows, new_columns]);
    let slice_range = |slice: ArrayView2<'_, T>| Range::of(slice, value).or_all();
    if order_z == Order::Nearest || depth == new_depth {
        // Slices nobody is nearest to are never resized, repeated ones only once.
        let picks = nearest(depth, new_depth);
        let (mut jobs, mut rest) = (Vec::new(), target);
        for run in picks.chunk_by(|a, b| a == b) {
            let (copies, after) = rest.split_at(Axis(0), run.len());
            jobs.push((source.index_axis_move(Axis(0), run[0]), copies));
            rest = after;
        }
        jobs.into_par_iter().for_each_init(PlaneScratch::default, |scratch, (slice, copies)| {
            let (mut first, mut others) = copies.split_at(Axis(0), 1);
            let mut first = first.index_axis_mut(Axis(0), 0);
            plane.run((slice, value), first.view_mut(), slice_range(slice), scratch);
            others.outer_iter_mut().for_each(|mut other| other.assign(&first));
        });
    } else {
        let mut middle = Array3::zeros((depth, new_rows, new_columns));
        plane.run_all((source, value), middle.view_mut(), slice_range);
        let taps = Taps::new(order_z, depth, new_depth);
        along_depth(&taps, (middle.view(), same), target, Range::ALL);
    }
}

/// A value that is stored as it is.
fn same(value: f32) -> f32 {
    value
}

/// The range of a volume, slices read in parallel.
fn range_of<T: Stored>(source: ArrayView3<'_, T>, value: impl Fn(T) -> f32 + Copy + Sync) -> Range {
    let slices = source.axis_iter(Axis(0)).into_par_iter();
    let ranges = slices.map(|slice| Range::of(slice, value));
    ranges.reduce_with(Range::union).map_or(Range::ALL, Range::or_all)
}

/// Interpolates along axis 0; the lines of each row are independent of the other rows'.
fn along_depth<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
    taps: &Taps,
    (source, value): Source<'_, T, V>,
    mut target: ArrayViewMut3<'_, f32>,
    range: Range,
) {
    let rows = source.axis_iter(Axis(1)).into_par_iter();
    rows.zip(target.axis_iter_mut(Axis(1)).into_par_iter()).for_each_init(
        Scratch::default,
        |scratch, (from, to)| {
            along_columns(taps, (from, value), to, range, scratch);
        },
    );
}

/// How every slice is resized.
struct InPlane {
    /// Taps along `y` and `x`; none where the axis keeps its length.
    taps: [Option<Taps>; 2],
    /// New length over old.
    ratios: [f64; 2],
}

/// Buffers for one slice.
#[derive(Default)]
struct PlaneScratch {
    middle: Array2<f32>,
    lines: Scratch,
}

impl InPlane {
    fn new(order: Order, old: [usize; 2], new: [usize; 2]) -> Self {
        let taps = [0, 1].map(|k| (old[k] != new[k]).then(|| Taps::new(order, old[k], new[k])));
        Self { taps, ratios: [0, 1].map(|k| new[k] as f64 / old[k] as f64) }
    }

    fn is_identity(&self) -> bool {
        self.taps.iter().all(Option::is_none)
    }

    /// Whether a pass along the depth, which changes it by `ratio`, reads less if it comes
    /// before the plane's two passes. Depends on shapes only: strides must not change bits.
    fn prefers_depth_first(&self, ratio: f64) -> bool {
        let [y, x] = self.ratios;
        let (first, second) = if x < y { (x, y) } else { (y, x) };
        ratio * (1.0 + first) < first * (1.0 + second)
    }

    /// Resizes all slices in parallel; `range` names the limits of each.
    fn run_all<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
        &self,
        (source, value): Source<'_, T, V>,
        mut target: ArrayViewMut3<'_, f32>,
        range: impl Fn(ArrayView2<'_, T>) -> Range + Sync,
    ) {
        let slices = source.axis_iter(Axis(0)).into_par_iter();
        slices.zip(target.axis_iter_mut(Axis(0)).into_par_iter()).for_each_init(
            PlaneScratch::default,
            |scratch, (from, to)| {
                self.run((from, value), to, range(from), scratch);
            },
        );
    }

    /// As [`run_all`](Self::run_all) without limits; returns the range of the source, read
    /// while each slice is in the cache.
    fn run_unlimited<T: Stored, V: Fn(T) -> f32 + Copy + Sync>(
        &self,
        (source, value): Source<'_, T, V>,
        mut target: ArrayViewMut3<'_, f32>,
    ) -> Range {
        let slices = source.axis_iter(Axis(0)).into_par_iter();
        let ranges = slices.zip(target.axis_iter_mut(Axis(0)).into_par_iter()).map_init(
            PlaneScratch::default,
            |scratch, (from, to)| {
                let range = Range::of(from, value);
                self.run((from, value), to, Range::ALL, scratch);
                range
            },
        );
        ranges.reduce_with(Range::union).map_or(Range::ALL, Range::or_all)
    }

    /// Resizes one slice. `y` comes first unless `x` shrinks more: blocks of columns load
    /// without a transposition.
    fn run<T: Stored>(
        &self,
        (source, value): (ArrayView2<'_, T>, impl Fn(T) -> f32 + Copy),
        mut target: ArrayViewMut2<'_, f32>,
        range: Range,
        scratch: &mut PlaneScratch,
    ) {
        let PlaneScratch { middle, lines } = scratch;
        let mut ready = |rows: usize, columns: usize| {
            if middle.dim() != (rows, columns) {
                *middle = Array2::zeros((rows, columns));
            }
        };
        match &self.taps {
            [None, None] => target.zip_mut_with(&source, |to, &from| *to = value(from)),
            [Some(y), None] => along_columns(y, (source, value), target, range, lines),
            [None, Some(x)] => {
                let from = (source.reversed_axes(), value);
                along_columns(x, from, target.reversed_axes(), range, lines);
            }
            [Some(y), Some(x)] if self.ratios[1] < self.ratios[0] => {
                ready(source.nrows(), target.ncols());
                let (from, to) = (source.reversed_axes(), middle.view_mut().reversed_axes());
                along_columns(x, (from, value), to, Range::ALL, lines);
                along_columns(y, (middle.view(), same), target, range, lines);
            }
            [Some(y), Some(x)] => {
                ready(target.nrows(), source.ncols());
                along_columns(y, (source, value), middle.view_mut(), Range::ALL, lines);
                let from = (middle.view().reversed_axes(), same);
                along_columns(x, from, target.reversed_axes(), range, lines);
            }
        }
    }
}
