//! From stored integers to bytes without floats: normalization, rectifier and quantization of a
//! channel in 16-bit steps that every instruction set has.

use super::Affine;
use crate::conv::ByteCode;

/// Binary digits that a byte has behind the point while it is computed, at most.
const MOST_DIGITS: i32 = 7;

/// How a channel's stored integers become bytes: what an [`Affine`] and a [`ByteCode`] amount to,
/// in integers. `a * b` is the rounded upper half of a product, `(2 a b + 2^15) >> 16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// How often numbers are doubled first; what does not fit becomes the nearest that does.
    pub doublings: u16,
    /// Factor.
    pub scale: i16,
    /// Summand.
    pub shift: i16,
    /// Factor of negative results.
    pub slope: i16,
    /// What takes the digits behind the point away.
    pub unit: i16,
    /// Summand after that.
    pub zero: i16,
}

/// Largest factor, just below 1.
const ONE: f64 = 32768.0;

impl Fixed {
    /// Whether a rectifier can be computed: slopes from 0 to 1.
    pub(crate) fn takes(slope: f32) -> bool {
        (0.0..=1.0).contains(&slope)
    }

    /// What `affine` and `code` amount to.
    pub(crate) fn new(affine: Affine, code: ByteCode) -> Self {
        let step = f64::from(code.step);
        let (scale, shift) = (f64::from(affine.scale) / step, f64::from(affine.shift) / step);
        let fits = |v: f64| v.abs() <= 32767.0;
        // As many digits as fit; numbers too small for one digit are doubled instead.
        let digits = (1..=MOST_DIGITS)
            .rev()
            .find(|&d| fits(scale * exp2(d + 15)) && fits(shift * exp2(d)))
            .unwrap_or(1);
        let doublings = (0..15).find(|&n| fits(scale * exp2(digits + 15 - n))).unwrap_or(15);
        Self {
            doublings: doublings as u16,
            scale: (scale * exp2(digits + 15 - doublings)).round() as i16,
            shift: (shift * exp2(digits)).round() as i16,
            slope: (f64::from(affine.slope) * ONE).round() as i16,
            unit: 1 << (15 - digits),
            zero: i16::from(code.zero),
        }
    }

    /// The byte for `v`.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]
    pub(crate) fn apply(self, mut v: i16) -> u8 {
        for _ in 0..self.doublings {
            v = v.saturating_add(v);
        }
        let v = multiply(v, self.scale).saturating_add(self.shift);
        let v = v.max(multiply(v, self.slope));
        multiply(v, self.unit).saturating_add(self.zero).clamp(0, 255) as u8
    }
}

fn exp2(exponent: i32) -> f64 {
    f64::from(exponent).exp2()
}

/// The rounded upper half of the product, as `pmulhrsw` and `sqrdmulh` compute it. No factor is
/// -32768.
#[inline(always)]
#[allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]
fn multiply(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16
}

/// Runs `quantize` on rows of fewer than the `N` positions that it needs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn quantize_short<const N: usize>(
    target: &mut [f32],
    sources: [(&[i16], Fixed); 4],
    quantize: impl Fn(&mut [f32], [(&[i16], Fixed); 4]),
) {
    let (n, mut whole, mut rows) = (target.len(), [0.0; N], [[0; N]; 4]);
    for (row, (source, _)) in rows.iter_mut().zip(&sources) {
        row[..n].copy_from_slice(source);
    }
    quantize(&mut whole, std::array::from_fn(|k| (&rows[k][..], sources[k].1)));
    target.copy_from_slice(&whole[..n]);
}
