//! Plain Rust: the reference, and what runs where nothing better does.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::Set;
use crate::conv::{Vectors, instances, micro};

/// Every machine has it.
pub(crate) static SET: Set = Set {
    name: "scalar",
    includes: &[],
    detect: || true,
    rows: Some(&ROWS),
    f32: Some(&Vectors { lanes: LANES, kernels: instances!(micro, [4, 2, 1]) }),
    bf16: None,
};

/// Positions per "vector"; four suit the registers every 64-bit machine has.
const LANES: usize = 4;

type Vector = [f32; LANES];

#[inline(always)]
unsafe fn broadcast(from: *const f32) -> Vector {
    // SAFETY: the caller vouches for one float.
    [unsafe { *from }; LANES]
}

#[inline(always)]
unsafe fn load(from: *const f32) -> Vector {
    // SAFETY: the caller vouches for `LANES` floats; the read is unaligned.
    unsafe { from.cast::<Vector>().read_unaligned() }
}

#[inline(always)]
fn multiply(a: Vector, b: Vector, sum: Vector) -> Vector {
    std::array::from_fn(|lane| sum[lane] + a[lane] * b[lane])
}

#[inline(always)]
unsafe fn store(to: *mut f32, v: Vector) {
    // SAFETY: the caller vouches for `LANES` floats; the write is unaligned.
    unsafe { to.cast::<Vector>().write_unaligned(v) }
}

micro!([] LANES, [0.0_f32; LANES], [0.0_f32; LANES], broadcast, broadcast, load, multiply, store);
crate::row::compile_rows!();
