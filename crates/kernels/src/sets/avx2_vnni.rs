//! As `avx2`, but each element is four bytes, and one instruction adds four products to a 32-bit
//! integer.
//!
//! The instruction has two encodings: the short one of AVX-VNNI, for CPUs without AVX-512, and
//! that of AVX-512. The same code in the long encoding shows on a CPU that lacks the short one
//! what the set does, in 16 registers of 256 bits all the same.
#![allow(clippy::inline_always, reason = "inlined into functions with these CPU features")]

use super::{Set, avx2};
use crate::conv::tile::{Dot, instances, micro};
use crate::conv::{Bytes, Tile, Vectors};
use std::arch::x86_64::{
    __m256, __m256i, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32,
    _mm256_loadu_si256, _mm256_set1_epi32,
};

/// AVX-VNNI: Alder Lake, Zen 5, and later.
pub(crate) static SET: Set = Set {
    name: "avx2-vnni",
    includes: &[&avx2::SET],
    detect: || is_x86_feature_detected!("avxvnni"),
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: None,
    int8: Some(&Vectors {
        lanes: 8,
        kernels: instances!(short_bytes, [4, 2, 1]),
        bytes: Bytes::Unsigned,
    }),
};

/// The same in the encoding of AVX-512, for measurements where the short one is missing.
pub(crate) static LONG: Set = Set {
    name: "avx2-vnni-evex",
    includes: &[&avx2::SET],
    detect: || is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl"),
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: None,
    int8: Some(&Vectors {
        lanes: 8,
        kernels: instances!(long_bytes, [4, 2, 1]),
        bytes: Bytes::Unsigned,
    }),
};

/// Defines the arithmetic `$dot` and its kernels `$micro`: four unsigned bytes times four signed
/// ones, by `$dot_product` and the instruction `$multiply`, with the CPU features `$features`.
macro_rules! bytes {
    ($dot:ident, $micro:ident, $sum:ident, $dot_product:ident, $multiply:literal, $features:literal) => {
        struct $dot;

        impl Dot for $dot {
            type Lanes = avx2::Ymm;
            type Sums = __m256i;
            type Inputs = __m256i;
            type Weight = __m256i;

            #[inline(always)]
            unsafe fn start(from: *const u32) -> __m256i {
                // SAFETY: the caller vouches for CPU and element, here and below.
                unsafe { _mm256_set1_epi32(*from.cast()) }
            }

            #[inline(always)]
            unsafe fn inputs(from: *const u32) -> __m256i {
                // SAFETY: the caller vouches for a vector; the load is unaligned.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }

            #[inline(always)]
            unsafe fn weight(from: *const u32) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_set1_epi32(*from.cast()) }
            }

            #[inline(always)]
            unsafe fn dot(sums: __m256i, weight: __m256i, inputs: __m256i) -> __m256i {
                // SAFETY: as above.
                unsafe { $dot_product(sums, inputs, weight) }
            }

            #[inline(always)]
            unsafe fn floats(sums: __m256i) -> __m256 {
                // SAFETY: as above.
                unsafe { _mm256_cvtepi32_ps(sums) }
            }

            #[inline(always)]
            unsafe fn sum<const CO: usize, const NV: usize>(
                tile: &Tile,
                sums: &mut [[__m256i; NV]; CO],
            ) {
                // SAFETY: as above.
                unsafe { avx2::sum::<Self, CO, NV>(tile, sums, $sum) }
            }
        }

        avx2::sum_4x3!($sum, __m256i, $multiply, ["{s", "{i", "{w}"]);
        micro!($micro, $dot, #[target_feature(enable = $features)]);
    };
}

bytes!(
    Short,
    short_bytes,
    sum_short,
    _mm256_dpbusd_avx_epi32,
    "{{vex}} vpdpbusd",
    "avx2,fma,avxvnni"
);
bytes!(
    Long,
    long_bytes,
    sum_long,
    _mm256_dpbusd_epi32,
    "{{evex}} vpdpbusd",
    "avx2,fma,avx512f,avx512vl,avx512vnni"
);
