//! The exact Euclidean distance transform, in millimetres.
//!
//! One lower envelope of parabolas per row and axis (Felzenszwalb and Huttenlocher, *Theory of
//! Computing* 8, 2012): linear in the number of voxels, exact for any spacing.

use crate::volume::Spacing;
use ndarray::{Array3, ArrayView3, ArrayViewMut1, Axis, Zip};

/// Squared distance in mm² from each voxel's center to the nearest center of a `true` voxel,
/// `[z, y, x]`; infinite if there is none.
#[must_use]
pub fn squared(mask: ArrayView3<'_, bool>, spacing: Spacing) -> Array3<f32> {
    let mut out = mask.map(|&inside| if inside { 0.0 } else { f32::INFINITY });
    for (axis, step) in spacing.into_iter().enumerate() {
        if out.len_of(Axis(axis)) > 1 {
            Zip::from(out.lanes_mut(Axis(axis))).par_for_each(|lane| envelope(lane, step * step));
        }
    }
    out
}

/// A parabola of the envelope: its apex, height there, and where it begins to be lowest.
struct Parabola {
    apex: f64,
    height: f64,
    from: f64,
}

/// Replaces each value by the minimum over the lane of `value + square * distance²`, with the
/// distance in voxels.
fn envelope(mut lane: ArrayViewMut1<'_, f32>, square: f64) {
    // Most lanes of a bounding box miss the structure.
    if lane.iter().all(|&value| value == 0.0) {
        return;
    }
    let mut lowest: Vec<Parabola> = Vec::new();
    for (i, &value) in lane.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        let (apex, height) = (i as f64, f64::from(value));
        let mut from = f64::NEG_INFINITY;
        while let Some(last) = lowest.last() {
            let rise = (height - last.height) / square;
            from = (rise / (apex - last.apex) + apex + last.apex) / 2.0;
            if from > last.from {
                break;
            }
            lowest.pop();
            from = f64::NEG_INFINITY;
        }
        lowest.push(Parabola { apex, height, from });
    }
    let mut parabolas = lowest.iter().peekable();
    let Some(mut lowest) = parabolas.next() else { return };
    for (i, value) in lane.iter_mut().enumerate() {
        let x = i as f64;
        while let Some(next) = parabolas.next_if(|next| next.from <= x) {
            lowest = next;
        }
        *value = ((x - lowest.apex).powi(2) * square + lowest.height) as f32;
    }
}
