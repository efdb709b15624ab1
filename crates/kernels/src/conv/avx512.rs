//! 16 floats per vector: 8 channels by 3 vectors leave 8 of the 32 registers for operands.

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

super::micro::micro!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]]
    16,
    _mm512_setzero_ps(),
    _mm512_setzero_ps(),
    |p: *const f32| _mm512_set1_ps(*p),
    |p: *const f32| _mm512_set1_ps(*p),
    |p: *const f32| _mm512_loadu_ps(p),
    |a, b, c| _mm512_fmadd_ps(a, b, c),
    |p: *mut f32, v| _mm512_storeu_ps(p, v)
);
