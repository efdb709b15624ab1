//! As `neon`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, neon};
use crate::conv::tile::instances;
use crate::conv::{Bytes, Vectors};
use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vld1q_f32};

/// Armv8.6 and Armv9: Neoverse V1 and N2, Apple M2, and later.
pub(crate) static SET: Set = Set {
    name: "neon-bf16",
    includes: &[&neon::SET],
    detect: || std::arch::is_aarch64_feature_detected!("bf16"),
    // By its promise: twice the products of `fmla` at the same rate.
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: Some(&Vectors {
        lanes: 4,
        kernels: instances!(pairs, [8, 6, 4, 2, 1]),
        bytes: Bytes::None,
    }),
    int8: None,
};

neon::neon!(
    #[target_feature(enable = "neon,bf16")]
    Pairs,
    pairs,
    "bfdot {sum:v}.4s, {input:v}.8h, {weight:v}.2h[0]",
    float32x4_t,
    |p: *const u32| vdupq_n_f32(*p.cast()),
    float32x4_t,
    |p: *const u32| vld1q_f32(p.cast()),
    |sums: float32x4_t| sums
);
