//! 4 floats per vector: 8 channels by 3 vectors leave 8 of the 32 registers for operands.
//!
//! Weights stay scalars that the multiplication broadcasts: a load that broadcasts takes one of
//! the vector units on most cores, and multiplications need them all. In assembly, since the
//! compiler would broadcast first.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, scalar};
use crate::conv::{Vectors, instances};

/// What every 64-bit ARM has. Plain Rust is compiled for it there, so rows have no code of their
/// own.
pub(crate) static SET: Set = Set {
    name: "neon",
    includes: &[&scalar::SET],
    detect: || std::arch::is_aarch64_feature_detected!("neon"),
    rows: None,
    f32: Some(&Vectors { lanes: 4, kernels: instances!(micro, [8, 6, 4, 2, 1]) }),
    bf16: None,
};

/// Defines `micro` from the instruction that adds `weight` times `input` to `sum`; `$attribute`
/// enables CPU features.
macro_rules! neon {
    ([$(#[$attribute:meta])*] $instruction:literal) => {
        use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vld1q_dup_f32, vld1q_f32, vst1q_f32};

        /// The instruction.
        ///
        /// # Safety
        ///
        /// The CPU has it.
        #[inline(always)]
        unsafe fn multiply(weight: f32, input: float32x4_t, mut sum: float32x4_t) -> float32x4_t {
            // SAFETY: works on registers alone; the caller vouches for the instruction.
            unsafe {
                std::arch::asm!(
                    $instruction,
                    sum = inout(vreg) sum,
                    input = in(vreg) input,
                    weight = in(vreg) weight,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sum
        }

        $crate::conv::micro!(
            [$(#[$attribute])*]
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
    };
}
pub(super) use neon;

neon!([#[target_feature(enable = "neon")]] "fmla {sum:v}.4s, {input:v}.4s, {weight:v}.s[0]");
