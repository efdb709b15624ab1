//! 16 numbers per vector: 8 channels by 3 vectors leave 8 of the 32 registers for operands.
#![allow(clippy::inline_always, reason = "inlined into functions with these CPU features")]

use super::{Set, avx2};
use crate::conv::tile::{Dot, Lanes, instances, micro};
use crate::conv::{Bytes, Vectors};
use crate::row::{Fixed, Rows, quantize_short};
use std::arch::x86_64::{
    __m512, __m512i, _CMP_UNORD_Q, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps,
    _mm512_adds_epi16, _mm512_and_si512, _mm512_castps_si512, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi16, _mm512_cvtps_epi32, _mm512_cvtsepi32_epi16, _mm512_cvtss_f32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_or_epi32,
    _mm512_maskz_sub_ps, _mm512_max_epi16, _mm512_min_ps, _mm512_mul_ps, _mm512_mulhrs_epi16,
    _mm512_packus_epi16, _mm512_permutex2var_epi64, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setr_epi64, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_unpackhi_epi8, _mm512_unpacklo_epi8, _mm512_xor_si512,
};

/// AVX-512 as servers have had it since Skylake.
pub(crate) static SET: Set = Set {
    name: "avx512",
    includes: &[&avx2::SET],
    detect: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
    },
    pays: |_| false,
    rows: Some(&ROWS),
    f32: Some(&Vectors {
        lanes: 16,
        kernels: instances!(floats, [8, 6, 4, 2, 1]),
        bytes: Bytes::None,
    }),
    bf16: None,
    int8: None,
};

/// 16 floats.
pub(super) struct Zmm;

impl Lanes for Zmm {
    const LANES: usize = 16;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the caller vouches for the CPU, here and below.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for a vector, here and below.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn first(v: __m512) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_cvtss_f32(v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn deviation(v: __m512, shift: __m512, bits: u32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_maskz_sub_ps(bits as u16, v, shift) }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: __m512) {
        // SAFETY: as above.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_add_epi32(bits, half);
            // A NaN stays one.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_set1_epi32(0x0040_0000);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, quiet);
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_storeu_si256(to.cast(), halves);
        }
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, v: __m512) {
        // SAFETY: as above.
        unsafe {
            // A NaN stays one, and becomes the least integer as everything out of range does.
            let v = _mm512_min_ps(_mm512_set1_ps(f32::from(i16::MAX)), v);
            let integers = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v));
            _mm256_storeu_si256(to.cast(), integers);
        }
    }
}

/// Floats times floats.
struct Floats;

impl Dot for Floats {
    type Lanes = Zmm;
    type Sums = __m512;
    type Inputs = __m512;
    type Weight = __m512;

    #[inline(always)]
    unsafe fn start(from: *const u32) -> __m512 {
        // SAFETY: the caller vouches for CPU and element, here and below.
        unsafe { _mm512_set1_ps(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512, weight: __m512, inputs: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(weight, inputs, sums) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512) -> __m512 {
        sums
    }
}

micro!(floats, Floats, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]);

mod rows {
    crate::row::compile_rows!(#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]);
}

/// As compiled, but for what has no good loop.
pub(super) const ROWS: Rows = Rows { quantize, ..rows::ROWS };

/// Positions that [`quantize`] computes at once.
const QUANTIZED: usize = 32;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn quantize(target: &mut [f32], sources: [(&[i16], Fixed); 4], flip: u32) {
    let n = target.len();
    if n < QUANTIZED {
        quantize_short::<QUANTIZED>(target, sources, |target, sources| {
            quantize(target, sources, flip);
        });
        return;
    }
    let flip = _mm512_set1_epi32(flip.cast_signed());
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    let mut at = 0;
    while at < n {
        // The last step overlaps the one before.
        at = at.min(n - QUANTIZED);
        let [a, b, c, d] = sources.map(|(row, fixed)| {
            let row = &row[at..at + QUANTIZED];
            // SAFETY: the slice has 32 numbers, one 64-byte vector; the load is unaligned.
            apply(unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }, fixed)
        });
        let (ab, cd) = (_mm512_packus_epi16(a, b), _mm512_packus_epi16(c, d));
        let (ac, bd) = (_mm512_unpacklo_epi8(ab, cd), _mm512_unpackhi_epi8(ab, cd));
        let (low, high) = (_mm512_unpacklo_epi8(ac, bd), _mm512_unpackhi_epi8(ac, bd));
        let target = &mut target[at..at + QUANTIZED];
        // SAFETY: the slice has 32 elements, two 64-byte vectors; stores are unaligned.
        unsafe {
            let places = [first, second]
                .map(|order| _mm512_xor_si512(_mm512_permutex2var_epi64(low, order, high), flip));
            _mm512_storeu_si512(target.as_mut_ptr().cast(), places[0]);
            _mm512_storeu_si512(target.as_mut_ptr().add(16).cast(), places[1]);
        }
        at += QUANTIZED;
    }
}

/// [`Fixed::apply`], before numbers out of range become the nearest byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn apply(mut v: __m512i, fixed: Fixed) -> __m512i {
    for _ in 0..fixed.doublings {
        v = _mm512_adds_epi16(v, v);
    }
    let scaled = _mm512_mulhrs_epi16(v, _mm512_set1_epi16(fixed.scale));
    let v = _mm512_adds_epi16(scaled, _mm512_set1_epi16(fixed.shift));
    let v = _mm512_max_epi16(v, _mm512_mulhrs_epi16(v, _mm512_set1_epi16(fixed.slope)));
    let rounded = _mm512_mulhrs_epi16(v, _mm512_set1_epi16(fixed.unit));
    _mm512_adds_epi16(rounded, _mm512_set1_epi16(fixed.zero))
}
