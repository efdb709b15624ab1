//! The input a cascade's second stage gets from the first: one 0/1 channel per label.

use super::{crop, resample};
use crate::volume::{AxisMap, LabelMap};
use ndarray::{Array3, ArrayView3, ArrayViewMut4, Axis, Zip};

/// Where no patient is and the first stage found nothing; interpolated as a label of its own,
/// as in the reference.
const OUTSIDE: i32 = -1;

/// Brings the previous stage's `labels`, as stored, to the network's grid and writes one
/// channel per entry of `wanted` (`channels` is `[label, z, y, x]`).
///
/// `mask` says which voxels of the box belong to the patient.
pub(super) fn fill_channels(
    mut channels: ArrayViewMut4<'_, f32>,
    labels: &LabelMap,
    (axes, bounds): (&AxisMap, &crop::Box3),
    mask: ArrayView3<'_, bool>,
    separate: Option<usize>,
    wanted: &[u16],
) {
    let part: Array3<i32> = match labels {
        LabelMap::U8(labels) => crop::crop(axes.view(labels.view()), bounds).mapv(i32::from),
        LabelMap::U16(labels) => crop::crop(axes.view(labels.view()), bounds).mapv(i32::from),
    };
    let mut part = part;
    Zip::from(&mut part).and(mask).for_each(|label, &inside| {
        if *label == 0 && !inside {
            *label = OUTSIDE;
        }
    });
    let (_, z, y, x) = channels.dim();
    let resampled = resample::resample_labels(part.view(), [z, y, x], separate);
    for (mut channel, &id) in channels.axis_iter_mut(Axis(0)).zip(wanted) {
        let id = i32::from(id);
        Zip::from(&mut channel)
            .and(&resampled)
            .par_for_each(|v, &found| *v = f32::from(u8::from(found == id)));
    }
}
