//! Instruction sets: a file each, and the table that lists them.
//!
//! `docs/adding-a-kernel.md` says how to add one.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_vnni;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_bf16;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
pub(crate) mod scalar;

use crate::conv::{Arithmetic, Multiplier};
use crate::row::Rows;

/// What one instruction set brings.
pub(crate) struct Set {
    /// As options and logs call it.
    pub name: &'static str,
    /// Sets that stay on when this one is named as a cap: those its functions were compiled with,
    /// and others that every CPU with this one has.
    pub includes: &'static [&'static Set],
    /// Whether this CPU has the instructions that the set adds, and this process may use them.
    pub detect: fn() -> bool,
    /// Whether it multiplies in bf16 and int8 faster than in f32 on this CPU, as measured or, where no
    /// such CPU was at hand, as its instructions promise: `auto` goes by that.
    pub pays: fn(Arithmetic) -> bool,
    /// Work on rows of voxels.
    pub rows: Option<&'static Rows>,
    /// Convolution in f32.
    pub f32: Option<&'static dyn Multiplier>,
    /// Convolution of pairs of bf16 numbers.
    pub bf16: Option<&'static dyn Multiplier>,
    /// Convolution of quads of bytes.
    pub int8: Option<&'static dyn Multiplier>,
}

impl Set {
    /// How it multiplies in `arithmetic`, if it brings that.
    pub(crate) fn multiplier(&self, arithmetic: Arithmetic) -> Option<&'static dyn Multiplier> {
        match arithmetic {
            Arithmetic::F32 => self.f32,
            Arithmetic::Bf16 => self.bf16,
            Arithmetic::Int8 => self.int8,
        }
    }
}

/// All sets of this architecture. Where several bring the same thing, the last one counts.
pub(crate) static SETS: &[&Set] = &[
    &scalar::SET,
    #[cfg(target_arch = "x86_64")]
    &avx2::SET,
    #[cfg(target_arch = "x86_64")]
    &avx2_vnni::LONG,
    #[cfg(target_arch = "x86_64")]
    &avx2_vnni::SET,
    #[cfg(target_arch = "x86_64")]
    &avx512::SET,
    #[cfg(target_arch = "x86_64")]
    &avx512_vnni::SET,
    #[cfg(target_arch = "x86_64")]
    &avx512_bf16::SET,
    #[cfg(target_arch = "x86_64")]
    &amx::SET,
    #[cfg(target_arch = "aarch64")]
    &neon::SET,
    #[cfg(target_arch = "aarch64")]
    &neon_dot::SET,
    #[cfg(target_arch = "aarch64")]
    &neon_bf16::SET,
    #[cfg(target_arch = "aarch64")]
    &neon_dot::MIXED,
];
