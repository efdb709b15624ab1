//! 4 numbers per vector: 8 channels by 3 vectors leave 8 of the 32 registers for operands.
//!
//! Weights stay scalars that the multiplication broadcasts: a load that broadcasts takes one of
//! the vector units on most cores, and multiplications need them all. In assembly, since the
//! compiler would broadcast first.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, scalar};
use crate::conv::tile::{Lanes, instances};
use crate::conv::{Bytes, Vectors};
use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_u32, vandq_u32, vbslq_u32, vceqq_f32, vcvtnq_s32_f32,
    vdupq_n_f32, vdupq_n_u32, vgetq_lane_f32, vld1q_f32, vld1q_u32, vmovn_u32, vmulq_f32,
    vorrq_u32, vqmovn_s32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshrq_n_u32, vst1_s16,
    vst1_u16, vst1q_f32, vsubq_f32, vtstq_u32,
};

/// What every 64-bit ARM has. Plain Rust is compiled for it there, so rows have no code of their
/// own.
pub(crate) static SET: Set = Set {
    name: "neon",
    includes: &[&scalar::SET],
    detect: || std::arch::is_aarch64_feature_detected!("neon"),
    pays: |_| false,
    rows: None,
    f32: Some(&Vectors {
        lanes: 4,
        kernels: instances!(floats, [8, 6, 4, 2, 1]),
        bytes: Bytes::None,
    }),
    bf16: None,
    int8: None,
};

/// 4 floats.
pub(super) struct Quarter;

impl Lanes for Quarter {
    const LANES: usize = 4;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: every 64-bit ARM has these, here and below.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: the caller vouches for a vector, here and below.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: float32x4_t) {
        // SAFETY: as above.
        unsafe { vst1q_f32(to, v) }
    }

    #[inline(always)]
    unsafe fn first(v: float32x4_t) -> f32 {
        // SAFETY: as above.
        unsafe { vgetq_lane_f32::<0>(v) }
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn deviation(v: float32x4_t, shift: float32x4_t, bits: u32) -> float32x4_t {
        /// The bit of each lane.
        const LANE_BITS: [u32; 4] = [1, 2, 4, 8];
        // SAFETY: as above; the constant is a vector.
        unsafe {
            let kept = vtstq_u32(vdupq_n_u32(bits), vld1q_u32(LANE_BITS.as_ptr()));
            let d = vreinterpretq_u32_f32(vsubq_f32(v, shift));
            vreinterpretq_f32_u32(vandq_u32(d, kept))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: float32x4_t) {
        // SAFETY: as above.
        unsafe {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            // A NaN stays one.
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let rounded = vbslq_u32(vceqq_f32(v, v), rounded, quiet);
            vst1_u16(to, vmovn_u32(vshrq_n_u32::<16>(rounded)));
        }
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, v: float32x4_t) {
        // SAFETY: as above.
        unsafe {
            // Conversion saturates and makes 0 of NaN; the least integer stands for those.
            let nan = vdupq_n_u32(i32::MIN.cast_unsigned());
            let integers = std::arch::aarch64::vreinterpretq_u32_s32(vcvtnq_s32_f32(v));
            let integers = vbslq_u32(vceqq_f32(v, v), integers, nan);
            vst1_s16(to, vqmovn_s32(std::arch::aarch64::vreinterpretq_s32_u32(integers)));
        }
    }
}

/// Defines `$dot`, an arithmetic that adds `weight` times `input` to `sum` by `$instruction`, and its
/// kernels `$micro`; `$attribute` enables CPU features. `$sums` and `$inputs` are vectors that
/// `$start` and `$load` make, and `$floats` turns sums into floats.
macro_rules! neon {
    (
        $(#[$attribute:meta])*
        $dot:ident, $micro:ident, $instruction:literal,
        $sums:ty, $start:expr, $inputs:ty, $load:expr, $floats:expr
    ) => {
        struct $dot;

        impl $crate::conv::tile::Dot for $dot {
            type Lanes = $crate::sets::neon::Quarter;
            type Sums = $sums;
            type Inputs = $inputs;
            type Weight = f32;

            #[inline(always)]
            unsafe fn start(from: *const u32) -> $sums {
                // SAFETY: the caller vouches for the element, here and below.
                unsafe { $start(from) }
            }

            #[inline(always)]
            unsafe fn inputs(from: *const u32) -> $inputs {
                // SAFETY: the caller vouches for a vector.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn weight(from: *const u32) -> f32 {
                // SAFETY: as above.
                unsafe { *from.cast() }
            }

            #[inline(always)]
            unsafe fn dot(mut sum: $sums, weight: f32, input: $inputs) -> $sums {
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

            #[inline(always)]
            unsafe fn floats(sums: $sums) -> std::arch::aarch64::float32x4_t {
                // SAFETY: as above.
                #[allow(unused_unsafe, reason = "floats need nothing")]
                unsafe {
                    $floats(sums)
                }
            }
        }

        $crate::conv::tile::micro!($micro, $dot $(, #[$attribute])*);
    };
}
pub(super) use neon;

neon!(
    #[target_feature(enable = "neon")]
    Floats,
    floats,
    "fmla {sum:v}.4s, {input:v}.4s, {weight:v}.s[0]",
    float32x4_t,
    |p: *const u32| vdupq_n_f32(*p.cast()),
    float32x4_t,
    |p: *const u32| vld1q_f32(p.cast()),
    |sums: float32x4_t| sums
);
