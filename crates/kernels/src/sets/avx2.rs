//! 8 floats per vector: 4 channels by 3 vectors fill the 16 registers.

use super::{Set, scalar};
use crate::conv::{Vectors, instances, micro};
use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

/// AVX2 with fused multiplication and addition: Haswell, Zen, and later.
pub(crate) static SET: Set = Set {
    name: "avx2",
    includes: &[&scalar::SET],
    detect: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    rows: Some(&ROWS),
    f32: Some(&Vectors { lanes: 8, kernels: instances!(micro, [4, 2, 1]) }),
    bf16: None,
};

micro!(
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
crate::row::compile_rows!(#[target_feature(enable = "avx2,fma")]);
