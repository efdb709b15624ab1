//! 16 floats per vector: 8 channels by 3 vectors leave 8 of the 32 registers for operands.

use super::{Set, avx2};
use crate::conv::{Vectors, instances, micro};
use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
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
    rows: Some(&ROWS),
    f32: Some(&Vectors { lanes: 16, kernels: instances!(micro, [8, 6, 4, 2, 1]) }),
    bf16: None,
};

micro!(
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
crate::row::compile_rows!(#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]);
