//! stub
use crate::model::Resampling;
use ndarray::*;
/// a
pub fn resampled_shape(_shape: [usize; 3], _old: [f64; 3], _new: [f64; 3]) -> [usize; 3] {
    [1, 1, 1]
}
/// a
pub fn separate_axis(_f: Option<bool>, _c: [f64; 3], _n: [f64; 3]) -> Option<usize> {
    None
}
/// a
pub fn resample_image(
    source: ArrayView3<'_, f32>,
    _shape: [usize; 3],
    _s: Option<usize>,
    _r: &Resampling,
) -> Array3<f32> {
    source.to_owned()
}
