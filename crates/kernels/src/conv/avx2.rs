//! 8 floats per vector: 4 channels by 3 vectors fill the 16 registers.

use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

super::micro::micro!(
    [#[target_feature(enable = "avx2,fma")]]
    8,
    _mm256_setzero_ps(),
    _mm256_setzero_ps(),
    |p: *const f32| _mm256_set1_ps(*p),
    |p: *const f32| _mm256_set1_ps(*p),
    |p: *const f32| _mm256_loadu_ps(p),
    |a, b, c| _mm256_fmadd_ps(a, b, c),
    |p: *mut f32, v| _mm256_storeu_ps(p, v)
);
