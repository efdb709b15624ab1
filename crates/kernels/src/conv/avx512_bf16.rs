//! As `avx512`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

/// The same bits as 32 bf16 numbers.
#[inline(always)]
fn pairs(v: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid patterns.
    unsafe { std::mem::transmute(v) }
}

super::micro::micro!(
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
