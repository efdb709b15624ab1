//! As `neon`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vld1q_dup_f32, vld1q_f32, vst1q_f32};
use std::arch::asm;

/// Adds the products of both numbers of each pair to `sum`. Stable Rust has the instruction only
/// in assembly.
///
/// # Safety
///
/// The CPU has the feature `bf16`.
#[inline(always)]
unsafe fn multiply(weights: f32, inputs: float32x4_t, mut sum: float32x4_t) -> float32x4_t {
    // SAFETY: works on registers alone; the caller vouches for the instruction.
    unsafe {
        asm!(
            "bfdot {sum:v}.4s, {inputs:v}.8h, {weights:v}.2h[0]",
            sum = inout(vreg) sum,
            inputs = in(vreg) inputs,
            weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

super::micro::micro!(
    [#[target_feature(enable = "neon,bf16")]]
    4,
    vdupq_n_f32(0.0),
    vdupq_n_f32(0.0),
    |p: *const f32| vld1q_dup_f32(p),
    |p: *const f32| *p,
    |p: *const f32| vld1q_f32(p),
    // SAFETY: the enclosing function has the feature.
    |a, b, c| unsafe { multiply(a, b, c) },
    |p: *mut f32, v| vst1q_f32(p, v)
);
