//! As `neon`, but each element is four bytes, and one instruction adds four products to a 32-bit
//! integer: `sdot` of signed bytes, so that the ring holds 128 less, or `usdot` of what the ring
//! holds.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, neon};
use crate::conv::tile::instances;
use crate::conv::{Bytes, Vectors};
use std::arch::aarch64::{int32x4_t, vcvtq_f32_s32, vdupq_n_s32, vld1q_s32};

/// Armv8.2 with dot products: Neoverse N1, Cortex-A76, Apple M1, and later.
pub(crate) static SET: Set = Set {
    name: "neon-dot",
    includes: &[&neon::SET],
    detect: || std::arch::is_aarch64_feature_detected!("dotprod"),
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: None,
    int8: Some(&Vectors {
        lanes: 4,
        kernels: instances!(signed, [8, 6, 4, 2, 1]),
        bytes: Bytes::Signed,
    }),
};

/// Armv8.6 and Armv9: Neoverse V1 and N2, Apple M2, and later.
pub(crate) static MIXED: Set = Set {
    name: "neon-i8mm",
    includes: &[&SET],
    detect: || std::arch::is_aarch64_feature_detected!("i8mm"),
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: None,
    int8: Some(&Vectors {
        lanes: 4,
        kernels: instances!(mixed, [8, 6, 4, 2, 1]),
        bytes: Bytes::Unsigned,
    }),
};

neon::neon!(
    #[target_feature(enable = "neon,dotprod")]
    Signed,
    signed,
    "sdot {sum:v}.4s, {input:v}.16b, {weight:v}.4b[0]",
    int32x4_t,
    |p: *const u32| vdupq_n_s32(*p.cast()),
    int32x4_t,
    |p: *const u32| vld1q_s32(p.cast()),
    |sums: int32x4_t| vcvtq_f32_s32(sums)
);
neon::neon!(
    #[target_feature(enable = "neon,i8mm")]
    Mixed,
    mixed,
    "usdot {sum:v}.4s, {input:v}.16b, {weight:v}.4b[0]",
    int32x4_t,
    |p: *const u32| vdupq_n_s32(*p.cast()),
    int32x4_t,
    |p: *const u32| vld1q_s32(p.cast()),
    |sums: int32x4_t| vcvtq_f32_s32(sums)
);
