//! Which arithmetic pays on which CPU, as measured: `auto` goes by this table, not by names.
//!
//! | CPU | bf16 against f32 | int8 against f32 |
//! |---|---|---|
//! | AMD Zen 4 and 5, AVX-512 | 1.4 to 1.6 times as fast | 2 times and more |
//! | Intel Sapphire Rapids, AVX-512 without AMX | slower | |
//! | Intel Sapphire Rapids, AMX | 1.8 times as fast | |
//!
//! Others are ranked as their instructions promise: ARM by `bfdot`, which has twice the products of
//! `fmla` at the same rate.

use crate::Isa;
use crate::conv::Arithmetic;
#[cfg(target_arch = "x86_64")]
use crate::sets;

impl Isa {
    /// Whether convolutions in `arithmetic` are faster than in f32.
    #[must_use]
    pub fn is_fast_in(self, arithmetic: Arithmetic) -> bool {
        match arithmetic {
            Arithmetic::F32 => true,
            Arithmetic::Bf16 => self.has(Arithmetic::Bf16) && bf16_pays(self),
            // Plain Rust multiplies bytes too, to be compared with.
            Arithmetic::Int8 => !self.multiplies_as(Self::SCALAR, arithmetic),
        }
    }
}

/// Whether pairs of bf16 numbers are multiplied faster than floats.
fn bf16_pays(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        vendor.as_flattened() == b"AuthenticAMD" || isa.includes(&sets::amx::SET)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        isa != Isa::SCALAR
    }
}
