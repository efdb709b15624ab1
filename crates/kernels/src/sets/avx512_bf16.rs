//! As `avx512`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, avx512};
use crate::conv::{Vectors, instances, micro};
use crate::row::{Affine, Rows, body};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
};

/// AVX-512 with bf16: Cooper Lake, Sapphire Rapids, Zen 4, and later.
pub(crate) static SET: Set = Set {
    name: "avx512-bf16",
    includes: &[&avx512::SET],
    detect: || is_x86_feature_detected!("avx512bf16"),
    rows: Some(&ROWS),
    f32: None,
    bf16: Some(&Vectors { lanes: 16, kernels: instances!(micro, [8, 6, 4, 2, 1]) }),
};

/// As `avx512`, but for the conversion to bf16.
static ROWS: Rows = Rows { activate_pairs, ..avx512::ROWS };

/// The same bits as 32 bf16 numbers.
#[inline(always)]
fn pairs(v: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid patterns.
    unsafe { std::mem::transmute(v) }
}

micro!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]]
    16,
    _mm512_setzero_ps(),
    _mm512_setzero_si512(),
    |p: *const f32| _mm512_set1_ps(*p),
    |p: *const f32| _mm512_set1_epi32(p.cast::<i32>().read()),
    |p: *const f32| _mm512_loadu_si512(p.cast()),
    |a, b, c| _mm512_dpbf16_ps(c, pairs(a), pairs(b)),
    |p: *mut f32, v| _mm512_storeu_ps(p, v)
);

/// Where the 16-bit halves of the interleaved vector come from.
static INTERLEAVE: [u16; 32] = {
    let mut order = [0; 32];
    let mut k = 0;
    while k < 32 {
        order[k] = (k / 2 + k % 2 * 16) as u16;
        k += 1;
    }
    order
};

#[target_feature(enable = "avx512f")]
fn apply(affine: Affine, v: __m512) -> __m512 {
    let scaled = _mm512_mul_ps(v, _mm512_set1_ps(affine.scale));
    let t = _mm512_add_ps(scaled, _mm512_set1_ps(affine.shift));
    let negative =
        _mm512_mul_ps(_mm512_set1_ps(affine.slope), _mm512_min_ps(t, _mm512_setzero_ps()));
    _mm512_add_ps(_mm512_max_ps(t, _mm512_setzero_ps()), negative)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn activate_pairs(
    target: &mut [f32],
    (first, first_affine): (&[f32], Affine),
    (second, second_affine): (&[f32], Affine),
) {
    // SAFETY: the table has 32 two-byte entries, one 64-byte vector.
    let order = unsafe { _mm512_loadu_si512(INTERLEAVE.as_ptr().cast()) };
    let (targets, rest) = target.as_chunks_mut::<16>();
    let ((firsts, first_rest), (seconds, second_rest)) =
        (first.as_chunks::<16>(), second.as_chunks::<16>());
    for ((t, a), b) in targets.iter_mut().zip(firsts).zip(seconds) {
        // SAFETY: the chunks are 16 floats, one 64-byte vector; loads are unaligned.
        let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
        let halves = _mm512_cvtne2ps_pbh(apply(second_affine, b), apply(first_affine, a));
        // SAFETY: both types are 64 bytes without invalid patterns.
        let halves: __m512i = unsafe { std::mem::transmute(halves) };
        let pairs = _mm512_permutexvar_epi16(order, halves);
        // SAFETY: `t` is 16 floats, one 64-byte vector; the store is unaligned.
        unsafe { _mm512_storeu_si512(t.as_mut_ptr().cast(), pairs) };
    }
    body::activate_pairs(rest, (first_rest, first_affine), (second_rest, second_affine));
}
