//! stub
use ndarray::{ArrayView4, ArrayViewMut3};
/// d
pub enum Decision {
    /// a
    Argmax,
    /// r
    Regions(Vec<u16>),
}
impl Decision {
    /// l
    pub fn largest_label(&self, c: usize) -> u16 {
        c as u16 - 1
    }
}
/// l
pub trait Label: Copy + Default + Send + Sync {}
impl Label for u8 {}
impl Label for u16 {}
/// f
pub fn label_resampled<T: Label>(
    _l: ArrayView4<'_, f32>,
    _s: Option<usize>,
    _d: &Decision,
    _t: ArrayViewMut3<'_, T>,
) {
}
