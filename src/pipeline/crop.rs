//! Stage 3: the box of voxels that are not zero, as nnU-Net's `crop_to_nonzero`.
//!
//! The reference fills holes in the nonzero mask before it takes the box. A hole is
//! enclosed by mask voxels, so filling it never moves the box and is left out here.

use crate::volume::{Stored, VoxelView, with_stored};
use ndarray::{Array3, ArrayBase, ArrayView3, Axis, Ix3, RawData, parallel::prelude::*, s};
use std::ops::Range;

/// Half-open voxel ranges per axis, `[z, y, x]`.
pub type Box3 = [Range<usize>; 3];

/// Smallest box that holds every voxel which is nonzero in any channel.
///
/// NaN counts as nonzero. The box is the whole volume if every voxel is zero.
///
/// # Panics
///
/// If `channels` is empty or their shapes differ.
#[must_use]
pub fn nonzero_box(channels: &[VoxelView<'_>]) -> Box3 {
    let shape = channels[0].shape();
    let whole = shape.map(|n| 0..n);
    let boxes = channels.iter().filter_map(|channel| {
        assert_eq!(channel.shape(), shape, "channels of one case share a shape");
        with_stored!(*channel, |stored, scale| box_where(stored, |v| v.value(scale) != 0.0))
    });
    boxes.reduce(join).unwrap_or(whole)
}

/// The part of a view, for reading or writing, inside `bounds`.
#[must_use]
pub fn crop<S: RawData>(mut view: ArrayBase<S, Ix3>, bounds: &Box3) -> ArrayBase<S, Ix3> {
    for (axis, range) in bounds.iter().enumerate() {
        view.slice_axis_inplace(Axis(axis), range.clone().into());
    }
    view
}

/// Number of voxels per axis in `bounds`.
#[must_use]
pub fn box_shape(bounds: &Box3) -> [usize; 3] {
    std::array::from_fn(|k| bounds[k].len())
}

/// The smallest box that holds both.
pub(crate) fn join(a: Box3, b: Box3) -> Box3 {
    std::array::from_fn(|k| a[k].start.min(b[k].start)..a[k].end.max(b[k].end))
}

/// `bounds` grown by `margin` voxels per axis, inside `shape`.
pub(crate) fn grown(bounds: &Box3, margin: [usize; 3], shape: [usize; 3]) -> Box3 {
    std::array::from_fn(|k| {
        bounds[k].start.saturating_sub(margin[k])
            ..bounds[k].end.saturating_add(margin[k]).min(shape[k])
    })
}

/// Smallest box that holds every voxel of which `is_in` holds; `None` if there is none.
pub(crate) fn box_where<T: Copy + Sync>(
    voxels: ArrayView3<'_, T>,
    is_in: impl Fn(T) -> bool + Sync,
) -> Option<Box3> {
    voxels
        .axis_iter(Axis(0))
        .into_par_iter()
        .enumerate()
        .filter_map(|(z, plane)| {
            let mut rows = None::<(Range<usize>, Range<usize>)>;
            for (y, row) in plane.outer_iter().enumerate() {
                let Some(first) = row.iter().position(|&v| is_in(v)) else { continue };
                let last = row.iter().rev().position(|&v| is_in(v)).map_or(0, |p| row.len() - p);
                rows = Some(match rows {
                    None => (y..y + 1, first..last),
                    Some((ys, xs)) => (ys.start..y + 1, xs.start.min(first)..xs.end.max(last)),
                });
            }
            rows.map(|(ys, xs)| [z..z + 1, ys, xs])
        })
        .reduce_with(join)
}

/// Which voxels of the box belong to the patient: those that are nonzero in any channel, and
/// holes among them.
///
/// Background reaches the box's faces through faces of voxels; what it cannot reach is a hole,
/// as in `scipy.ndimage.binary_fill_holes`.
///
/// # Panics
///
/// If `channels` is empty or their shapes differ.
#[must_use]
pub fn patient_mask(channels: &[VoxelView<'_>]) -> Array3<bool> {
    let mut mask = Array3::from_elem(channels[0].shape(), true);
    let [depth, height, width]: [usize; 3] = mask.dim().into();
    for (z, y) in (0..depth).flat_map(|z| (0..height).map(move |y| (z, y))) {
        let on_face = z == 0 || y == 0 || z + 1 == depth || y + 1 == height;
        let step = if on_face { 1 } else { (width - 1).max(1) };
        for x in (0..width).step_by(step) {
            clear_background(&mut mask, channels, [z, y, x]);
        }
    }
    mask
}

/// Clears the zeros of all channels that `from`, if it is one, reaches through faces of voxels.
fn clear_background(mask: &mut Array3<bool>, channels: &[VoxelView<'_>], from: [usize; 3]) {
    let [depth, height, width]: [usize; 3] = mask.dim().into();
    let is_open = |mask: &Array3<bool>, at: [usize; 3]| {
        mask[at] && channels.iter().all(|channel| channel.at(at) == 0.0)
    };
    if !is_open(mask, from) {
        return;
    }
    // Row pieces, not voxels, wait for their turn: there are far fewer.
    let mut waiting = vec![from];
    while let Some([z, y, x]) = waiting.pop() {
        if !is_open(mask, [z, y, x]) {
            continue;
        }
        let before = (0..x).rev().take_while(|&x| is_open(mask, [z, y, x])).count();
        let after = (x..width).take_while(|&x| is_open(mask, [z, y, x])).count();
        let piece = x - before..x + after;
        mask.slice_mut(s![z, y, piece.clone()]).fill(false);
        let above = [(z > 0).then(|| (z - 1, y)), (y > 0).then(|| (z, y - 1))];
        let below = [(z + 1 < depth).then_some((z + 1, y)), (y + 1 < height).then_some((z, y + 1))];
        for (z, y) in above.into_iter().chain(below).flatten() {
            let mut was_open = false;
            for x in piece.clone() {
                let open = is_open(mask, [z, y, x]);
                if open && !was_open {
                    waiting.push([z, y, x]);
                }
                was_open = open;
            }
        }
    }
}
