//! Stage 4: intensities to the range the network was trained on.
//!
//! In place, in `f32` with true division like the reference, *before* resampling.

use crate::model::{Channel, Normalization};
use crate::{Error, Result};
use ndarray::{ArrayView3, ArrayViewMut3, Zip};

/// The affine map `(clamp(v) - shift) / scale` that a scheme turns out to be on one image.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Map {
    low: f32,
    high: f32,
    shift: f32,
    scale: f32,
}

const UNBOUNDED: Map = Map { low: f32::NEG_INFINITY, high: f32::INFINITY, shift: 0.0, scale: 1.0 };

/// Smallest divisor, as in nnU-Net: a flat image must not divide by zero.
const SMALLEST_SCALE: f32 = 1e-8;

/// Normalizes one channel of the cropped image in place.
///
/// With a `mask` (from [`patient_mask`](super::crop::patient_mask)), `ZScoreNormalization`
/// takes its statistics inside and leaves voxels outside as they are; the other schemes do not
/// look at it.
///
/// # Errors
///
/// [`Error::Volume`] if the scheme is `RGBTo01Normalization` and a value lies outside 0..=255.
pub fn normalize(
    mut image: ArrayViewMut3<'_, f32>,
    channel: &Channel,
    mask: Option<ArrayView3<'_, bool>>,
) -> Result<()> {
    let map = match channel.normalization {
        Normalization::None => return Ok(()),
        Normalization::Ct => {
            let p = channel.intensity;
            Map {
                low: p.percentile_00_5 as f32,
                high: p.percentile_99_5 as f32,
                shift: p.mean as f32,
                scale: (p.std as f32).max(SMALLEST_SCALE),
            }
        }
        Normalization::ZScore => {
            let (mean, std) = mean_and_std(image.view(), mask);
            let map =
                Map { shift: mean as f32, scale: (std as f32).max(SMALLEST_SCALE), ..UNBOUNDED };
            if let Some(mask) = mask {
                Zip::from(&mut image).and(mask).par_for_each(|v, &inside| {
                    *v = if inside { (*v - map.shift) / map.scale } else { *v };
                });
                return Ok(());
            }
            map
        }
        Normalization::RescaleTo01 => {
            let (low, high) = range(image.view());
            Map { shift: low, scale: (high - low).max(SMALLEST_SCALE), ..UNBOUNDED }
        }
        Normalization::RgbTo01 => {
            let (low, high) = range(image.view());
            if low < 0.0 || high > 255.0 {
                return Err(Error::Volume {
                    found: format!("values from {low} to {high}"),
                    expected: "0 to 255 for RGBTo01Normalization".into(),
                });
            }
            Map { scale: 255.0, ..UNBOUNDED }
        }
    };
    Zip::from(&mut image).par_for_each(|v| {
        *v = (v.clamp(map.low, map.high) - map.shift) / map.scale;
    });
    Ok(())
}

/// Mean and population standard deviation inside the mask, summed in `f64` plane by plane so
/// that the result does not depend on the number of threads.
fn mean_and_std(image: ArrayView3<'_, f32>, mask: Option<ArrayView3<'_, bool>>) -> (f64, f64) {
    let count = mask.map_or(image.len(), |mask| mask.iter().filter(|&&inside| inside).count());
    let count = count.max(1) as f64;
    let mean = sum_planes(image, mask, f64::from) / count;
    let variance = sum_planes(image, mask, |v| (f64::from(v) - mean).powi(2)) / count;
    (mean, variance.sqrt())
}

fn sum_planes(
    image: ArrayView3<'_, f32>,
    mask: Option<ArrayView3<'_, bool>>,
    term: impl Fn(f32) -> f64 + Sync,
) -> f64 {
    use ndarray::{Axis, parallel::prelude::*};
    let plane_sum = |(z, plane): (usize, ndarray::ArrayView2<'_, f32>)| -> f64 {
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

fn range(image: ArrayView3<'_, f32>) -> (f32, f32) {
    image
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}
