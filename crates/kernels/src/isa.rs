//! What this CPU can do, as a value that proves it.

use crate::conv::{Arithmetic, Multiplier};
use crate::row::Rows;
use crate::sets::{SETS, Set, scalar};
use std::sync::OnceLock;

/// Instruction sets this CPU has. The fields are private: holding a value is the proof.
///
/// Sets are no chain: one CPU has bf16 without int8, another the reverse. A value stands for any
/// of the sets found, usually for all that a named one includes.
#[derive(Clone, Copy)]
pub struct Isa {
    /// Bit `k` stands for entry `k` of the table of sets.
    proven: u32,
    rows: &'static Rows,
}

impl Isa {
    /// Plain Rust, which every machine has.
    pub const SCALAR: Self = Self { proven: 1, rows: &scalar::ROWS };

    /// Each instruction set of this machine with what it includes, weakest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let detected = detected();
        let has = |k: usize| detected >> k & 1 == 1;
        SETS.iter()
            .enumerate()
            .filter(|&(k, _)| has(k))
            .map(|(_, set)| Self::of(closure(set)))
            .collect()
    }

    /// All that this machine has.
    #[must_use]
    pub fn best() -> Self {
        Self::of(detected())
    }

    /// The instruction set called `name` with what it includes and nothing else, if this machine
    /// has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// As [`named`](Self::named), for a set that a test emulates where the CPU lacks it.
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn emulated(set: &Set) -> Self {
        Self::of(closure(set))
    }

    fn of(proven: u32) -> Self {
        let isa = Self { proven, ..Self::SCALAR };
        Self { rows: isa.last(|set| set.rows).unwrap_or(&scalar::ROWS), ..isa }
    }

    /// What the last of the sets that have it brings.
    fn last<T>(self, part: impl Fn(&Set) -> Option<T>) -> Option<T> {
        let proven = SETS.iter().enumerate().rev().filter(|(k, _)| self.proven >> k & 1 == 1);
        proven.map(|(_, set)| *set).find_map(part)
    }

    /// Name of the last of the sets, as used by options and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.last(|set| Some(set.name)).unwrap_or(scalar::SET.name)
    }

    /// Whether convolutions can multiply in `arithmetic`.
    #[must_use]
    pub fn has(self, arithmetic: Arithmetic) -> bool {
        self.multiplier(arithmetic).is_some()
    }

    /// Whether convolutions can multiply pairs of bf16 numbers.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self.has(Arithmetic::Bf16)
    }

    /// Whether convolutions in `arithmetic` run the same code as with `other`.
    #[must_use]
    pub fn multiplies_as(self, other: Self, arithmetic: Arithmetic) -> bool {
        let place = |isa: Self| {
            isa.multiplier(arithmetic).map(|multiplier| std::ptr::from_ref(multiplier).addr())
        };
        place(self) == place(other)
    }

    /// The functions for rows.
    pub(crate) fn rows(self) -> &'static Rows {
        self.rows
    }

    /// How to multiply in `arithmetic`.
    pub(crate) fn multiplier(self, arithmetic: Arithmetic) -> Option<&'static dyn Multiplier> {
        self.last(|set| set.multiplier(arithmetic))
    }

    /// Whether convolutions in `arithmetic` are faster than in f32.
    #[must_use]
    pub fn is_fast_in(self, arithmetic: Arithmetic) -> bool {
        let pays = self.last(|set| set.multiplier(arithmetic).map(|_| (set.pays)(arithmetic)));
        arithmetic == Arithmetic::F32 || pays.unwrap_or(false)
    }
}

/// Bits of a set and of all that it includes.
fn closure(set: &Set) -> u32 {
    let place = SETS.iter().position(|other| std::ptr::eq(*other, set));
    let own = place.map_or(0, |k| 1 << k);
    set.includes.iter().fold(own, |bits, included| bits | closure(included))
}

/// Bits of the sets this machine has: a set counts only with all that it includes.
fn detected() -> u32 {
    static DETECTED: OnceLock<u32> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        SETS.iter().enumerate().fold(0, |found, (k, set)| {
            let within = closure(set) & !(1 << k);
            if found & within == within && (set.detect)() { found | 1 << k } else { found }
        })
    })
}

impl PartialEq for Isa {
    fn eq(&self, other: &Self) -> bool {
        self.proven == other.proven
    }
}

impl Eq for Isa {}

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

#[cfg(test)]
mod tests {
    use super::{Isa, SETS, closure};

    #[test]
    fn names_are_unique_and_lead_back() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("no such thing"), None);
        assert_eq!(Isa::available()[0], Isa::SCALAR);
    }

    #[test]
    fn a_set_stands_behind_all_that_it_includes() {
        for (k, set) in SETS.iter().enumerate() {
            assert!(closure(set) < 1 << (k + 1), "{} includes a later set", set.name);
        }
    }
}
