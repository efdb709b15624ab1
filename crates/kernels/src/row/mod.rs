//! Work on rows of voxels: normalize and activate, pair up in bf16, (de)interleave, moments.
//!
//! The bodies are plain loops that the compiler vectorizes; each instruction set compiles
//! them once more with its features on. No multiplication is fused with an addition, so all
//! instruction sets give the same bytes here.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod winograd;

mod fixed;

use super::isa::Isa;
use crate::conv::{Coding, Row, RowMut};

pub(crate) use body::compile_rows;
pub(super) use body::round_bf16;
pub(crate) use fixed::Fixed;
#[cfg(target_arch = "x86_64")]
pub(crate) use fixed::quantize_short;
pub(super) use winograd::transform_weights;

/// What happens to a channel's raw values `v` when they are read:
/// `t = v * scale + shift`, then `t` where positive and `slope * t` where negative.
///
/// Normalization and (leaky) rectification in one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Factor.
    pub scale: f32,
    /// Summand.
    pub shift: f32,
    /// Factor of negative results; 1 for no activation, 0 for a plain rectifier.
    pub slope: f32,
}

impl Affine {
    /// Values as they are.
    pub const IDENTITY: Self = Self { scale: 1.0, shift: 0.0, slope: 1.0 };

    /// The value read for `v`.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]
    pub fn apply(self, v: f32) -> f32 {
        let t = v * self.scale + self.shift;
        let positive = if t > 0.0 { t } else { 0.0 };
        let negative = if t < 0.0 { t } else { 0.0 };
        positive + self.slope * negative
    }
}

