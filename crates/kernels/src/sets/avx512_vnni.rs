//! As `avx512`, but each element is four bytes, and one instruction adds four products to a
//! 32-bit integer.
#![allow(clippy::inline_always, reason = "inlined into functions with these CPU features")]

use super::{Set, avx512};
use crate::conv::tile::{Dot, instances, micro};
use crate::conv::{Bytes, Vectors};
use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
};

/// AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4, and later.
pub(crate) static SET: Set = Set {
    name: "avx512-vnni",
    includes: &[&avx512::SET],
    detect: || is_x86_feature_detected!("avx512vnni"),
    // Zen 4 and 5: twice as fast and more.
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: None,
    int8: Some(&Vectors {
        lanes: 16,
        kernels: instances!(bytes, [8, 6, 4, 2, 1]),
        bytes: Bytes::Unsigned,
    }),
};

/// Four unsigned bytes times four signed ones.
struct Quads;

impl Dot for Quads {
    type Lanes = avx512::Zmm;
    type Sums = __m512i;
    type Inputs = __m512i;
    type Weight = __m512i;

    #[inline(always)]
    unsafe fn start(from: *const u32) -> __m512i {
        // SAFETY: the caller vouches for CPU and element, here and below.
        unsafe { _mm512_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> __m512i {
        // SAFETY: the caller vouches for a vector; the load is unaligned.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, weight: __m512i, inputs: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, inputs, weight) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

micro!(bytes, Quads, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]);
