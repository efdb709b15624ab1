//! Plain Rust: the reference, and what runs where nothing better does.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::Set;
use crate::conv::tile::{Dot, Lanes, instances, micro};
use crate::conv::{Bytes, Vectors};
use crate::row::round_bf16;
use std::array::from_fn;

/// Every machine has it.
pub(crate) static SET: Set = Set {
    name: "scalar",
    includes: &[],
    detect: || true,
    // It multiplies bytes to be compared with.
    pays: |_| false,
    rows: Some(&ROWS),
    f32: Some(&Vectors {
        lanes: LANES,
        kernels: instances!(floats, [4, 2, 1]),
        bytes: Bytes::None,
    }),
    bf16: None,
    int8: Some(&Vectors {
        lanes: LANES,
        kernels: instances!(bytes, [4, 2, 1]),
        bytes: Bytes::Unsigned,
    }),
};

/// Positions per "vector"; four suit the registers every 64-bit machine has.
const LANES: usize = 4;

/// Four floats.
pub(super) struct Plain;

impl Lanes for Plain {
    const LANES: usize = LANES;
    type Floats = [f32; LANES];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; LANES] {
        // SAFETY: the caller vouches for a vector; the read is unaligned.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; LANES]) {
        // SAFETY: the caller vouches for a vector; the write is unaligned.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn first(v: [f32; LANES]) -> f32 {
        v[0]
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|k| a[k] + b[k])
    }

    #[inline(always)]
    unsafe fn multiply(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|k| a[k] * b[k])
    }

    #[inline(always)]
    unsafe fn deviation(v: [f32; LANES], shift: [f32; LANES], bits: u32) -> [f32; LANES] {
        from_fn(|k| if bits >> k & 1 == 1 { v[k] - shift[k] } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: [f32; LANES]) {
        let halves = v.map(|v| (round_bf16(v) >> 16) as u16);
        // SAFETY: as in `store`.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(halves) }
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, v: [f32; LANES]) {
        let integers = v.map(body::integer);
        // SAFETY: as in `store`.
        unsafe { to.cast::<[i16; LANES]>().write_unaligned(integers) }
    }
}

/// Floats times floats.
struct Floats;

impl Dot for Floats {
    type Lanes = Plain;
    type Sums = [f32; LANES];
    type Inputs = [f32; LANES];
    type Weight = f32;

    #[inline(always)]
    unsafe fn start(from: *const u32) -> Self::Sums {
        // SAFETY: the caller vouches for one element.
        [f32::from_bits(unsafe { *from }); LANES]
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> Self::Inputs {
        // SAFETY: the caller vouches for a vector.
        unsafe { Plain::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> f32 {
        // SAFETY: the caller vouches for one element.
        f32::from_bits(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, weight: f32, inputs: Self::Inputs) -> Self::Sums {
        from_fn(|k| sums[k] + weight * inputs[k])
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> [f32; LANES] {
        sums
    }
}

/// Four unsigned bytes times four signed ones.
struct Quads;

impl Dot for Quads {
    type Lanes = Plain;
    type Sums = [i32; LANES];
    type Inputs = [[u8; 4]; LANES];
    type Weight = [i8; 4];

    #[inline(always)]
    unsafe fn start(from: *const u32) -> Self::Sums {
        // SAFETY: the caller vouches for one element.
        [unsafe { *from }.cast_signed(); LANES]
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> Self::Inputs {
        // SAFETY: the caller vouches for a vector; the read is unaligned.
        unsafe { from.cast::<Self::Inputs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> [i8; 4] {
        // SAFETY: the caller vouches for one element.
        unsafe { *from.cast::<[i8; 4]>() }
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, weight: [i8; 4], inputs: Self::Inputs) -> Self::Sums {
        from_fn(|k| {
            let products =
                weight.iter().zip(&inputs[k]).map(|(&w, &i)| i32::from(w) * i32::from(i));
            sums[k] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Sums) -> [f32; LANES] {
        sums.map(|sum| sum as f32)
    }
}

micro!(floats, Floats);
micro!(bytes, Quads);
crate::row::compile_rows!();