/// Work on rows as one instruction set does it. The arguments are those of this module's functions
/// of the same names, which check them.
///
/// Whoever calls one holds an [`Isa`] that the table came from: then the CPU has the features that
/// the function was compiled with, and nothing else makes it unsafe.
#[derive(Clone, Copy)]
#[allow(
    clippy::type_complexity,
    reason = "the functions of this module say what the arguments are"
)]
pub(crate) struct Rows {
    pub activate: unsafe fn(&mut [f32], Row<'_>, Affine),
    pub activate_pairs: unsafe fn(&mut [f32], (Row<'_>, Affine), (Row<'_>, Affine)),
    pub quantize: unsafe fn(&mut [f32], [(&[i16], Fixed); 4], u32),
    pub encode: unsafe fn(&mut [i16], &[f32], Coding),
    pub split: unsafe fn(&mut [f32], &mut [f32], &[f32]),
    pub interleave: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub interleave_halves: unsafe fn(&mut [u16], &[u16], &[u16]),
    pub deviations: unsafe fn(&[f32], (usize, usize, usize), f32) -> [f64; 2],
    pub tile_in: unsafe fn(usize, (&mut [f32], usize), (&[f32], usize), usize),
    pub tile_out: unsafe fn(usize, (&mut [f32], usize, usize), (&[f32], usize), usize, f32),
    pub best_class: unsafe fn(&mut [u32], &[f32], (&[f32], &[f32])),
    pub last_above: unsafe fn(&mut [u32], &[f32], (&[f32], &[f32]), f32),
}

/// Calls `$name` of the table that `$isa` proves.
macro_rules! dispatch {
    ($isa:expr, $name:ident($($arg:expr),*)) => {
        // SAFETY: an `Isa` gives only tables of sets it has proven, see `Rows`.
        unsafe { ($isa.rows().$name)($($arg),*) }
    };
}

/// Writes `source` as read through `affine`.
///
/// # Panics
///
/// If the lengths differ.
pub fn activate(isa: Isa, target: &mut [f32], source: Row<'_>, affine: Affine) {
    assert_eq!(target.len(), source.len());
    dispatch!(isa, activate(target, source, affine));
}

/// Writes two channels as bf16 pairs, `first` in the low half of each element.
///
/// The elements are bit patterns, not numbers. Rounds to nearest even.
///
/// # Panics
///
/// If the lengths differ, or the rows differ in their format.
pub fn activate_pairs(
    isa: Isa,
    target: &mut [f32],
    first: (Row<'_>, Affine),
    second: (Row<'_>, Affine),
) {
    assert!(target.len() == first.0.len() && target.len() == second.0.len());
    dispatch!(isa, activate_pairs(target, first, second));
}

/// Writes four channels as quads of bytes, the first in the lowest byte of each element; bits of
/// `flip` are inverted.
///
/// The elements are bit patterns, not numbers.
///
/// # Panics
///
/// If the lengths differ.
pub(crate) fn quantize(isa: Isa, target: &mut [f32], sources: [(&[i16], Fixed); 4], flip: u32) {
    assert!(sources.iter().all(|(row, _)| row.len() == target.len()));
    dispatch!(isa, quantize(target, sources, flip));
}

/// Writes `source` in the format of `target`; integers by `coding`.
///
/// # Panics
///
/// If the lengths differ.
pub fn store(isa: Isa, target: RowMut<'_>, source: &[f32], coding: Coding) {
    match target {
        RowMut::F32(target) => target.copy_from_slice(source),
        RowMut::Bf16(target) => {
            assert_eq!(target.len(), source.len());
            for (t, &v) in target.iter_mut().zip(source) {
                *t = (round_bf16(v) >> 16) as u16;
            }
        }
        RowMut::I16(target) => {
            assert_eq!(target.len(), source.len());
            dispatch!(isa, encode(target, source, coding));
        }
    }
}

/// Splits elements at even and odd places; `even` and `odd` may be shorter than half.
///
/// # Panics
///
/// If `source` does not have two elements for each of `even` and of `odd`.
pub fn split(isa: Isa, even: &mut [f32], odd: &mut [f32], source: &[f32]) {
    let n = even.len();
    assert!(odd.len() == n && source.len() >= 2 * n);
    dispatch!(isa, split(even, odd, &source[..2 * n]));
}

/// Numbers that can be [interleaved](interleave).
pub trait Interleave: Copy {
    /// The inverse of [`split`].
    ///
    /// # Panics
    ///
    /// If `target` is not as long as both sources together, or they differ in length.
    fn interleave(isa: Isa, target: &mut [Self], even: &[Self], odd: &[Self]);
}

impl Interleave for f32 {
    fn interleave(isa: Isa, target: &mut [f32], even: &[f32], odd: &[f32]) {
        assert!(target.len() == 2 * even.len() && even.len() == odd.len());
        dispatch!(isa, interleave(target, even, odd));
    }
}

impl Interleave for u16 {
    fn interleave(isa: Isa, target: &mut [u16], even: &[u16], odd: &[u16]) {
        assert!(target.len() == 2 * even.len() && even.len() == odd.len());
        dispatch!(isa, interleave_halves(target, even, odd));
    }
}

/// The inverse of [`split`].
///
/// # Panics
///
/// If `target` is not as long as both sources together, or they differ in length.
pub fn interleave<T: Interleave>(isa: Isa, target: &mut [T], even: &[T], odd: &[T]) {
    T::interleave(isa, target, even, odd);
}

/// Sums of `v - shift` and of its square over rows of `width` values, `pitch` apart.
///
/// # Panics
///
/// If `values` is shorter than the rows, or rows overlap.
#[must_use]
pub fn deviations(
    isa: Isa,
    values: &[f32],
    (rows, width, pitch): (usize, usize, usize),
    shift: f32,
) -> [f64; 2] {
    assert!(width <= pitch && (rows == 0 || (rows - 1) * pitch + width <= values.len()));
    dispatch!(isa, deviations(values, (rows, width, pitch), shift))
}

/// Transforms `tile + 2` rows of `source` for minimal filtering with 3 taps across rows; both
/// slices come with their distance from row to row.
///
/// # Panics
///
/// If `tile` is neither 2 nor 4 or a slice too short.
pub fn tile_in(
    isa: Isa,
    tile: usize,
    target: (&mut [f32], usize),
    source: (&[f32], usize),
    width: usize,
) {
    assert!(tile == 2 || tile == 4);
    dispatch!(isa, tile_in(tile, target, source, width));
}

/// Transforms `tile + 2` rows of sums back to at most `tile` rows of the output, and adds
/// `bias`. `target` comes with its distance from row to row and its number of rows.
///
/// # Panics
///
/// If `tile` is neither 2 nor 4 or a slice too short.
pub fn tile_out(
    isa: Isa,
    tile: usize,
    target: (&mut [f32], usize, usize),
    source: (&[f32], usize),
    width: usize,
    bias: f32,
) {
    assert!(tile == 2 || tile == 4);
    dispatch!(isa, tile_out(tile, target, source, width, bias));
}

/// For each voxel of a row the class with the largest logit, the first of equals.
///
/// `features` holds a row of `choice.len()` voxels per feature; `weights` (`[class, feature]`)
/// and `bias` (`[class]`) are the network's last layer. Logits that are not numbers never win.
///
/// # Panics
///
/// If the row is not a multiple of [`HEAD_ALIGNMENT`] voxels, there is no class, or the slices
/// do not fit together.
pub fn best_class(
    isa: Isa,
    choice: &mut [u32],
    features: &[f32],
    (weights, bias): (&[f32], &[f32]),
) {
    check_head(choice, features, weights, bias);
    dispatch!(isa, best_class(choice, features, (weights, bias)));
}

/// For each voxel of a row one more than the last class whose logit exceeds `threshold`, or 0.
///
/// # Panics
///
/// As [`best_class`].
pub fn last_above(
    isa: Isa,
    choice: &mut [u32],
    features: &[f32],
    (weights, bias): (&[f32], &[f32]),
    threshold: f32,
) {
    check_head(choice, features, weights, bias);
    dispatch!(isa, last_above(choice, features, (weights, bias), threshold));
}

/// Rows given to [`best_class`] and [`last_above`] are multiples of this many voxels.
pub const HEAD_ALIGNMENT: usize = 16;

fn check_head(choice: &[u32], features: &[f32], weights: &[f32], bias: &[f32]) {
    assert!(choice.len().is_multiple_of(HEAD_ALIGNMENT) && !bias.is_empty());
    assert_eq!(features.len() * bias.len(), weights.len() * choice.len());
}

/// Count, mean and sum of squared deviations of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of values.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
}

impl Moments {
    /// Moments of rows of `width` values, `pitch` apart, as deviations from the first row's
    /// mean: exact to f32 however far the mean is from zero.
    ///
    /// # Panics
    ///
    /// As [`deviations`].
    #[must_use]
    pub fn of_rows(isa: Isa, values: &[f32], rows: (usize, usize, usize)) -> Self {
        let count = (rows.0 * rows.1) as f64;
        if count == 0.0 {
            return Self::default();
        }
        // The mean of `k` of `n` values is at most `sqrt(n / k - 1)` standard deviations from
        // that of all, so little is lost to cancellation.
        let first = deviations(isa, values, (1, rows.1, rows.2), 0.0)[0];
        let shift = (first / rows.1 as f64) as f32;
        let [sum, squares] = deviations(isa, values, rows, shift);
        Self {
            count,
            mean: f64::from(shift) + sum / count,
            squares: (squares - sum * sum / count).max(0.0),
        }
    }

    /// Moments of both sets together (Chan et al. 1983).
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * other.count / count,
            squares: self.squares
                + other.squares
                + apart * apart * self.count * other.count / count,
        }
    }

    /// Mean of squared deviations.
    #[must_use]
    pub fn variance(self) -> f64 {
        if self.count == 0.0 { 0.0 } else { self.squares / self.count }
    }
}

#[cfg(test)]
mod tests;
