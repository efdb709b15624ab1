//! Stages 9 and 10: logits on the network's grid become labels on the image's.
//!
//! Linear interpolation and the choice of a label are local, so both happen slab by slab and
//! tile by tile: no logit is ever held at the image's size. Where the network's last layer is
//! linear, its input is interpolated instead and the layer applied to each voxel of the image,
//! which gives the same logits up to rounding and makes the work independent of the number of
//! classes everywhere but in the innermost loop.

mod tile;

use super::resample::{Pair, nearest_pairs, pairs};
use crate::infer::LinearHead;
use fastnnunet_kernels::Isa;
use ndarray::parallel::prelude::*;
use ndarray::{ArrayView4, ArrayViewMut3, Axis};
use std::ops::Range;
use tile::{Scratch, Shared};

/// How the logits of a voxel become its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The channel with the largest logit is the label; the first of equals, and a NaN
    /// before any number, as `numpy.argmax` has it.
    Argmax,
    /// Every channel is a region whose label is painted where its probability exceeds one
    /// half; later channels paint over earlier ones. One label per channel.
    Regions(Vec<u16>),
}

impl Decision {
    /// The largest label that can come out of `channels` logits per voxel.
    #[must_use]
    pub fn largest_label(&self, channels: usize) -> u16 {
        match self {
            Self::Argmax => u16::try_from(channels.saturating_sub(1)).unwrap_or(u16::MAX),
            Self::Regions(order) => order.iter().copied().max().unwrap_or(0),
        }
    }

    /// What a logit must exceed to be chosen, where more than the largest may be.
    pub(super) fn above(&self) -> Option<f32> {
        (*self != Self::Argmax).then_some(FAINT)
    }

    /// Label of each value the running choice can have.
    pub(super) fn table<T: LabelValue>(&self, channels: usize) -> Vec<T> {
        let label = |id: u16| T::try_from(id).ok().expect("labels fit the label map's type");
        match self {
            Self::Argmax => {
                let channels = u16::try_from(channels).expect("labels are 16-bit");
                (0..channels).map(label).collect()
            }
            Self::Regions(order) => {
                assert_eq!(order.len(), channels, "one label per region");
                std::iter::once(T::default()).chain(order.iter().copied().map(label)).collect()
            }
        }
    }
}

/// A voxel of a label map.
pub trait LabelValue: Copy + Default + Send + Sync + TryFrom<u16> {}
impl LabelValue for u8 {}
impl LabelValue for u16 {}

/// The largest `f32` whose sigmoid in `f32` is still one half, not more: 1.5 * 2^-24.
const FAINT: f32 = 1.5 / (1 << 24) as f32;

/// What a [`Labeler`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Resize<'a> {
    /// Voxels of the network's grid, `[z, y, x]`.
    pub source: [usize; 3],
    /// Voxels of the target, `[z, y, x]`.
    pub target: [usize; 3],
    /// Interpolation order of logits: 0 or 1.
    pub order: u8,
    /// The axis along which the nearest plane is taken, from
    /// [`separate_axis`](super::resample::separate_axis) with the network's spacing as the
    /// current one.
    pub separate: Option<usize>,
    /// What turns channels into logits, if they are not logits already.
    pub head: Option<&'a LinearHead>,
}

impl Resize<'_> {
    /// The neighbors of each voxel of the target, along `z`, `y` and `x`.
    pub(super) fn axes(&self) -> [Vec<Pair>; 3] {
        std::array::from_fn(|axis| {
            let (n, m) = (self.source[axis], self.target[axis]);
            let nearest = self.order == 0 || self.separate == Some(axis);
            if nearest { nearest_pairs(n, m) } else { pairs(n, m) }
        })
    }
}

/// Labels the slices of an image as soon as the planes of the network's grid they depend on
/// are known.
pub struct Labeler<'a, T> {
    z: Vec<Pair>,
    tiles: Shared<'a, T>,
}

impl<'a, T: LabelValue> Labeler<'a, T> {
    /// Prepares for sources of `channels` channels.
    ///
    /// # Panics
    ///
    /// If there are no channels or voxels, if the order is above 1, if `decision` lists
    /// another number of regions than there are logits, or if a label does not fit `T`.
    #[must_use]
    pub fn new(channels: usize, resize: &Resize<'a>, decision: &Decision, isa: Isa) -> Self {
        let Resize { source, order, head, .. } = *resize;
        assert!(order <= 1, "spline order {order} for logits, expected 0 or 1");
        assert!(channels > 0 && !source.contains(&0), "no logits to interpolate");
        let logits = head.map_or(channels, |head| head.bias.len());
        let [z, y, x] = resize.axes();
        let argmax = *decision == Decision::Argmax;
        Self { z, tiles: Shared::new(&y, &x, argmax, decision.table(logits), head, isa) }
    }

    /// How many slices of the target can be labeled once the first `planes` planes of the
    /// source are known.
    #[must_use]
    pub fn ready(&self, planes: usize) -> usize {
        self.z.partition_point(|pair| pair.high < planes)
    }

    /// The first plane of the source that slices from `slice` on depend on.
    #[must_use]
    pub fn needed(&self, slice: usize) -> Option<usize> {
        self.z.get(slice).map(|pair| pair.low)
    }

    /// Labels some slices of the target. `planes` (`[c, z, y, x]`) are those of the source
    /// from `first` on; `target` holds the `slices` and may be flipped or permuted. The result
    /// does not depend on the number of threads.
    ///
    /// # Panics
    ///
    /// If planes are missing or shapes do not fit.
    pub fn label(
        &self,
        planes: ArrayView4<'_, f32>,
        first: usize,
        slices: Range<usize>,
        mut target: ArrayViewMut3<'_, T>,
    ) {
        assert_eq!(target.len_of(Axis(0)), slices.len(), "one slice of the target each");
        let jobs = target.axis_iter_mut(Axis(0)).into_par_iter().zip(&self.z[slices]);
        jobs.for_each_init(Scratch::default, |scratch, (slice, z)| {
            let z = Pair { low: z.low - first, high: z.high - first, ..*z };
            self.tiles.label_slice(planes, z, slice, scratch);
        });
    }
}

/// Resamples logits, `[c, z, y, x]`, linearly to the shape of `target`, `[z, y, x]`, and
/// writes the label of each voxel.
///
/// `target` may be flipped, permuted or a window of a larger map. `separate` is as in
/// [`Resize`].
///
/// # Panics
///
/// As [`Labeler::new`].
pub fn label_resampled<T: LabelValue>(
    logits: ArrayView4<'_, f32>,
    separate: Option<usize>,
    decision: &Decision,
    target: ArrayViewMut3<'_, T>,
) {
    if target.is_empty() {
        return;
    }
    let (channels, z, y, x) = logits.dim();
    let resize =
        Resize { source: [z, y, x], target: target.dim().into(), order: 1, separate, head: None };
    let labeler = Labeler::new(channels, &resize, decision, Isa::best());
    labeler.label(logits, 0, 0..target.len_of(Axis(0)), target);
}
