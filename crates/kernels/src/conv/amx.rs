//! Tiles of bf16 pairs on AMX: up to 32 output channels by up to 64 positions per call.
//!
//! The ring already lies as the instruction wants its second operand: a tile of 16 rows, one
//! per pair of input channels, of 16 consecutive positions. The first operand is a tile of
//! packed weights, one row per output channel; sums are stored as they are. Subnormal numbers
//! count as zero, as in `avx512_bf16`.
//!
//! With fewer than 16 pairs the kernel's slices count as pairs too (`Conv::folded`). Up to 16
//! output channels use four tiles of sums side by side; more use two by two, which reads each
//! input tile once for both halves of the channels.

#![allow(clippy::inline_always, reason = "one instruction each, also in debug builds")]

use super::micro::{Micro, Tile};
use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a tile; also pairs of channels, and positions, in a row of 64 bytes.
pub(super) const ROWS: usize = 16;

/// Bytes of a row.
const ROW_BYTES: usize = 64;

/// Most output channels a call computes.
pub(super) const MOST_OUTPUTS: usize = 2 * ROWS;

/// How `channels` pairs are cut into parts of equal height; the last may overlap the one
/// before, with weights of zero for what both have.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub count: usize,
    pub height: usize,
    channels: usize,
}

impl Parts {
    pub(super) fn of(channels: usize) -> Self {
        let count = channels.div_ceil(ROWS);
        Self { count, height: channels.div_ceil(count), channels }
    }

    /// First pair of `part`.
    pub(super) fn first(self, part: usize) -> usize {
        (part * self.height).min(self.channels - self.height)
    }
}

/// Output channels of each half of `stored`.
fn halves(stored: usize) -> [usize; 2] {
    if stored <= ROWS { [stored, 0] } else { [stored.div_ceil(2), stored / 2] }
}

/// Kernels for one to as many vectors of positions as a call can take.
pub(super) fn kernels(stored: usize) -> &'static [Micro] {
    if stored <= ROWS {
        &[micro::<1, 1>, micro::<1, 2>, micro::<1, 3>, micro::<1, 4>]
    } else {
        &[micro::<2, 1>, micro::<2, 2>]
    }
}

/// The tile registers of this thread, configured for one block; released when dropped.
pub(super) struct Configured(PhantomData<*const ()>);

impl Configured {
    /// # Safety
    ///
    /// The CPU has AMX and the process may use it; `channels` and `stored` are at least 1, and
    /// `stored` at most [`MOST_OUTPUTS`].
    pub(super) unsafe fn new(channels: usize, stored: usize) -> Self {
        /// Palette 1, then bytes per row of each tile from byte 16 and rows from byte 48.
        #[repr(align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        let height = Parts::of(channels).height;
        let [first, second] = halves(stored);
        let mut tile = |index: usize, rows: usize, bytes: usize| {
            // A tile nobody uses still needs a shape.
            palette.0[16 + 2 * index] = bytes as u8;
            palette.0[48 + index] = rows.max(1) as u8;
        };
        for sums in 0..4 {
            let below = second > 0 && sums >= 2;
            tile(sums, if below { second } else { first }, ROW_BYTES);
        }
        tile(4, first, 4 * height);
        tile(5, second, 4 * height);
        tile(6, height, ROW_BYTES);
        tile(7, height, ROW_BYTES);
        // SAFETY: the palette is 64 bytes and valid: no tile exceeds 16 rows of 64 bytes. The
        // compiler never uses tile registers itself.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const palette, options(nostack, readonly)) };
        Self(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: `new` vouched for the CPU.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Fills tile `T` with rows `stride` floats apart.
#[inline(always)]
unsafe fn load<const T: usize>(from: *const f32, stride: usize) {
    // SAFETY: the caller vouches for the rows that the tile is configured for.
    unsafe {
        asm!("tileloadd tmm{t}, [{p} + {s}*1]", t = const T, p = in(reg) from, s = in(reg) 4 * stride,
            options(nostack, readonly, preserves_flags));
    }
}

/// Stores tile `T` into rows `stride` floats apart.
#[inline(always)]
unsafe fn store<const T: usize>(to: *mut f32, stride: usize) {
    // SAFETY: as in `load`.
    unsafe {
        asm!("tilestored [{p} + {s}*1], tmm{t}", t = const T, p = in(reg) to, s = in(reg) 4 * stride,
            options(nostack, preserves_flags));
    }
}

/// Adds the products of weights `W` and inputs `I` to sums `S`.
#[inline(always)]
unsafe fn multiply<const S: usize, const W: usize, const I: usize>() {
    // SAFETY: registers only.
    unsafe {
        asm!("tdpbf16ps tmm{s}, tmm{w}, tmm{i}", s = const S, w = const W, i = const I,
            options(nostack, nomem, preserves_flags));
    }
}

/// Runs the body for each vector `V` of a call that has `$count`.
macro_rules! each_vector {
    ($count:expr, $body:block) => {
        each_vector!($count, $body, 0 1 2 3)
    };
    ($count:expr, $body:block, $($index:literal)*) => {
        $({
            const V: usize = $index;
            if V < $count $body
        })*
    };
}

/// Computes a tile of all stored channels and `NV` vectors.
///
/// Sums of vector `V` are in tile `V`, those of the second half of the channels, which leaves
/// room for two vectors, in tile `V + 2`.
///
/// # Safety
///
/// As [`Micro`], and this thread's tiles are [`Configured`] for the block.
unsafe fn micro<const HALVES: usize, const NV: usize>(tile: &Tile) {
    let parts = Parts::of(tile.channels);
    let first = halves(tile.stored)[0];
    // SAFETY: the caller vouches for 16 biases per stored channel; per part and tap for
    // `stored * height` weights; for `16 * NV` positions of every channel of the ring; and for as
    // many of each stored output channel.
    unsafe {
        each_vector!(NV, {
            load::<V>(tile.bias, ROWS);
            if HALVES == 2 {
                load::<{ (V + 2) % 4 }>(tile.bias.add(first * ROWS), ROWS);
            }
        });
        for part in 0..parts.count {
            let ring = tile.ring.add(parts.first(part) * tile.channel_stride);
            let mut weights = tile.weights.add(part * tile.weight_stride);
            for tap in 0..tile.tap_count {
                let inputs = ring.add(*tile.taps.add(tap));
                load::<4>(weights, parts.height);
                if HALVES == 2 {
                    load::<5>(weights.add(first * parts.height), parts.height);
                }
                each_vector!(NV, {
                    load::<{ 6 + V % 2 }>(inputs.add(V * ROWS), tile.channel_stride);
                    multiply::<V, 4, { 6 + V % 2 }>();
                    if HALVES == 2 {
                        multiply::<{ (V + 2) % 4 }, 5, { 6 + V % 2 }>();
                    }
                });
                weights = weights.add(tile.stored * parts.height);
            }
        }
        each_vector!(NV, {
            let out = tile.out.add(V * ROWS);
            store::<V>(out, tile.out_stride);
            if HALVES == 2 {
                store::<{ (V + 2) % 4 }>(out.add(first * tile.out_stride), tile.out_stride);
            }
        });
    }
}
