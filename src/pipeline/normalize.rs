//! Stage 4: intensities to the range the network was trained on.
//!
//! In `f32` with true division like the reference, *before* resampling: the resampler reads each
//! stored number through its [`Scheme`], so that no normalized copy of the image is ever held. nnU-Net v1
//! normalized what was resampled, and so do its models.

use crate::model::{Channel, Normalization};
use crate::volume::{Stored, VoxelView, with_stored};
use crate::{Error, Result};
use ndarray::{ArrayView3, ArrayViewMut3, Zip};

/// What a scheme turns out to be on one image: `(clamp(v) - shift) / scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    low: f32,
    high: f32,
    shift: f32,
    scale: f32,
}

/// Smallest divisor, as in nnU-Net: a flat image must not divide by zero.
const SMALLEST_SCALE: f32 = 1e-8;

impl Scheme {
    /// Values stay as they are.
    const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY, shift: 0.0, scale: 1.0 };

    /// What `channel` asks for on the cropped `image`.
    ///
    /// With a `mask` (from [`patient_mask`](super::crop::patient_mask)), `ZScoreNormalization`
    /// takes its statistics inside; the other schemes do not look at it.
    ///
    /// # Errors
    ///
    /// [`Error::Volume`] if the scheme is `RGBTo01Normalization` and a value lies outside 0..=255.
    pub fn new(
        image: VoxelView<'_>,
        channel: &Channel,
        mask: Option<ArrayView3<'_, bool>>,
    ) -> Result<Self> {
        Ok(match channel.normalization {
            Normalization::None => Self::NONE,
            Normalization::Ct => Self::ct(channel),
            Normalization::ZScore => {
                let (mean, std) = mean_and_std(image, mask);
                let scale = (std as f32).max(SMALLEST_SCALE);
                Self { shift: mean as f32, scale, ..Self::NONE }
            }
            Normalization::RescaleTo01 => {
                let (low, high) = range(image);
                Self { shift: low, scale: (high - low).max(SMALLEST_SCALE), ..Self::NONE }
            }
            Normalization::RgbTo01 => {
                let (low, high) = range(image);
                if low < 0.0 || high > 255.0 {
                    return Err(Error::volume(
                        format!("values from {low} to {high}"),
                        "0 to 255 for RGBTo01Normalization",
                    ));
                }
                Self { scale: 255.0, ..Self::NONE }
            }
        })
    }

    /// That of a CT: what the training data had, whatever the image has.
    pub(super) fn ct(channel: &Channel) -> Self {
        let p = channel.intensity;
        Self {
            low: p.percentile_00_5 as f32,
            high: p.percentile_99_5 as f32,
            shift: p.mean as f32,
            scale: (p.std as f32).max(SMALLEST_SCALE),
        }
    }

    /// The normalized value.
    #[must_use]
    pub fn apply(self, value: f32) -> f32 {
        (value.clamp(self.low, self.high) - self.shift) / self.scale
    }
}

/// Whether the scheme leaves voxels outside the mask as they are.
pub(super) fn is_masked(channel: &Channel) -> bool {
    channel.use_mask && channel.normalization == Normalization::ZScore
}

/// Normalizes one channel of the cropped image in place, with a `mask` only inside it where the
/// scheme looks at one.
///
/// # Errors
///
/// Those of [`Scheme::new`].
pub fn normalize(
    mut image: ArrayViewMut3<'_, f32>,
    channel: &Channel,
    mask: Option<ArrayView3<'_, bool>>,
) -> Result<()> {
    let scheme = Scheme::new(image.view().into(), channel, mask)?;
    match mask.filter(|_| channel.normalization == Normalization::ZScore) {
        Some(mask) => Zip::from(&mut image).and(mask).par_for_each(|v, &inside| {
            *v = if inside { scheme.apply(*v) } else { *v };
        }),
        None => Zip::from(&mut image).par_for_each(|v| *v = scheme.apply(*v)),
    }
    Ok(())
}

/// Mean and population standard deviation inside the mask, summed in `f64` plane by plane so
/// that the result does not depend on the number of threads.
fn mean_and_std(image: VoxelView<'_>, mask: Option<ArrayView3<'_, bool>>) -> (f64, f64) {
    let voxels = || image.shape().iter().product();
    let count = mask.map_or_else(voxels, |mask| mask.iter().filter(|&&inside| inside).count());
    let count = count.max(1) as f64;
    let mean = sum_planes(image, mask, f64::from) / count;
    let variance = sum_planes(image, mask, |v| (f64::from(v) - mean).powi(2)) / count;
    (mean, variance.sqrt())
}

fn sum_planes(
    image: VoxelView<'_>,
    mask: Option<ArrayView3<'_, bool>>,
    term: impl Fn(f32) -> f64 + Sync,
) -> f64 {
    with_stored!(image, |stored, scale| sum_stored(stored, mask, |v| term(v.value(scale))))
}

fn sum_stored<T: Stored>(
    image: ArrayView3<'_, T>,
    mask: Option<ArrayView3<'_, bool>>,
    term: impl Fn(T) -> f64 + Sync,
) -> f64 {
    use ndarray::{Axis, parallel::prelude::*};
    let plane_sum = |(z, plane): (usize, ndarray::ArrayView2<'_, T>)| -> f64 {
        match mask {
            None => plane.iter().map(|&v| term(v)).sum(),
            Some(mask) => {
                let inside = plane.iter().zip(mask.index_axis(Axis(0), z));
                inside.filter(|(_, inside)| **inside).map(|(&v, _)| term(v)).sum()
            }
        }
    };
    let planes: Vec<f64> =
        image.axis_iter(Axis(0)).into_par_iter().enumerate().map(plane_sum).collect();
    planes.iter().sum()
}

fn range(image: VoxelView<'_>) -> (f32, f32) {
    let join = |(low, high): (f32, f32), v: f32| (low.min(v), high.max(v));
    let none = (f32::INFINITY, f32::NEG_INFINITY);
    with_stored!(image, |stored, scale| stored.iter().map(|v| v.value(scale)).fold(none, join))
}
