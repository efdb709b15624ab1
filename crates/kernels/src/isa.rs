//! Instruction sets, as values that prove the CPU has them.

/// An instruction set this CPU has. The field is private: holding one is the proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(pub(super) Level);

/// Ordered: a later level includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonBf16,
}

impl Isa {
    /// Plain Rust, which every machine has.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// Every instruction set of this machine, weakest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "some architectures have the scalar level only")]
        let mut levels = vec![Level::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            let amx = bf16 && amx_is_allowed();
            let found = [
                (avx2, Level::Avx2),
                (avx512, Level::Avx512),
                (bf16, Level::Avx512Bf16),
                (amx, Level::Amx),
            ];
            levels.extend(found.iter().filter(|(has, _)| *has).map(|(_, level)| *level));
        }
        #[cfg(target_arch = "aarch64")]
        {
            let neon = std::arch::is_aarch64_feature_detected!("neon");
            let bf16 = neon && std::arch::is_aarch64_feature_detected!("bf16");
            let found = [(neon, Level::Neon), (bf16, Level::NeonBf16)];
            levels.extend(found.iter().filter(|(has, _)| *has).map(|(_, level)| *level));
        }
        levels.into_iter().map(Self).collect()
    }

    /// The strongest instruction set of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::SCALAR)
    }

    /// The instruction set called `name`, if this machine has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Name as used by options and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "amx-bf16",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::NeonBf16 => "neon-bf16",
        }
    }

    /// Whether this level multiplies pairs of bf16 numbers.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 | Level::Amx => true,
            #[cfg(target_arch = "aarch64")]
            Level::NeonBf16 => true,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the CPU has AMX with bf16 and the kernel lets this process use it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_allowed() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` for `XFEATURE_XTILEDATA`: tile registers are 8 KiB of state per
    /// thread, which Linux (5.16 and later) saves only for processes that asked.
    const REQUEST: (libc::c_long, libc::c_long) = (0x1023, 18);
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    if std::arch::x86_64::__cpuid(0).eax < 7 {
        return false;
    }
    let found = std::arch::x86_64::__cpuid_count(7, 0).edx;
    // SAFETY: the call takes two numbers and touches no memory.
    found & TILE_AND_BF16 == TILE_AND_BF16
        && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) } == 0
}

/// Nobody tried how other systems want to be asked.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_allowed() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn names_are_unique_and_lead_back() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("no such thing"), None);
        assert!(Isa::best() >= Isa::SCALAR);
    }
}
